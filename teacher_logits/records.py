"""The nouns that cross rooms: plain frozen records of numpy arrays, with their shapes.

Legend: T tokens of a conversation, A its assistant tokens, B conversations of a batch, L longest of them,
P assistant tokens of all (entries), C conversations, K nucleus cap, S samples an entry.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Conversation:
    """One row of the source dataset, brought into the shape chat templates take."""

    index: int
    """Its number in the source dataset, kept in every column `index`."""
    messages: list[dict[str, Any]]
    """`{"role", "content"}` and whatever else a template may read."""
    tools: list[dict[str, Any]] | None = None
    """JSON schemas of the tools the conversation may call."""


@dataclass(frozen=True)
class Example:
    """A conversation as the teacher sees it."""

    index: int
    input_ids: Int32
    """[T], the whole rendered conversation."""
    positions: Int32
    """[A], ascending, each at least 1: where in `input_ids` the assistant tokens stand."""


@dataclass(frozen=True)
class JoinedExamples:
    """Examples one after another, in flat arrays."""

    index: Int64
    """[C]"""
    token_counts: Int64
    """[C]"""
    input_ids: Int32
    """[sum of token_counts]"""
    entry_counts: Int64
    """[C] assistant tokens of each."""
    positions: Int32
    """[P]"""

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "JoinedExamples":
        """Join examples that stand apart."""
        nothing = np.zeros(0, np.int32)
        return cls(
            index=np.array([example.index for example in examples], np.int64),
            token_counts=np.array([len(example.input_ids) for example in examples], np.int64),
            input_ids=np.concatenate([nothing, *(example.input_ids for example in examples)]),
            entry_counts=np.array([len(example.positions) for example in examples], np.int64),
            positions=np.concatenate([nothing, *(example.positions for example in examples)]),
        )

    def chosen(self, kept: NDArray[np.bool_]) -> "JoinedExamples":
        """Those where `kept` [C] is true."""
        return JoinedExamples(
            index=self.index[kept],
            token_counts=self.token_counts[kept],
            input_ids=self.input_ids[np.repeat(kept, self.token_counts)],
            entry_counts=self.entry_counts[kept],
            positions=self.positions[np.repeat(kept, self.entry_counts)],
        )


@dataclass(frozen=True)
class Batch:
    """Examples right-padded to one length."""

    index: Int64
    """[B] their numbers in the source dataset."""
    input_ids: Int64
    """[B, L], padded with `pad_id`."""
    attention_mask: Int64
    """[B, L], 1 on tokens, 0 on padding."""
    predicts: NDArray[np.bool_]
    """[B, L], true at the positions whose logits predict an assistant token, so one before each of them. Read row
    by row, its true entries are in the order of the examples' `positions`."""

    def joined(self) -> JoinedExamples:
        """Its examples without the padding."""
        own = self.attention_mask.astype(np.bool_)
        return JoinedExamples(
            index=self.index,
            token_counts=own.sum(1),
            input_ids=self.input_ids[own].astype(np.int32),
            entry_counts=self.predicts.sum(1),
            positions=(self.predicts.nonzero()[1] + 1).astype(np.int32),
        )


@dataclass(frozen=True)
class SparseDistribution:
    """What is kept of P next-token distributions. docs/format.md defines each field."""

    top_ids: Int32
    """[P, K] nucleus ids by falling logit; past `top_counts` undefined."""
    top_logits: Float32
    """[P, K] their logits; past `top_counts` undefined."""
    top_counts: Int32
    """[P] nucleus sizes, each 1 ... K."""
    sampled_ids: Int32
    """[P, S] in the order of their draw; where the tail holds fewer than S tokens the last draw repeats."""
    sampled_logits: Float32
    """[P, S]"""
    logsumexp: Float64
    """[P] natural log of the sum of exp(logit) over the vocabulary."""
    logsumexp_t2: Float32
    """[P] the same of logit / 2."""
    logsumexp_t4: Float32
    """[P] the same of logit / 4."""
    token_logprob: Float32
    """[P] log-probability of the token that stands in the conversation."""
    invalid: NDArray[np.bool_]
    """[P] true where the logits held NaN, +inf or nothing finite; the other fields are then undefined."""

    def __len__(self) -> int:
        return len(self.top_counts)
