"""All figures of a dataset in one pass over its rows: memory holds a row group and the counts.

Legend: P entries of a table, B bins of positions. Logs are natural, entropies and surprise in nats.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from teacher_logits.codec import CONTRACT_COLUMNS, FlatColumns, decode_entries, flat_columns, flat_values
from teacher_logits.exploring.entropy import vocabulary_of
from teacher_logits.exploring.statistics.actual import (
    RankCounter,
    RankStats,
    SurpriseCounter,
    SurpriseStats,
    tokens_of,
)
from teacher_logits.exploring.statistics.entries import Entropies, EntryBlock, entropies, require_possible
from teacher_logits.exploring.statistics.nucleus import CountedFrom, NucleusCounter, NucleusSizeStats, cap_of
from teacher_logits.exploring.statistics.spread import POSITION_BINS, RunningSpread, Spread, bins_of, places_in_turn
from teacher_logits.exploring.statistics.tables import Tables, tables_of
from teacher_logits.records import Float64, Int64

SURPRISING = 10
_TEMPERED = {2: "logsumexp_t2", 4: "logsumexp_t4"}
"""The temperatures other than 1 whose log-sum-exp is stored, and its column."""
_BLOCK = 4096
"""Entries worked on at a time: what lies between then stays in the processor's caches."""


@dataclass(frozen=True, eq=False)
class EntropyStats:
    """Entropy of the teacher's distributions, in nats. Of the tails mass and some draws are known: see `Entropies`."""

    nucleus: Spread
    """Of the nuclei's part, which is exact."""
    lowest: Spread
    """Of what each entropy is at least."""
    highest: Spread
    """Of what each entropy is at most."""
    estimate: float
    """Unbiased estimate of the mean; NaN without entries."""


@dataclass(frozen=True, eq=False)
class PositionEntropies:
    """Mean entropies by the place of the token, in bins: the first sixteen singly, then eight bins a doubling."""

    first: Int64
    """[B] the first place of each bin: 0 is the first token of a turn. Bins without entries are left out."""
    count: Int64
    """[B] entries."""
    lowest: Float64
    """[B] means of the lower bounds, in nats."""
    highest: Float64
    """[B] means of the upper bounds."""
    counted_from: CountedFrom
    """What places are counted from: 'conversation' where the dataset has no column `positions` to tell turns."""


@dataclass(frozen=True, eq=False)
class DatasetStats:
    """A dataset in figures. What needs a column that is not stored, is None or left out."""

    name: str
    nucleus: NucleusSizeStats
    """With `conversations` and, as `count`, the entries."""
    lengths: Spread
    """Entries of each conversation."""
    entropy: EntropyStats
    mass: dict[int, Spread]
    """By temperature, 1 and as far as stored 2 and 4: which share of the distribution the nucleus holds."""
    entropy_by_position: PositionEntropies
    surprise: SurpriseStats | None
    ranks: RankStats | None
    run: Mapping[str, Any] = field(repr=False)
    """The run behind the dataset, as `load_extraction_config` gives it; {} where nothing tells."""

    @property
    def conversations(self) -> int:
        """Rows."""
        return self.nucleus.conversations

    @property
    def entries(self) -> int:
        """Stored tokens."""
        return self.nucleus.count


def compute_dataset_stats(
    dataset: Any, *, split: str | None = None, revision: str | None = None, surprising: int = SURPRISING
) -> DatasetStats:
    """All figures of a dataset, in one pass.

    dataset, split, revision: see `tables_of`.   surprising: how many of the most surprising tokens to keep.
    Raises FormatError where the dataset is damaged.
    """
    tables = tables_of(dataset, split, revision)
    run = tables.run
    dtype = (run.get("metadata") or {}).get("logits_dtype") or "float32"
    counter = _Counter(vocabulary_of(run), dtype, surprising)
    columns = [*CONTRACT_COLUMNS, *_TEMPERED.values(), "token_logprob", "input_ids", "positions"]
    rows = sum(more for _, more in tables.each(columns, "statistics", counter.add))
    return counter.result(tables, rows)


