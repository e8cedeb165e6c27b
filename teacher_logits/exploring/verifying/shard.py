"""One shard: its bytes, its schema, its metadata, its counts, and all its rows, a row group at a time."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from teacher_logits.errors import FormatError
from teacher_logits.exploring.verifying.problems import MOST_OF_A_KIND, Problems, one_line, shown
from teacher_logits.exploring.verifying.run import Listed, StoredRun, fingerprint_problem
from teacher_logits.exploring.verifying.structure import Bounds, row_faults
from teacher_logits.exploring.verifying.values import entry_faults
from teacher_logits.files import sha256_file
from teacher_logits.records import Int64
from teacher_logits.shards import iter_row_groups, read_metadata, read_schema, shard_schema

_ENTRIES_AT_ONCE = 8192
"""Entries whose numbers are looked at together: few enough for the processor's caches."""
UNREADABLE = "shards that can't be read"
OTHER_RUN, OTHER_TEACHER = "shards of another run", "shards of another teacher"
_TEACHERS = ("vocab_size", "vocab_used", "tokenizer_length", "logits_dtype")
"""What the metadata say of the teacher's logits, besides what the fingerprint is made of."""


@dataclass(frozen=True)
class Counted:
    """What stands in a shard."""

    index: Int64
    """Source numbers of the rows that could be read."""
    tokens: int
    whole: bool
    """Whether all rows could be read."""
    run: str
    """What its metadata say of its run and teacher, as JSON: equal for all shards of a run."""


NOTHING = Counted(np.zeros(0, np.int64), 0, whole=False, run="")


