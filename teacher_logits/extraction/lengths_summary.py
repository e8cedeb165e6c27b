"""How long the conversations of a dataset are, in a few figures."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from teacher_logits.batching import LengthTable, TokenBudgetBatchSampler
from teacher_logits.extraction.summary import SHOWN_REASONS
from teacher_logits.records import Int64

_PERCENTILES = (50, 75, 90, 95, 99)


@dataclass(frozen=True)
class LengthsSummary:
    """What `compute_lengths` found."""

    address: str
    """Where the dataset was written, for messages."""
    lengths: Int64
    """[n] tokens, longest first."""
    assistant_lengths: Int64
    """[n] those of the assistant, in the same order."""
    context: int | None
    """Longest sequence the model is made for; None where it doesn't say."""
    batch_tokens: int
    """Padded tokens a batch that the padding is told for."""
    padding_sorted: float
    """Share of a run's tokens that are padding."""
    padding_unsorted: float
    """The same for batches in the source's order."""
    skipped: Counter[str]
    """Conversations that were left out, by reason."""

    @property
    def too_long(self) -> int:
        """Conversations that are longer than the context."""
        return 0 if self.context is None else int(np.count_nonzero(self.lengths > self.context))

    def text(self) -> str:
        """Some lines for the end."""
        rows = [[cell.strip() for cell in row] for row in self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
        lines += self._sentences()
        lines += [f"left out {count:,}: {reason}" for reason, count in self.skipped.most_common(SHOWN_REASONS)]
        if len(self.skipped) > SHOWN_REASONS:
            lines.append(f"left out for {len(self.skipped) - SHOWN_REASONS:,} other reasons")
        lines.append(f"written to {self.address}")
        return "\n".join(lines)

    def markdown(self) -> str:
        """The same for a dataset card, without what was left out."""
        head, *rows = self._rows()
        table = [head, ["---"] * len(head), *rows]
        sentences = [f"{line[0].upper()}{line[1:]}." for line in self._sentences()]
        return "\n".join(["| " + " | ".join(row) + " |" for row in table] + ["", *sentences, ""])

    def _rows(self) -> list[list[str]]:
        head = ["tokens of a conversation", "mean", "median", *(f"{p} %" for p in _PERCENTILES[1:]), "longest", "total"]
        return [head, self._row("all", self.lengths), self._row("the assistant's", self.assistant_lengths)]

    @staticmethod
    def _row(title: str, lengths: Int64) -> list[str]:
        if not len(lengths):
            return [title, *(["-"] * (len(_PERCENTILES) + 2)), "0"]
        figures = [lengths.mean(), *np.percentile(lengths, _PERCENTILES), lengths.max(), lengths.sum()]
        return [title, *(f"{figure:,.0f}" for figure in figures)]

    def _sentences(self) -> Iterator[str]:
        count = len(self.lengths)
        if self.context is not None:
            share = _percent(self.too_long / max(1, count))
            yield (
                f"{count:,} conversations, {self.too_long:,} ({share}) of them longer than the model's context of "
                f"{self.context:,} tokens"
            )
        else:
            yield f"{count:,} conversations"
        yield (
            f"padding in batches of {self.batch_tokens:,} tokens: {_percent(self.padding_sorted)} sorted by length, "
            f"{_percent(self.padding_unsorted)} in the source's order"
        )


def summarize_lengths(address: str, table: LengthTable, context: int | None, batch_tokens: int) -> LengthsSummary:
    """The summary of a source's lengths.

    address: where the dataset goes, for messages.   context: of the model.   batch_tokens: padded tokens a batch.
    """
    usable = table.lengths > 0
    lengths, assistant_lengths = table.lengths[usable], table.assistant_lengths[usable]
    order = np.argsort(-lengths, kind="stable")
    return LengthsSummary(
        address=address,
        lengths=lengths[order],
        assistant_lengths=assistant_lengths[order],
        context=context,
        batch_tokens=batch_tokens,
        padding_sorted=padding_share(lengths, TokenBudgetBatchSampler(lengths, batch_tokens)),
        padding_unsorted=padding_share(lengths, batches_in_order(lengths, batch_tokens)),
        skipped=Counter(table.reasons.values()),
    )


def padding_share(lengths: Int64, batches: Iterable[Sequence[int]]) -> float:
    """Share of the tokens that are padding, where each of a batch's conversations is padded to the longest of them."""
    padded = sum(len(batch) * int(lengths[np.asarray(batch)].max()) for batch in batches)
    return 1 - int(lengths.sum()) / padded if padded else 0.0


def batches_in_order(lengths: Int64, batch_tokens: int) -> Iterator[range]:
    """Batches of neighbours, as many as fit the budget; a conversation longer than it goes alone."""
    first, longest = 0, 0
    for place, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if place > first and (place + 1 - first) * longest > batch_tokens:
            yield range(first, place)
            first, longest = place, length
    if first < len(lengths):
        yield range(first, len(lengths))


def _percent(share: float) -> str:
    """0.0123 as '1.2 %'; what is more than nothing never shows as nothing."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{share:.1%}".replace("%", " %")
