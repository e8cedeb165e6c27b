"""What the teacher gave the tokens that stand in the text: surprise, ranks, and the tokens it expected least.

Legend: C conversations, P entries of a table, S samples an entry. Surprise is -log of the probability, in nats.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from teacher_logits.codec import Entries, FlatColumns, flat_list, flat_values
from teacher_logits.codec.indices import ends_of
from teacher_logits.exploring.statistics.spread import RunningSpread, Spread
from teacher_logits.records import Float64, Int32, Int64

_RANKS = 256


@dataclass(frozen=True)
class SurprisingToken:
    """A token of a text that the teacher did not expect."""

    index: int
    """Its conversation's number in the source dataset."""
    entry: int
    """0 ... n-1: which of the conversation's stored tokens it is."""
    position: int | None
    """Where it stands in `input_ids`; None where the dataset was written without its tokens, as is the next."""
    id: int | None
    log_probability: float


@dataclass(frozen=True, eq=False)
class SurpriseStats:
    """Surprise at the tokens of a dataset's texts."""

    nats: Spread
    """Of the tokens that have a probability."""
    impossible: int
    """Tokens without a probability: their id is past the vocabulary in use, or their logit far below the largest."""
    unknown: int
    """Tokens whose probability is stored as NaN."""
    most_surprising: tuple[SurprisingToken, ...]
    """Those of the smallest probability, the smallest first; of the tokens that have one."""

    @property
    def perplexity(self) -> float:
        """exp of the mean surprise; NaN without tokens."""
        with np.errstate(over="ignore"):
            return float(np.exp(self.nats.mean))


@dataclass(frozen=True, eq=False)
class RankStats:
    """Which of the teacher's choices the tokens of the texts are."""

    ranks: Int64
    """[256] tokens by their rank in the nucleus; 1 is the first choice, and nothing has rank 0."""
    outside: Int64
    """[256] tokens outside of the nucleus by its size. Of their rank no more is known than that it is larger."""
    in_sample: int
    """Those of them that are among the draws."""

    @property
    def elsewhere(self) -> int:
        """The others of them."""
        return int(self.outside.sum()) - self.in_sample

    @property
    def count(self) -> int:
        """Tokens."""
        return int(self.ranks.sum() + self.outside.sum())

    def share(self, rank: int) -> float:
        """Share of the tokens that are surely one of the teacher's first `rank` choices."""
        return float(self.ranks[: rank + 1].sum() / self.count) if self.count else float("nan")

    def share_at_most(self, rank: int) -> float:
        """The same, and those that may be one: outside of a nucleus of fewer tokens. NaN without tokens."""
        return self.share(rank) + float(self.outside[:rank].sum() / self.count) if self.count else float("nan")

    @property
    def share_in_nucleus(self) -> float:
        """Share of the tokens that are in their nucleus."""
        return self.share(_RANKS)


class SurpriseCounter:
    """Collects surprise, and the `count` most surprising tokens."""

    def __init__(self, count: int) -> None:
        self._spread = RunningSpread()
        self._count, self._impossible, self._unknown, self._tables = count, 0, 0, 0
        self._least: list[SurprisingToken] = []

    def add(self, table: pa.Table, columns: FlatColumns, positions: Int32 | None, tokens: Int64 | None) -> None:
        """Count the column token_logprob of a table, where it has one. A NaN says nothing of surprise."""
        if "token_logprob" not in table.column_names:
            return
        self._tables += 1
        logs = flat_values(table, "token_logprob", columns.ends).astype(np.float64)
        self._impossible += int(np.isneginf(logs).sum())
        self._unknown += int(np.isnan(logs).sum())
        finite = np.flatnonzero(np.isfinite(logs))
        self._spread.add(-logs[finite])
        candidates = finite[_smallest(logs[finite], self._count)]
        rows = np.searchsorted(columns.ends, candidates, "right") - 1
        found = [
            SurprisingToken(
                index=int(columns.index[row]),
                entry=int(place - columns.ends[row]),
                position=None if positions is None else int(positions[place]),
                id=None if tokens is None else int(tokens[place]),
                log_probability=float(logs[place]),
            )
            for place, row in zip(candidates.tolist(), rows.tolist(), strict=True)
        ]
        ranked = sorted(self._least + found, key=lambda token: (token.log_probability, token.index, token.entry))
        self._least = ranked[: self._count]

    def result(self) -> SurpriseStats | None:
        """None where the column is not stored."""
        if not self._tables:
            return None
        return SurpriseStats(self._spread.result(), self._impossible, self._unknown, tuple(self._least))


class RankCounter:
    """Collects ranks."""

    def __init__(self) -> None:
        self._ranks = np.zeros(_RANKS, np.int64)
        self._outside = np.zeros(_RANKS, np.int64)
        self._in_sample = 0

    def add(self, entries: Entries, tokens: Int64) -> None:
        """Count the tokens [P] of entries."""
        same = np.flatnonzero(entries.top_ids == np.repeat(tokens, entries.counts))
        starts = ends_of(entries.counts)
        owners = np.searchsorted(starts, same, "right") - 1
        owners, first = np.unique(owners, return_index=True)
        self._ranks += np.bincount(same[first] - starts[owners] + 1, minlength=_RANKS)
        outside = np.ones(len(tokens), np.bool_)
        outside[owners] = False
        drawn = (entries.sampled_ids[outside] == tokens[outside, None]).any(1)
        self._in_sample += int(drawn.sum())
        self._outside += np.bincount(entries.counts[outside], minlength=_RANKS)

    def result(self) -> RankStats | None:
        """None where the tokens are not stored."""
        found = RankStats(self._ranks, self._outside, self._in_sample)
        return found if found.count else None


def tokens_of(table: pa.Table, columns: FlatColumns) -> tuple[Int32 | None, Int64 | None]:
    """[P] the positions of a table's entries and the tokens there; None where they are not stored.

    Raises ValueError where a position is outside of its conversation.
    """
    if "positions" not in table.column_names:
        return None, None
    positions = flat_values(table, "positions", columns.ends)
    if "input_ids" not in table.column_names:
        return positions, None
    ids, ends = flat_list(table, "input_ids")
    rows = np.diff(columns.ends)
    if (positions < 0).any() or (positions >= np.repeat(np.diff(ends), rows)).any():
        raise ValueError("positions are outside of input_ids")
    return positions, ids[np.repeat(ends[:-1], rows) + positions].astype(np.int64)


def _smallest(values: Float64, count: int) -> NDArray[np.intp]:
    """Places of the `count` smallest, in any order; of equal ones the first."""
    if not count or not len(values):
        return np.zeros(0, np.intp)
    if len(values) <= count:
        return np.arange(len(values))
    limit = np.partition(values, count - 1)[count - 1]
    below = np.flatnonzero(values < limit)
    return np.concatenate([below, np.flatnonzero(values == limit)[: count - len(below)]])
