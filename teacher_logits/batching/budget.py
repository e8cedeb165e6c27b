"""Batches of conversations of like length."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from teacher_logits.records import Batch, Example, Int64, JoinedExamples


class TokenBudgetBatchSampler:
    """Batches of places in a list of lengths, longest first, within a token budget or by thresholds.

    With a budget, a batch's conversations times the longest of them, so its padded size, stays within
    `batch_tokens`; a conversation longer than that goes alone. With thresholds such as {1024: 4, 512: 8}, the
    smallest threshold that the longest conversation doesn't exceed gives the batch's size; longer ones go alone.
    `max_batch_size` bounds both.
    """

    def __init__(
        self,
        lengths: Sequence[int] | Int64,
        batch_tokens: int | None = None,
        batch_thresholds: Mapping[int, int] | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        """lengths: [n] tokens of each conversation. Exactly one of `batch_tokens` and `batch_thresholds` is given."""
        if (batch_tokens is None) == (batch_thresholds is None):
            raise ValueError("give batch_tokens or batch_thresholds, one of them")
        self._lengths = np.asarray(lengths, np.int64)
        # Stable, so that equal lengths stay in the source's order and a plan is the same every time.
        self._order = np.argsort(-self._lengths, kind="stable")
        self._batch_tokens = batch_tokens
        self._thresholds = sorted((int(limit), size) for limit, size in (batch_thresholds or {}).items())
        self._max_batch_size = max_batch_size

    def __iter__(self) -> Iterator[list[int]]:
        first = 0
        while first < len(self._order):
            size = self._size(int(self._lengths[self._order[first]]))
            yield self._order[first : first + size].tolist()
            first += size

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _size(self, longest: int) -> int:
        """How many conversations of at most `longest` tokens make a batch."""
        if self._batch_tokens is not None:
            size = self._batch_tokens // max(1, longest)
        else:
            size = next((size for limit, size in self._thresholds if longest <= limit), 1)
        return max(1, min(size, self._max_batch_size or size))


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Right-pad examples to the longest of them."""
    joined = JoinedExamples.of(examples)
    counts = joined.token_counts
    attention_mask = np.arange(counts.max()) < counts[:, None]
    input_ids = np.full(attention_mask.shape, pad_id, np.int64)
    input_ids[attention_mask] = joined.input_ids
    predicts = np.zeros(attention_mask.shape, np.bool_)
    predicts[np.repeat(np.arange(len(examples)), joined.entry_counts), joined.positions - 1] = True
    return Batch(joined.index, input_ids, attention_mask.astype(np.int64), predicts)
