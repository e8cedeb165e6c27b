"""The result in tables and sentences, which a terminal and a page show alike."""

import textwrap

from teacher_logits.exploring.fidelity.report import FidelityReport
from teacher_logits.exploring.fidelity.verdict import allowed_rounding
from teacher_logits.exploring.text import Table, percent, table
from teacher_logits.printable import visible

_WIDTH = 100
"""Letters of a line in a terminal."""


def fidelity_text(report: FidelityReport) -> str:
    """All figures in tables, what they mean, and the verdict in the last line."""
    parts = [
        *(
            ["NOT the model of this dataset: " + "; ".join(map(visible, report.differences)), ""]
            * bool(report.differences)
        ),
        f"{visible(report.name)} against {visible(report.model)}: {compared_text(report)}",
        recomputed_text(report),
        textwrap.fill(fidelity_explanation(report), _WIDTH),
        "",
        *(f"{_table_text(each)}\n" for each in fidelity_tables(report)),
        *(f"wrong: {visible(line)}" for line in report.problems.values()),
        f"{visible(report.name)}: {report.verdict}{'' if report.sound else ', see above'}",
    ]
    return "\n".join(parts)


def compared_text(report: FidelityReport) -> str:
    """How much was compared: '20 of 60 conversations, 2,396 tokens'."""
    return f"{report.conversations:,} of {report.of:,} conversations, {report.entries:,} tokens"


def recomputed_text(report: FidelityReport) -> str:
    """How: 'recomputed in float32 (as the run was), one conversation at a time without padding'."""
    how = "as the run was" if report.dtype == report.run_dtype else f"the run was in {report.run_dtype}"
    return f"recomputed in {report.dtype} ({how}), one conversation at a time without padding"


def fidelity_explanation(report: FidelityReport) -> str:
    """Which differences are no error, in sentences."""
    allowed = allowed_rounding(report.run_dtype, report.dtype)
    return (
        "Alone, the teacher rounds otherwise than in the run's padded batches. How much shows in the extreme logits, "
        "the largest and the smallest of each nucleus and sample, which are stored without quantization: they may be "
        f"off by {allowed.mean:.2g} nats on average, {allowed.worst:.2g} at worst. What neither this nor the "
        "quantization explains is an error."
    )


def fidelity_tables(report: FidelityReport) -> list[Table]:
    """All figures; none where no token was compared."""
    if not report.entries:
        return []
    return [_differences(report), _quantized(report), _nuclei(report), _costs(report), _estimates(report)]


def _table_text(each: Table) -> str:
    """A table with its title above the names, and its notes."""
    rows = [(each.title, *each.head[1:]), *each.rows]
    numbers = "".join(map(str, range(1, len(each.head))))
    return "\n".join([table(rows, right=numbers), *(textwrap.fill(note, _WIDTH) for note in each.notes)])


def _differences(report: FidelityReport) -> Table:
    rows = []
    for name, figure in report.figures.items():
        error = figure.error
        sizes = [f"{size:.1e}" if size else "0" for size in (error.mean, error.median, error.p99, error.worst)]
        rows.append((name, figure.unit, *sizes, _place(error.index), _place(error.position), f"{figure.bias:+.1e}"))
    return Table(
        "Differences",
        ("", "unit", "mean", "median", "99 %", "worst", "conversation", "position", "bias"),
        tuple(rows),
        ("Stored minus recomputed, by size, and where the worst stands; the bias is the mean with signs.",),
    )


def _place(number: int | None) -> str:
    return "" if number is None else str(number)


def _quantized(report: FidelityReport) -> Table:
    rows = [
        (name, percent(report.figures[name].within), f"{_steps(steps)} steps", f"{size:.1g} nats")
        for name, (steps, size) in report.largest_steps.items()
        if name in report.figures
    ]
    return Table(
        "Quantized logits",
        ("", "within half a step", "worst", "its step"),
        tuple(rows),
        ("Quantization alone makes half a step. Where that is next to nothing, the teacher's rounding is many steps.",),
    )


def _steps(number: float) -> str:
    return f"{number:.3g}" if number < 100 else f"{number:,.0f}"


def _nuclei(report: FidelityReport) -> Table:
    nuclei = report.nuclei
    counts = {
        "the same ids in the same order": nuclei.same,
        f"differ in a tie, within {nuclei.tolerance:.1g} nats": nuclei.tied,
        "wrong": nuclei.wrong,
    }
    stored, own = map(percent, report.mean_mass)
    return Table(
        "Nuclei",
        ("", "tokens", "share of tokens"),
        tuple((name, f"{count:,}", percent(count / report.entries)) for name, count in counts.items()),
        (f"They hold {stored} of the probability on average as stored, {own} in the teacher's own nuclei.",),
    )


def _costs(report: FidelityReport) -> Table:
    rows = []
    for name, figure in report.costs.items():
        error = figure.error
        sizes = [f"{size:.2g}" for size in (error.mean, error.median, error.p99, error.worst)]
        rows.append((name, *sizes, _place(error.index), _place(error.position)))
    return Table(
        "KL(teacher, stored), in nats",
        ("", "mean", "median", "99 %", "worst", "conversation", "position"),
        tuple(rows),
        ("What keeping a part costs: the divergence from the teacher to what a trainer would make of that part.",),
    )


def _estimates(report: FidelityReport) -> Table:
    rows = [
        (name, f"{each.estimated:#.5g}", f"{each.exact:#.5g}", f"{each.standard_error:.1g}", f"{each.z:+.2f}")
        for name, each in report.estimates.items()
    ]
    return Table(
        "Estimates from the samples",
        ("", "estimated", "exact", "standard error", "z"),
        tuple(rows),
        ("Means over the tokens. z is their difference in standard errors: of an unbiased estimate seldom beyond 3.",),
    )
