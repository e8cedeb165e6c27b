"""Any sequence of rows, commits, lost answers, stops, crashes and changes of the machine loses and doubles nothing."""

import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from teacher_logits.errors import UploadError
from teacher_logits.extraction.resume import take_stock
from teacher_logits.hub import Checkpoint, Snapshot
from teacher_logits.hub.committer import Committer
from teacher_logits.hub.repository import Addition
from teacher_logits.journal import KnownShards, RowBuffer, RunCache, ShardState, SkippedLog, Spool
from teacher_logits.records import Int64
from teacher_logits.shards import read_indices, shard_name, shard_schema
from tests.hub.made import FINGERPRINT, METADATA, ROWS, require_whole, rows_of

EVERY = set(range(ROWS.num_rows))


class MemoryRepository:
    """An output in memory, whose next commits fail as told."""

    seconds_between_commits = 0.0
    whole_commits = True
    address = loading_name = "the output"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.failures: list[str] = []
        """"refused": nothing happens; "lost": the commit lands and the answer doesn't come."""

    def create(self) -> None: ...

    def close(self) -> None: ...

    def snapshot(self) -> Snapshot:
        return Snapshot(dict.fromkeys(self.files), self.files.get("checkpoint.json"), None)

    def read_indices(self, shard: str, rows: int) -> Int64:
        return read_indices(pa.BufferReader(self.files[shard]))

    def read_bytes(self, path: str) -> bytes:
        return self.files[path]

    def missing(self, shards: Iterable[str]) -> list[str]:
        return []

    def upload(self, path: str, local: Path) -> None:
        assert local.is_file()

    def commit(self, additions: Mapping[str, Addition], deletions: Sequence[str], message: str) -> None:
        failure = self.failures.pop(0) if self.failures else None
        if failure != "refused":
            self.files |= {
                path: each if isinstance(each, bytes) else each.read_bytes() for path, each in additions.items()
            }
        if failure is not None:
            raise ConnectionResetError(failure)


class Machine:
    """A process on a machine with a cache folder, working on one output: what a run does, step by step."""

    def __init__(self, folder: Path, repository: MemoryRepository, rows_per_shard: int) -> None:
        self.cache = RunCache(folder)
        for each in (folder, self.cache.spool_folder, self.cache.pending_folder):
            each.mkdir(parents=True, exist_ok=True)
        found = repository.snapshot()
        checkpoint = Checkpoint(FINGERPRINT, {}, METADATA)
        if found.checkpoint is not None:
            checkpoint.shards = Checkpoint.parse(found.checkpoint, "the output").shards
        self.spool = Spool(self.cache, FINGERPRINT)
        stock = take_stock(KnownShards(self.cache.known_file), self.spool, repository, found, checkpoint, "train")
        checkpoint.shards = stock.shards
        self.number = stock.next_number
        self.buffer = RowBuffer(self.cache, self._write, rows_per_shard, None)
        self.committed = set(rows_of(repository.files)["index"].to_pylist())
        self.spooled = {index for shard in self.spool.shards for index in read_indices(shard.path).tolist()}
        self.pending = set(self.buffer.load(stock.done, shard_schema(), FINGERPRINT).tolist())
        assert set(stock.done.tolist()) == self.committed | self.spooled
        self.todo = sorted(EVERY - set(stock.done.tolist()) - self.pending)
        self.committer = Committer(
            repository, self.spool, checkpoint, SkippedLog(self.cache.skipped_file), lambda _: {"README.md": b"card"}, 0
        )

    def _write(self, table: pa.Table) -> None:
        name = shard_name("train", FINGERPRINT, self.number)
        self.spool.write(table, name, self.committer.checkpoint.shard_metadata)
        self.number += 1

    def compute(self, count: int) -> None:
        rows, self.todo = self.todo[:count], self.todo[count:]
        self.buffer.add(ROWS.take(pa.array(rows, pa.int64())))

    def upload(self) -> None:
        for shard in self.spool.shards:
            if shard.state is ShardState.WRITTEN:
                self.committer.upload(shard)

    def commit(self, count: int, patient: bool, complete: bool = False) -> None:
        """patient: failures are borne instead of ending the process."""
        self.committer._retry_seconds = 3600 if patient else 0
        self.committer.hurry = Unhurried()
        self.committer.commit(self.spool.shards[:count], complete)

    @property
    def durable(self) -> set[int]:
        """Source numbers of the rows on this machine's disk."""
        paths = [*self.cache.spool_folder.glob("*.parquet"), *self.cache.pending_folder.glob("*.parquet")]
        return {index for path in paths for index in read_indices(path).tolist()}


