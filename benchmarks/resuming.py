"""What `--resume` fetches of an output on the Hub to know which conversations it holds, and how long that takes.

    python -m benchmarks.resuming [--shards 1000] [--rows 500] [--large-tokens 640] [--repeats 3]

To be run in the project's root: the Hub is the tests' server on the loopback address, in this same process, so its time
counts, too, and there is no distance. Requests and bytes are what its log says.
"""

import dataclasses
import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tyro
from huggingface_hub import HfApi

from benchmarks.measuring import machine_line, print_table, spread
from teacher_logits.extraction.resume import take_stock
from teacher_logits.hub import Checkpoint, HubRepository
from teacher_logits.journal import KnownShards, RunCache, Spool
from teacher_logits.shards import read_table, shard_name, write_shard
from tests.codec.made import made_table
from tests.hub.made import FINGERPRINT, METADATA
from tests.hub_server import HubServer

HEADER = (
    "what is read",
    "shards",
    "conversations",
    "MB stored",
    "requests",
    "of them a shard",
    "KB fetched of shards",
    "% of what is stored",
    "seconds (fastest-slowest)",
)
MANY, LARGE = "tester/many", "tester/large"
_OTHER_REQUESTS = 9
"""At most so many have nothing to do with single shards: description, checkpoint.json, pages of the listing."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure how a run finds out what its output on the Hub holds."""

    shards: int = 1000
    """Committed shards of tiny rows."""
    rows: int = 500
    """Rows of each."""
    large_tokens: int = 640
    """Assistant tokens of each of the 500 rows of the one large shard: 640 give 21 MB."""
    repeats: int = 3
    """How often each is measured."""


def main() -> None:
    """Print the table."""
    options = tyro.cli(Options, prog="benchmarks.resuming")
    print(machine_line("pyarrow", "huggingface_hub"))
    print("a Hub on the loopback address, in the same process\n")
    with HubServer() as server, tempfile.TemporaryDirectory() as folder:
        _commit(server, MANY, made_table([1 + row % 3 for row in range(options.rows)]), options.shards)
        _commit(server, LARGE, made_table([options.large_tokens] * 500), 1)
        print_table(HEADER, _rows(server, Path(folder), options.repeats))


def _commit(server: HubServer, repo_id: str, rows: pa.Table, shards: int) -> None:
    """An output of so many shards, each with these rows under other numbers."""
    checkpoint = Checkpoint(FINGERPRINT, {}, METADATA)
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        for number in range(shards):
            index = pa.array(np.arange(rows.num_rows, dtype=np.int32) + number * rows.num_rows)
            write_shard(rows.set_column(0, rows.schema.field("index"), index), path, METADATA)
            files[shard_name("train", FINGERPRINT, number)] = path.read_bytes()
    server.add_files(repo_id, files)
    tokens = sum(rows.column("num_tokens").to_pylist())
    for name, blob in server.commits(repo_id)[0].files.items():
        if name in files:
            checkpoint.shards[name] = {"rows": rows.num_rows, "tokens": tokens, "sha256": blob.sha256}
    server.add_files(repo_id, {"checkpoint.json": checkpoint.content()})


def _rows(server: HubServer, folder: Path, repeats: int) -> Iterator[list[Any]]:
    for repo_id, what in ((MANY, "many small shards"), (LARGE, "a large shard")):
        first = [_resume(server, repo_id, folder / f"{what} {number}") for number in range(repeats)]
        again = [_resume(server, repo_id, folder / f"{what} {number}") for number in range(repeats)]
        yield _described(server, repo_id, f"{what}, first", first)
        yield _described(server, repo_id, f"{what}, again with the cache folder", again)


@dataclasses.dataclass(frozen=True)
class _Taken:
    seconds: float
    requests: int
    for_shards: int
    """Those of the requests that ask for a shard, or for where it is."""
    bytes: int


def _resume(server: HubServer, repo_id: str, folder: Path) -> _Taken:
    """Take stock as a resumed run does, and check that the right conversations are found."""
    server.clear_requests()
    began = time.perf_counter()
    cache = RunCache(folder)
    with cache.locked():
        repository = HubRepository(repo_id, api=HfApi(endpoint=server.endpoint, token=server.token))
        found = repository.snapshot()
        checkpoint = Checkpoint.parse(found.checkpoint or b"", repo_id)
        known, spool = KnownShards(cache.known_file), Spool(cache, checkpoint.fingerprint)
        done = take_stock(known, spool, repository, found, checkpoint, "train").done
    seconds = time.perf_counter() - began
    if not np.array_equal(done, np.arange(checkpoint.total_samples)):
        raise SystemExit(f"other conversations were found in {repo_id} than it holds")
    log = [request for request in server.requests if "/data/" in request.path or "/storage/" in request.path]
    if len(server.requests) - len(log) > _OTHER_REQUESTS:
        raise SystemExit("more was asked than the description, the listing and the checkpoint")
    return _Taken(seconds, len(server.requests), len(log), sum(each.sent for each in log if each.method == "GET"))


def _described(server: HubServer, repo_id: str, what: str, taken: list[_Taken]) -> list[Any]:
    shards = {path: content for path, content in server.files(repo_id).items() if path.startswith("data/")}
    stored = sum(map(len, shards.values()))
    conversations = sum(read_table(io.BytesIO(content), ["index"]).num_rows for content in shards.values())
    typical = sorted(taken, key=lambda each: each.seconds)[len(taken) // 2]
    return [
        what,
        f"{len(shards):,}",
        f"{conversations:,}",
        f"{stored / 1e6:,.1f}",
        f"{typical.requests:,}",
        f"{typical.for_shards / len(shards):.2f}",
        f"{typical.bytes / 1e3:,.1f}",
        f"{100 * typical.bytes / stored:.3f}",
        spread(sorted(each.seconds for each in taken), ".2f"),
    ]


if __name__ == "__main__":
    main()
