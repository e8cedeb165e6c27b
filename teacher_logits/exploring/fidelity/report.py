"""The result of a comparison."""

from dataclasses import dataclass

from teacher_logits.exploring.fidelity.figures import Figure, TailEstimate


@dataclass(frozen=True)
class NucleusCounts:
    """Nuclei by how they agree with the teacher's own."""

    same: int
    """The same ids in the same order."""
    tied: int
    """They differ where the teacher's rounding decides: between logits that are as close, or at top_p."""
    wrong: int
    tolerance: float
    """Nats by which logits may be off in a tie."""
    rounding: Figure
    """How far they would have to be off to explain the nuclei that differ."""


@dataclass(frozen=True)
class FidelityReport:
    """How what is stored differs from what the teacher says. `fidelity_text` prints it."""

    name: str
    model: str
    differences: tuple[str, ...]
    """In what the model is not the run's; empty where it is."""
    run_dtype: str
    dtype: str
    """Types that the run and the comparison computed in."""
    conversations: int
    of: int
    """Conversations of the dataset."""
    entries: int
    figures: dict[str, Figure]
    """Stored minus recomputed by kind of number; see `measures.UNITS`."""
    largest_steps: dict[str, tuple[float, float]]
    """Largest error of nucleus and sampled logits in steps of the quantization, which alone makes half a one, and how
    many nats such a step is: where it is next to nothing, the teacher's rounding is many of them."""
    nuclei: NucleusCounts
    mean_mass: tuple[float, float]
    """Of the nuclei as stored, and of the teacher's own ones."""
    costs: dict[str, Figure]
    """KL divergence from the teacher to what a trainer would make of the stored tokens, in nats."""
    estimates: dict[str, TailEstimate]
    problems: dict[str, str]
    """What is wrong, by the figure that shows it."""

    @property
    def sound(self) -> bool:
        """Whether the differences are those of the format and the teacher's own rounding."""
        return not self.problems

    @property
    def verdict(self) -> str:
        """In a few words."""
        return "sound" if self.sound else "NOT sound"