class ShardCheck:
    """The checks of one shard, which add what they find to `problems`.

    name: its path in the dataset.   file: where its bytes are now.   listed: what checkpoint.json says of it.
    """

    def __init__(self, name: str, file: Path, listed: Listed | None, run: StoredRun, problems: Problems) -> None:
        self._name, self._file, self._listed = one_line(name), file, listed
        self._run, self._problems = run, problems

    @cached_property
    def bytes_agree(self) -> bool:
        """Whether the file has the hash that is listed, as far as one is."""
        return self._listed is None or self._sha256 == self._listed.sha256

    def check(self) -> Counted:
        """Look at everything."""
        if self._listed is not None and not self.bytes_agree:
            found, wanted = self._sha256[:16], one_line(self._listed.sha256[:16])
            self._add("shards with another hash", f"SHA-256 is {found}..., and checkpoint.json says {wanted}...")
        try:
            with self._file.open("rb") as file:
                schema = read_schema(file)
                metadata = self._metadata(file)
                missing = self._check_schema(schema, metadata)
                if {"index", "num_tokens"} & set(missing):
                    return NOTHING
                bounds = self._bounds(metadata) if not missing else None
                return self._check_rows(file, metadata, bounds)
        except FormatError as error:
            self._add(UNREADABLE, str(error))
        except OSError as error:
            self._add(UNREADABLE, f"can't be read ({error.strerror or error})")
        return NOTHING

    @cached_property
    def _sha256(self) -> str:
        return sha256_file(self._file)

    def _add(self, kind: str, text: str) -> None:
        self._problems.add(kind, f"{self._name}: {text}")

    def _metadata(self, file: Any) -> dict[str, Any]:
        """What the shard says of its run, compared with checkpoint.json; {} where it can't be used."""
        try:
            metadata = read_metadata(file)
        except FormatError as error:
            self._add("shards without metadata that can be used", str(error))
            return {}
        stored, wanted = metadata.get("fingerprint"), self._run.fingerprint
        if wanted is not None and stored != wanted:
            text = f"the fingerprint is {shown(stored)}, and that of checkpoint.json {one_line(wanted)}"
            self._add(OTHER_RUN, text)
        elif reason := fingerprint_problem(str(stored), metadata):
            self._add("shards whose fingerprint is wrong", reason)
        for field in _TEACHERS:
            told, own = (self._run.metadata or {}).get(field), metadata.get(field)
            if self._run.metadata is not None and told != own and isinstance(own, int | str):
                text = f"{field} is {shown(own)}, and checkpoint.json says {shown(told)}"
                self._add(OTHER_TEACHER, text)
        return metadata

    def _told(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """The shard's metadata; what they lack from checkpoint.json."""
        return {**(self._run.metadata or {}), **metadata}

    def _check_schema(self, schema: pa.Schema, metadata: dict[str, Any]) -> list[str]:
        """Compare the columns with the format's, and return those whose values can't be looked at."""
        kept = self._told(metadata).get("store_tokens")
        wanted = shard_schema(kept if isinstance(kept, bool) else "input_ids" in schema.names)
        if schema.equals(wanted):
            return []
        lacking = [name for name in wanted.names if name not in schema.names]
        foreign = [name for name in schema.names if name not in wanted.names]
        there = [name for name in wanted.names if name not in lacking]
        # A name that stands twice is no column that can be asked for.
        types = {name: schema.field(name).type for name in there if schema.names.count(name) == 1}
        other = [name for name in there if types.get(name) != wanted.field(name).type]
        if lacking:
            self._add("shards of another schema", f"lacks the columns {', '.join(lacking)}")
        if foreign:
            self._add("shards of another schema", f"has columns beyond the format: {', '.join(map(one_line, foreign))}")
        for name in other:
            found = types.get(name, "there twice")
            self._add("shards of another schema", f"column {name} is {found}, not {wanted.field(name).type}")
        if not (lacking or foreign or other):
            self._add("shards of another schema", f"its columns are in another order: {', '.join(schema.names)}")
        return lacking + other

    def _bounds(self, metadata: dict[str, Any]) -> Bounds | None:
        """None, and a problem, where the metadata don't tell."""
        try:
            return Bounds.of(self._told(metadata))
        except FormatError as error:
            self._add("shards whose values could not be checked", f"in its metadata {error}; no value was checked")
            return None

    def _check_rows(self, file: Any, metadata: dict[str, Any], bounds: Bounds | None) -> Counted:
        """Go through the row groups; with `bounds`, look at every number."""
        numbers: list[Int64] = [NOTHING.index]
        rows, tokens, whole = 0, 0, True
        told = json.dumps([metadata.get(field) for field in ("fingerprint", *_TEACHERS)])
        try:
            for table in iter_row_groups(file):
                rows += table.num_rows
                whole &= not table.column("index").null_count
                numbers.append(table.column("index").drop_null().to_numpy().astype(np.int64))
                tokens += int(table.column("num_tokens").fill_null(0).to_numpy().astype(np.int64).sum())
                if bounds is not None:
                    self._check_table(table, bounds)
        except FormatError as error:
            self._add(UNREADABLE, str(error))
            return Counted(np.concatenate(numbers), tokens, False, told)
        counted = Counted(np.concatenate(numbers), tokens, whole, told)
        listed = self._listed
        if listed is not None and (listed.rows, listed.tokens) != (rows, tokens):
            told = f"{listed.rows} and {listed.tokens}"
            self._add("shards with other counts", f"{rows} rows and {tokens} tokens, and checkpoint.json says {told}")
        if metadata:
            self._check_range(counted.index, metadata)
        return counted

    def _check_range(self, index: Int64, metadata: dict[str, Any]) -> None:
        found = (int(index.min()), int(index.max())) if len(index) else (None, None)
        told = (metadata.get("min_index"), metadata.get("max_index"))
        if told != found:
            text = f"its indices are from {found[0]} to {found[1]}, and its metadata say {shown(told)}"
            self._add("shards whose metadata tell other indices", text)

    def _check_table(self, table: pa.Table, bounds: Bounds) -> None:
        """Name the rows that are wrong, and look at the numbers of the others."""
        table = table.select([name for name in shard_schema().names if name in table.column_names])
        index = table.column("index").fill_null(-1).to_numpy()
        bad = np.zeros(table.num_rows, np.bool_)
        for what, rows in row_faults(table, bounds):
            self._tell(what, index[rows])
            bad |= rows
        for part in _parts(table.filter(pa.array(~bad))):
            index, entries = part.column("index").to_numpy(), part.column("num_tokens").to_numpy()
            rows_of_entries = np.repeat(np.arange(len(index)), entries)
            for what, faulty in entry_faults(part, bounds):
                if faulty.any():
                    rows, counts = np.unique(rows_of_entries[faulty], return_counts=True)
                    self._tell(what, index[rows], counts, entries[rows])

    def _tell(self, what: str, index: Any, counts: Any = None, entries: Any = None) -> None:
        """One problem for each conversation of `index`, at `counts` of its `entries` tokens."""
        first = []
        for place, number in enumerate(index[:MOST_OF_A_KIND].tolist()):
            where = "" if counts is None else f" (at {counts[place]} of {entries[place]} tokens)"
            first.append(f"{self._name}, conversation {number}: {what}{where}")
        self._problems.add_some(f"conversations where {what}", first, len(index))


def _parts(table: pa.Table) -> Iterator[pa.Table]:
    """The rows in parts that have at most so many entries as are looked at together, or are one row."""
    ends = np.concatenate([[0], np.cumsum(table.column("num_tokens").to_numpy().astype(np.int64))])
    first = 0
    while first < table.num_rows:
        last = max(first + 1, int(np.searchsorted(ends, ends[first] + _ENTRIES_AT_ONCE, "right")) - 1)
        yield table.slice(first, last - first)
        first = last
