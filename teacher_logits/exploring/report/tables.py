"""The figures of a dataset as tables for a page."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from teacher_logits.exploring.statistics import (
    BytesPerToken,
    DatasetStats,
    EntropyStats,
    NucleusSizeStats,
    RankStats,
    Spread,
    SurpriseStats,
    at_cap_text,
    first_choices_text,
)
from teacher_logits.exploring.text import Table, percent, size_text
from teacher_logits.printable import visible

_LN2 = float(np.log(2))
_MOST_REASONS = 10


@dataclass(frozen=True)
class ColumnRow:
    """What one column of the files takes."""

    name: str
    per_token: str
    """Bytes."""
    share: str
    uncompressed: str
    """Bytes a token before compression; '' where nothing is compressed."""
    width: float | None
    """Of its bar: its share of the largest column, in per cent. None: no bar."""


def figure_tables(stats: DatasetStats, skipped: dict[str, int]) -> list[Table]:
    """All figures; those of columns that are not stored are left out.

    skipped: conversations that were left out, by reason.
    """
    found: list[Table] = []
    if stats.entries:
        found += [_sizes(stats.lengths, stats.nucleus), _mass(stats.mass), _entropy(stats.entropy)]
        if stats.surprise is not None or stats.ranks is not None:
            found.append(Table("The texts’ own tokens", ("", "value"), tuple(_own(stats.surprise, stats.ranks))))
    if skipped:
        found.append(_skipped(skipped))
    return found


def column_rows(stats: BytesPerToken) -> list[ColumnRow]:
    """A row for each column in the order of the format, the files' footers, and the sum; none without tokens."""
    if not stats.tokens:
        return []
    sizes = {name: (column.stored, column.uncompressed) for name, column in stats.columns.items()}
    largest = max(stored for stored, _ in sizes.values())
    rows = [
        _column(name, stored, f"{uncompressed / stats.tokens:.2f}", stats, largest)
        for name, (stored, uncompressed) in sizes.items()
    ]
    if stats.from_files:
        rows.append(_column("footers", stats.other, "", stats, largest))
    uncompressed = sum(column.uncompressed for column in stats.columns.values())
    together = ColumnRow("together", f"{stats.per_token:.2f}", percent(1), f"{uncompressed / stats.tokens:.2f}", None)
    return [*rows, together]


def expected_text(stats: BytesPerToken) -> str:
    """What the tokens take, and what more of them would."""
    more = " and ".join(f"{count // 10**6} M tokens {size_text(stats.expected(count))}" for count in (10**6, 10**8))
    return f"{stats.tokens:,} tokens take {size_text(stats.stored)}. At that rate {more}."


def bits(nats: float) -> str:
    """Nats as bits, with three decimals."""
    return f"{nats / _LN2:.3f}"


def _column(name: str, stored: int, uncompressed: str, stats: BytesPerToken, largest: int) -> ColumnRow:
    width = round(100 * stored / largest, 1) if largest else 0.0
    return ColumnRow(name, f"{stored / stats.tokens:.2f}", percent(stored / stats.stored), uncompressed, width)


def _sizes(lengths: Spread, nucleus: NucleusSizeStats) -> Table:
    percentiles = [5, 50, 95]
    return Table(
        "Sizes",
        ("", "mean", "smallest", "5 %", "median", "95 %", "largest"),
        (
            (
                "stored tokens a conversation",
                f"{lengths.mean:,.1f}",
                f"{lengths.smallest:,.0f}",
                *(f"{lengths.percentile(each):,.0f}" for each in percentiles),
                f"{lengths.largest:,.0f}",
            ),
            (
                "tokens in a nucleus",
                f"{nucleus.mean:,.1f}",
                f"{nucleus.smallest}",
                *(f"{nucleus.percentile(each):g}" for each in percentiles),
                f"{nucleus.largest}",
            ),
        ),
        (f"At the cap: {at_cap_text(nucleus)}.",),
    )


def _mass(mass: dict[int, Spread]) -> Table:
    rows = [
        (
            f"T = {temperature}",
            *map(percent, (spread.mean, spread.median, spread.percentile(1), spread.smallest)),
        )
        for temperature, spread in mass.items()
    ]
    return Table(
        "Share of the distribution that the nuclei hold",
        ("temperature", "mean", "median", "1 %", "smallest"),
        tuple(rows),
    )


def _entropy(entropy: EntropyStats) -> Table:
    named = (
        ("at least", entropy.lowest),
        ("at most", entropy.highest),
        ("the nuclei’s part, exact", entropy.nucleus),
    )
    return Table(
        "Entropy, in bits",
        ("", "mean", "median", "95 %", "largest"),
        tuple(
            (name, *map(bits, (spread.mean, spread.median, spread.percentile(95), spread.largest)))
            for name, spread in named
        ),
        (
            f"Estimated mean: {bits(entropy.estimate)} bits, which are {entropy.estimate:.3f} nats. Of the tails the "
            "mass and some draws are stored, so that entropies lie between bounds.",
        ),
    )


def _own(surprise: SurpriseStats | None, ranks: RankStats | None) -> Iterator[tuple[str, str]]:
    if surprise is not None and surprise.nats.count:
        nats = surprise.nats
        yield "perplexity", f"{surprise.perplexity:,.2f}"
        told = (("mean", nats.mean), ("median", nats.median), ("95 %", nats.percentile(95)), ("largest", nats.largest))
        for name, value in told:
            yield f"surprise, {name}", f"{value / _LN2:.2f} bits"
    if ranks is not None:
        yield "the teacher’s first choice", percent(ranks.share(1))
        yield "among its first five", first_choices_text(ranks, 5)
        yield "in the nucleus", percent(ranks.share_in_nucleus)
        yield "outside of it, among the draws", percent(ranks.in_sample / ranks.count)
        yield "neither", percent(ranks.elsewhere / ranks.count)


def _skipped(skipped: dict[str, int]) -> Table:
    reasons = list(skipped.items())
    rows = [(visible(reason).replace("\n", " "), f"{count:,}") for reason, count in reasons[:_MOST_REASONS]]
    if more := reasons[_MOST_REASONS:]:
        rows.append(("other reasons", f"{sum(count for _, count in more):,}"))
    return Table("Conversations left out", ("reason", "conversations"), tuple(rows))
