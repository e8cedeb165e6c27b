"""How faithful a logits dataset is: what it stores against what its teacher says.

compare   the whole comparison            teacher   the model, and whether it is the run's
truth     the format's definitions again  measures  differences entry by entry
figures   their means and worsts          verdict   rounding or error
report    the result                      text      it in tables and sentences
"""

from teacher_logits.exploring.fidelity.compare import CONVERSATIONS, compare_with_teacher
from teacher_logits.exploring.fidelity.figures import Figure, Spread, TailEstimate
from teacher_logits.exploring.fidelity.report import FidelityReport, NucleusCounts
from teacher_logits.exploring.fidelity.text import (
    compared_text,
    fidelity_explanation,
    fidelity_tables,
    fidelity_text,
    recomputed_text,
)

__all__ = [
    "CONVERSATIONS",
    "FidelityReport",
    "Figure",
    "NucleusCounts",
    "Spread",
    "TailEstimate",
    "compare_with_teacher",
    "compared_text",
    "fidelity_explanation",
    "fidelity_tables",
    "fidelity_text",
    "recomputed_text",
]
