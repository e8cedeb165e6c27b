"""What the report tells of a comparison with the teacher."""

from dataclasses import dataclass

from teacher_logits.exploring.fidelity import (
    FidelityReport,
    compared_text,
    fidelity_explanation,
    fidelity_tables,
    recomputed_text,
)
from teacher_logits.exploring.text import Table
from teacher_logits.printable import visible


@dataclass(frozen=True)
class Comparison:
    """How what is stored differs from what the teacher says, as texts."""

    sound: bool
    verdict: str
    """In a few words."""
    teacher: str
    compared: str
    """How many conversations and tokens."""
    recomputed: str
    """How."""
    explanation: str
    """Which differences are no error."""
    problems: tuple[str, ...]
    """What is wrong, a line each."""
    tables: tuple[Table, ...]
    """All figures, the differences first."""


def comparison_of(found: FidelityReport) -> Comparison:
    """The same as a page shows it."""
    return Comparison(
        sound=found.sound,
        verdict=found.verdict,
        teacher=visible(found.model).replace("\n", " "),
        compared=compared_text(found),
        recomputed=recomputed_text(found),
        explanation=fidelity_explanation(found),
        problems=tuple(visible(line) for line in found.problems.values()),
        tables=tuple(fidelity_tables(found)),
    )
