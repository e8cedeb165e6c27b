"""Statistics as text."""

from typing import Any

import numpy as np

from teacher_logits.exploring.statistics.actual import RankStats, SurpriseStats
from teacher_logits.exploring.statistics.nucleus import SIZES, NucleusSizeStats
from teacher_logits.exploring.statistics.storage import BytesPerToken
from teacher_logits.exploring.statistics.whole import DatasetStats
from teacher_logits.exploring.text import percent, quoted, size_text, table, visible
from teacher_logits.exploring.tokens import TokenTexts

NOT_STORED = "not stored"
_LN2 = float(np.log(2))
_SCARCE = 0.5
"""Mean mass of the nuclei below which a trainer sees more of an even spread than of the teacher's choices."""
_CUT = 0.25
"""Share of nuclei at the cap from which on it is the cap that keeps them small, and below which it is top-p."""
_LARGEST_CAP = SIZES - 1


def dataset_stats_text(stats: DatasetStats, tokenizer: Any = None) -> str:
    """The figures as aligned lines, then the notes, then the most surprising tokens.

    tokenizer: for their texts; without one they are called by their ids.
    """
    lengths = stats.lengths
    rows = [["conversations", f"{stats.conversations:,}"], ["entries", f"{stats.entries:,}"]]
    if stats.entries:
        rows[1][1] += f", {lengths.mean:,.1f} a conversation"
        rows[1][1] += f" (median {lengths.median:,.0f}, most {lengths.largest:,.0f})"
        rows += [*_nucleus_rows(stats.nucleus), *_mass_rows(stats), *_entropy_rows(stats)]
        rows += [*_surprise_rows(stats.surprise), ["ranks", _ranks(stats.ranks)]]
    parts = [table(rows)]
    if warnings := stats_warnings(stats):
        parts.append("\n".join(f"note: {warning}" for warning in warnings))
    if stats.surprise is not None and stats.surprise.most_surprising:
        parts.append("most surprising tokens\n" + _surprising(stats.surprise, tokenizer))
    return "\n\n".join(parts)


def bytes_per_token_text(stats: BytesPerToken) -> str:
    """The bytes of each column as a table, then what more tokens would take."""
    if not stats.tokens:
        return "no tokens stored"
    rows = [["column", "bytes a token", "share", "before compression"]]
    for name, column in stats.columns.items():
        share = percent(column.stored / stats.stored)
        rows.append([name, f"{column.stored / stats.tokens:.2f}", share, f"{column.uncompressed / stats.tokens:.2f}"])
    if stats.from_files:
        rows.append(["footers", f"{stats.other / stats.tokens:.2f}", percent(stats.other / stats.stored), ""])
    uncompressed = sum(column.uncompressed for column in stats.columns.values())
    rows.append(["together", f"{stats.per_token:.2f}", percent(1), f"{uncompressed / stats.tokens:.2f}"])
    more = ", ".join(f"{count // 10**6} M tokens {size_text(stats.expected(count))}" for count in (10**6, 10**8))
    source = "" if stats.from_files else "\nAn opened dataset: this is what its rows would take as a shard."
    return f"{table(rows, right='123')}\n{stats.tokens:,} tokens take {size_text(stats.stored)}; {more}{source}"


def stats_warnings(stats: DatasetStats) -> list[str]:
    """What a trainer should know, a sentence each."""
    found = []
    for temperature, mass in stats.mass.items():
        if mass.count and mass.mean < _SCARCE:
            found.append(
                f"At T = {temperature} the nuclei hold {percent(mass.mean)} of the teacher's distribution on average. "
                "A trainer at this temperature learns mostly from how the rest is spread: train at a lower one"
                f"{_how_to_hold_more(stats.nucleus)}. This counts the nuclei alone; trainers use the draws, "
                "too."
            )
    if stats.entries and len(stats.mass) < 3:
        found.append(
            "Log-sum-exps at T = 2 and 4 are not stored: trainers at these temperatures have to guess the rest."
        )
    if stats.surprise is not None and stats.surprise.impossible:
        found.append(
            f"{stats.surprise.impossible:,} tokens of the texts have no probability: their ids are past the vocabulary "
            "in use, or their logits far below the largest. They count in no figure of surprise."
        )
    if stats.surprise is not None and stats.surprise.unknown:
        found.append(
            f"Perplexity and surprise are without {stats.surprise.unknown:,} tokens of unknown probability (NaN), "
            "which no run stores: the dataset is damaged, and verify tells where."
        )
    return found


