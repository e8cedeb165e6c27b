"""The report and its text."""

from dataclasses import dataclass

from teacher_logits.exploring.fidelity.figures import Figure, TailEstimate
from teacher_logits.exploring.fidelity.verdict import allowed_rounding
from teacher_logits.exploring.text import percent, table, visible


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


def fidelity_text(report: FidelityReport) -> str:
    """All figures in tables, what they mean, and the verdict in the last line."""
    parts = [
        *(
            ["NOT the model of this dataset: " + "; ".join(map(visible, report.differences)), ""]
            * bool(report.differences)
        ),
        f"{visible(report.name)} against {visible(report.model)}: {report.conversations:,} of {report.of:,} "
        f"conversations, {report.entries:,} tokens",
        _computed(report),
        "",
        _figures(report),
        "",
        _logits(report),
        _nuclei(report),
        f"nucleus mass: {percent(report.mean_mass[0])} on average as stored, {percent(report.mean_mass[1])} in the "
        "teacher's own nuclei",
        "",
        _costs(report),
        "",
        _estimates(report),
        "",
        *(f"wrong: {visible(line)}" for line in report.problems.values()),
        f"{visible(report.name)}: {'sound' if report.sound else 'NOT sound, see above'}",
    ]
    return "\n".join(parts)


def _computed(report: FidelityReport) -> str:
    how = "as the run was" if report.dtype == report.run_dtype else f"the run was in {report.run_dtype}"
    allowed = allowed_rounding(report.run_dtype, report.dtype)
    return (
        f"recomputed in {report.dtype} ({how}), one conversation at a time without padding\n"
        "By that the teacher rounds otherwise. How much shows in the extreme logits, stored as they were: they may be\n"
        f"off by {allowed.mean:.2g} nats on average, {allowed.worst:.2g} at worst. What neither this nor the "
        "quantization explains\nis an error."
    )


def _figures(report: FidelityReport) -> str:
    rows = [["difference", "unit", "mean", "median", "99 %", "worst", "at index", "position", "bias"]]
    for name, figure in report.figures.items():
        error = figure.error
        sizes = [f"{size:.2g}" for size in (error.mean, error.median, error.p99, error.worst)]
        rows.append([name, figure.unit, *sizes, _place(error.index), _place(error.position), f"{figure.bias:+.1e}"])
    return table(rows, right="2345678")


def _place(number: int | None) -> str:
    return "" if number is None else str(number)


def _logits(report: FidelityReport) -> str:
    parts = [
        f"{name}: {percent(report.figures[name].within)} within half a step of the quantization, the worst off by "
        f"{steps:.3g} steps of {size:.1g} nats"
        for name, (steps, size) in report.largest_steps.items()
        if name in report.figures
    ]
    return "\n".join(parts)


def _nuclei(report: FidelityReport) -> str:
    nuclei = report.nuclei
    text = (
        f"nuclei: {nuclei.same:,} of the same ids, {nuclei.tied:,} differ in a tie within {nuclei.tolerance:.1g} nats"
    )
    return f"{text}, {nuclei.wrong:,} wrong"


def _costs(report: FidelityReport) -> str:
    rows = [["KL(teacher, stored), nats", "mean", "median", "99 %", "worst", "at index", "position"]]
    for name, figure in report.costs.items():
        error = figure.error
        sizes = [f"{size:.2g}" for size in (error.mean, error.median, error.p99, error.worst)]
        rows.append([name, *sizes, _place(error.index), _place(error.position)])
    return table(rows, right="123456")


def _estimates(report: FidelityReport) -> str:
    rows = [["estimate from the samples", "mean", "exact", "standard error", "z"]]
    for name, each in report.estimates.items():
        rows.append(
            [name, f"{each.estimated:.6g}", f"{each.exact:.6g}", f"{each.standard_error:.1g}", f"{each.z:+.2f}"]
        )
    return table(rows, right="1234")