class _Counter:
    """Collects everything, table by table."""

    def __init__(self, vocabulary: int, logits_dtype: str, surprising: int) -> None:
        self._vocabulary, self._dtype = vocabulary, logits_dtype
        self._nucleus = NucleusCounter()
        self._lengths = RunningSpread()
        self._mass = {temperature: RunningSpread() for temperature in (1, *_TEMPERED)}
        self._entropy = _EntropyCounter()
        self._surprise, self._ranks = SurpriseCounter(surprising), RankCounter()

    def add(self, table: pa.Table) -> None:
        """Count the rows of a table. Raises ValueError where columns don't belong together or hold what can't be."""
        columns = flat_columns(table)
        if not columns.counts.all():
            raise ValueError("an entry has an empty nucleus")
        positions, tokens = tokens_of(table, columns)
        self._nucleus.add(table)
        self._lengths.add(np.diff(columns.ends))
        self._surprise.add(table, columns, positions, tokens)
        places = places_in_turn(columns.ends, positions)
        tempered = {
            temperature: flat_values(table, name, columns.ends)
            for temperature, name in _TEMPERED.items()
            if name in table.column_names
        }
        require_possible(columns, tempered)
        first = 0
        for part in columns.parts(_BLOCK):
            span = slice(first, first + len(part.counts))
            first = span.stop
            if not len(part.counts):
                continue
            block = _block_of(part, self._dtype, {t: values[span] for t, values in tempered.items()})
            for temperature, spread in self._mass.items():
                if temperature == 1 or temperature in tempered:
                    spread.add(block.mass if temperature == 1 else block.mass_at(temperature))
            self._entropy.add(entropies(block, self._vocabulary), places[span])
            if tokens is not None:
                self._ranks.add(block.entries, tokens[span])
        if len(columns.counts):
            self._entropy.saw(positions is not None)

    def result(self, tables: Tables, conversations: int) -> DatasetStats:
        """What was counted."""
        mass = {temperature: spread.result() for temperature, spread in self._mass.items()}
        return DatasetStats(
            name=tables.name,
            nucleus=self._nucleus.result(conversations, cap_of(tables.run)),
            lengths=self._lengths.result(),
            entropy=self._entropy.result(),
            mass={temperature: spread for temperature, spread in mass.items() if spread.count or temperature == 1},
            entropy_by_position=self._entropy.by_position(),
            surprise=self._surprise.result(),
            ranks=self._ranks.result(),
            run=tables.run,
        )


def _block_of(part: FlatColumns, logits_dtype: str, tempered: dict[int, Any]) -> EntryBlock:
    top, sampled = part.top, part.sampled
    entries = decode_entries(part, logits_dtype)
    return EntryBlock(entries, top.smallest, top.largest, sampled.smallest, sampled.largest, tempered)


class _EntropyCounter:
    """Collects entropies, and their sums by position."""

    def __init__(self) -> None:
        self._spreads = {name: RunningSpread() for name in ("nucleus", "lowest", "highest")}
        self._estimates = 0.0
        self._sums = np.zeros((3, len(POSITION_BINS)))
        self._turns_known = True

    def add(self, found: Entropies, places: Int64) -> None:
        """Count the entropies of entries that stand at these places of their turns."""
        for name, spread in self._spreads.items():
            spread.add(getattr(found, name))
        self._estimates += float(found.estimate.sum())
        bins = bins_of(places)
        for row, weights in enumerate((None, found.lowest, found.highest)):
            self._sums[row] += np.bincount(bins, weights, minlength=len(POSITION_BINS))

    def saw(self, positions: bool) -> None:
        """Note whether places could be counted from the turns."""
        self._turns_known &= positions

    def result(self) -> EntropyStats:
        """The figures of all entries."""
        spreads = {name: spread.result() for name, spread in self._spreads.items()}
        count = spreads["nucleus"].count
        return EntropyStats(**spreads, estimate=self._estimates / count if count else float("nan"))

    def by_position(self) -> PositionEntropies:
        """The means by position."""
        seen = self._sums[0] > 0
        count, lowest, highest = self._sums[:, seen]
        return PositionEntropies(
            first=POSITION_BINS[seen],
            count=count.astype(np.int64),
            lowest=lowest / count,
            highest=highest / count,
            counted_from="turn" if self._turns_known else "conversation",
        )