class Unhurried(threading.Event):
    """Waits for nothing."""

    def wait(self, timeout: float | None = None) -> bool:
        return False


class Journal(RuleBasedStateMachine):
    """One run, over two machines of which one works at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="journal-"))
        self.repository = MemoryRepository()
        self.where = 0
        self.rows_per_shard = 4

    def teardown(self) -> None:
        """Whatever happened: the run can be finished, on the machine where it is."""
        if hasattr(self, "machine"):
            self.repository.failures.clear()
            self.resume()
            self.machine.compute(ROWS.num_rows)
            self.machine.buffer.flush()
            while self.machine.spool.shards:
                self.machine.commit(3, patient=False, complete=len(self.machine.spool.shards) <= 3)
            found = rows_of(self.repository.files)
            assert found.sort_by("index").equals(ROWS.combine_chunks())
            require_whole(self.repository.files, found)
            assert not self.machine.durable
        shutil.rmtree(self.folder)

    @initialize()
    def begin(self) -> None:
        self.resume()

    def resume(self) -> None:
        """A new process; whatever the last one had in memory is gone."""
        cache = self.folder / f"cache-{self.where}"
        before = set(rows_of(self.repository.files)["index"].to_pylist())
        durable = before | (self.machine.durable if self._at_home() else set())
        self.machine = Machine(cache, self.repository, self.rows_per_shard)
        now = self.machine
        parts = (now.committed, now.spooled, now.pending, set(now.todo))
        assert sum(map(len, parts)) == len(EVERY) and set().union(*parts) == EVERY, "pairwise disjoint, and all"
        assert durable <= now.committed | now.spooled | now.pending, "what was on a disk is not computed again"

    def _at_home(self) -> bool:
        return hasattr(self, "machine") and self.machine.cache.folder.name == f"cache-{self.where}"

    @rule(count=st.integers(1, 11))
    def compute(self, count: int) -> None:
        self.machine.compute(count)

    @rule()
    def flush(self) -> None:
        self.machine.buffer.flush()

    @rule()
    def upload(self) -> None:
        self.machine.upload()

    @precondition(lambda self: self.machine.spool.shards)
    @rule(count=st.integers(1, 4), failures=st.lists(st.sampled_from(["refused", "lost"]), max_size=3))
    def commit(self, count: int, failures: list[str]) -> None:
        """Answers are lost, commits refused, and it is tried again."""
        self.repository.failures = failures
        self.machine.commit(count, patient=True)
        self.repository.failures = []

    @precondition(lambda self: self.machine.spool.shards)
    @rule(count=st.integers(1, 4), failure=st.sampled_from(["refused", "lost"]))
    def commit_and_give_up(self, count: int, failure: str) -> None:
        """The answer is lost, and the process ends without having looked."""
        self.repository.failures = [failure]
        try:
            self.machine.commit(count, patient=False)
        except UploadError:
            self.resume()

    @rule()
    def stop(self) -> None:
        """Ctrl+C: what fills no shard is saved. Then --resume."""
        self.machine.buffer.save(self.machine.committer.checkpoint.shard_metadata)
        self.resume()

    @rule(rows_per_shard=st.sampled_from([1, 3, 8]))
    def crash(self, rows_per_shard: int) -> None:
        self.rows_per_shard = rows_per_shard  # --upload-every may change
        self.resume()

    @rule(keep_pending=st.booleans())
    def another_machine(self, keep_pending: bool) -> None:
        """The machine is taken away, and its disk comes back another time, or never."""
        if keep_pending:
            self.machine.buffer.save(self.machine.committer.checkpoint.shard_metadata)
        self.where = 1 - self.where
        self.resume()

    @invariant()
    def output_is_sound(self) -> None:
        """At every instant the output alone: each row once, and checkpoint.json agrees."""
        found = rows_of(self.repository.files)
        indices = found["index"].to_numpy()
        assert len(np.unique(indices)) == len(indices)
        if "checkpoint.json" in self.repository.files:
            require_whole(self.repository.files, ROWS.take(pa.array(indices, pa.int64())))


Journal.TestCase.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnySequence = Journal.TestCase