def _how_to_hold_more(nucleus: NucleusSizeStats) -> str:
    """What to extract with for larger nuclei; '' where there are no larger ones."""
    share = nucleus.share_at_cap
    if share is None:
        option = "--top-p or --top-p-max"
    elif share < _CUT:
        option = "--top-p (1 fills every nucleus up to the cap)"
    elif nucleus.cap == _LARGEST_CAP:
        return ""
    else:
        option = "--top-p-max"
    return f", or extract with a larger {option}, which takes more bytes a token"


def _nucleus_rows(nucleus: NucleusSizeStats) -> list[list[str]]:
    low, high = nucleus.percentile(5), nucleus.percentile(95)
    sizes = f"mean {nucleus.mean:.1f}, median {nucleus.median:g}, 5 to 95 %: {low:g} to {high:g}"
    sizes += f", largest {nucleus.largest}"
    return [["nucleus sizes", sizes], ["at the cap", at_cap_text(nucleus)]]


def at_cap_text(nucleus: NucleusSizeStats) -> str:
    """The share of nuclei at the cap, as far as the cap is known."""
    if nucleus.share_at_cap is None:
        return "unknown (the dataset doesn't tell its cap)"
    return f"{percent(nucleus.share_at_cap)} of the tokens (cap {nucleus.cap})"


def first_choices_text(ranks: RankStats, rank: int) -> str:
    """The share of tokens among the teacher's first `rank` choices: a range where nuclei are too small to tell."""
    least, most = percent(ranks.share(rank)), percent(ranks.share_at_most(rank))
    return least if least == most else f"{least} to {most}"


def _mass_rows(stats: DatasetStats) -> list[list[str]]:
    rows = []
    for temperature in (1, 2, 4):
        told = NOT_STORED
        if (mass := stats.mass.get(temperature)) is not None:
            told = (
                f"mean {percent(mass.mean)}, median {percent(mass.median)}, 1st percentile "
                f"{percent(mass.percentile(1))}, smallest {percent(mass.smallest)}"
            )
        rows.append(["retained mass" if temperature == 1 else "", f"T = {temperature}: {told}"])
    return rows


def _entropy_rows(stats: DatasetStats) -> list[list[str]]:
    entropy = stats.entropy
    low, high = entropy.lowest, entropy.highest
    nats = f"in nats {low.mean:.3f} and {high.mean:.3f}"
    return [
        ["entropy", f"mean between {_bits(low.mean, high.mean)}, estimated {_bits(entropy.estimate)} ({nats})"],
        ["", f"median between {_bits(low.median, high.median)}, 95 % {_bits(low.percentile(95), high.percentile(95))}"],
        ["", f"the nuclei's part, which is exact: mean {_bits(entropy.nucleus.mean)}"],
    ]


def _bits(*nats: float) -> str:
    return " and ".join(f"{each / _LN2:.3f}" for each in nats) + " bits"


def _surprise_rows(surprise: SurpriseStats | None) -> list[list[str]]:
    if surprise is None:
        return [["perplexity", NOT_STORED]]
    nats = surprise.nats
    told = f"median {_bits(nats.median)}, 95 % {_bits(nats.percentile(95))}, largest {_bits(nats.largest)}"
    return [["perplexity", f"{surprise.perplexity:,.2f} of the texts' own tokens"], ["surprise", told]]


def _ranks(ranks: RankStats | None) -> str:
    if ranks is None:
        return NOT_STORED
    return (
        f"{percent(ranks.share(1))} are the first choice, {first_choices_text(ranks, 5)} of the first five, "
        f"{percent(ranks.share_in_nucleus)} in the nucleus, {percent(ranks.in_sample / ranks.count)} in the sample"
    )


def _surprising(surprise: SurpriseStats, tokenizer: Any) -> str:
    texts = None if tokenizer is None else TokenTexts(tokenizer)
    rows = [["conversation", "position", "token", "probability", "bits"]]
    for token in surprise.most_surprising:
        text = "" if token.id is None else f"id {token.id}" if texts is None else quoted(texts.one(token.id))
        rows.append(
            [
                f"{token.index}",
                f"stored token {token.entry}" if token.position is None else f"{token.position}",
                visible(text),
                percent(float(np.exp(token.log_probability))),
                f"{-token.log_probability / _LN2:.1f}",
            ]
        )
    first = (
        f"\nshow --index {surprise.most_surprising[0].index} shows the first of them"
        if surprise.most_surprising
        else ""
    )
    return table(rows, right="0134") + first
