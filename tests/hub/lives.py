"""Processes that live a part of a run's uploading and end at a chosen step of it, by a crash or a failure.

`python -m tests.hub.lives` reads one JSON object a line (the fields of `Life`), forks for each, and answers with how
the copy ended and how often it passed each step. Never imports torch, so that a life takes a tenth of a second.
"""

import dataclasses
import errno
import functools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from huggingface_hub import HfApi

from teacher_logits.extraction.resume import take_stock
from teacher_logits.hub import Checkpoint, FolderRepository, HubRepository, Repository, retries
from teacher_logits.journal import KnownShards, RunCache, Spool
from teacher_logits.journal import buffer as buffer_module
from teacher_logits.journal import spool as spool_module
from teacher_logits.shards import shard_schema
from tests.hub.made import FINGERPRINT, METADATA, ROWS, make_uploader

ROWS_PER_SHARD = 10
STOPPED_AT = 22
"""Rows that the first life of a run takes: two shards, and two rows that fill none."""

STEPS = {
    "write": ((spool_module, "write_shard"), (buffer_module, "write_shard")),
    "fsync": ((os, "fsync"),),
    "rename": ((os, "replace"),),
    "upload": ((HubRepository, "upload"), (FolderRepository, "upload")),
    "commit": ((HubRepository, "commit"), (FolderRepository, "commit")),
    "removal": ((os, "unlink"),),
}
"""Every step of the spool and the uploader at which something on a disk or on the Hub changes."""


@dataclasses.dataclass(frozen=True)
class Life:
    """What one process does, and where it ends."""

    folder: str
    """Holds its cache folder, and its output where that is a folder."""
    hub: tuple[str, str, str] | None = None
    """Endpoint, token and repository, where the output is on the Hub."""
    rows: int = ROWS.num_rows
    """How many of the rows are taken, those of earlier lives included."""
    finish: bool = True
    """Finish the run, or stop it and save what fills no shard."""
    step: str | None = None
    """At which step it ends early."""
    when: str = "before"
    """before or after the step."""
    nth: int = 1
    """At which passing of it."""
    end: str = "crash"
    """crash: the process is gone; full: the step fails as on a full disk."""


@dataclasses.dataclass(frozen=True)
class Death:
    """How a life ended."""

    code: int
    told: str
    """The error, if there was one."""
    passed: Mapping[str, int]
    """Steps passed, by name, where it didn't crash."""


def live(life: Life) -> None:
    """Take stock, take the rows that are nowhere yet, and finish or stop."""
    folder = Path(life.folder)
    repository = _repository(life)
    cache = RunCache(folder / "cache")
    with cache.locked():
        repository.create()
        found = repository.snapshot()
        checkpoint = Checkpoint(FINGERPRINT, {"model": "some/teacher"}, METADATA)
        if found.checkpoint is not None:
            checkpoint.shards = Checkpoint.parse(found.checkpoint, "the output").shards
        spool = Spool(cache, FINGERPRINT)
        stock = take_stock(KnownShards(cache.known_file), spool, repository, found, checkpoint, "train")
        held, number = stock.shards, stock.next_number
        uploader = make_uploader(repository, cache, ROWS_PER_SHARD, held=held, next_number=number, spool=spool)
        pending = uploader.load_pending_into_buffer(stock.done, shard_schema())
        done = np.concatenate([stock.done, pending])
        assert len(np.unique(done)) == len(done), "a row waits twice"
        todo = ROWS.slice(0, life.rows).filter(pa.array(~np.isin(ROWS.column("index")[: life.rows], done)))
        uploader.start()
        for first in range(0, todo.num_rows, 3):
            uploader.add_rows(todo.slice(first, 3))
        if life.finish:
            uploader.finish()
        else:
            uploader.save_pending_locally()
            uploader.stop(60)


def _repository(life: Life) -> Repository:
    if life.hub is None:
        return FolderRepository(Path(life.folder) / "out")
    endpoint, token, name = life.hub
    return HubRepository(name, api=HfApi(endpoint=endpoint, token=token))


def arm(life: Life, passed: Counter[str]) -> None:
    """Count the steps that are passed, and end the process at the chosen one."""

    def wrapped(step: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*arguments: Any, **named: Any) -> Any:
            passed[step] += 1
            struck = step == life.step and passed[step] == life.nth
            if struck and life.when == "before":
                _end(life)
            result = original(*arguments, **named)
            if struck and life.when == "after":
                _end(life)
            return result

        return call

    for step, places in STEPS.items():
        for owner, name in places:
            setattr(owner, name, wrapped(step, getattr(owner, name)))


def _end(life: Life) -> None:
    if life.end == "crash":
        os._exit(99)
    raise OSError(errno.ENOSPC, "No space left on device", "somewhere")


def _serve() -> None:
    retries._FIRST_WAIT = retries._LONGEST_WAIT = 0.01
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            passed: Counter[str] = Counter()
            told, life = "", Life(**json.loads(line))
            try:
                arm(life, passed)
                live(life)
            except Exception as error:  # noqa: BLE001 - told to whoever asked for it
                told = repr(error)
            os.write(writing, json.dumps([told, passed]).encode())
            os._exit(1 if told else 0)
        os.close(writing)
        with os.fdopen(reading) as stream:
            report = stream.read()
        told, passed = json.loads(report or '["", {}]')
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(1, (json.dumps([code, told, passed]) + "\n").encode())


@contextmanager
def lives() -> Iterator[Callable[[Life], Death]]:
    """Gives a function that has a life lived in a process of its own."""
    environment = os.environ | {"HF_HUB_DISABLE_XET": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", __name__],
        cwd=Path(__file__).parents[2],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def lived(life: Life) -> Death:
            stdin.write(json.dumps(dataclasses.asdict(life)) + "\n")
            stdin.flush()
            return Death(*json.loads(stdout.readline()))

        yield lived
        stdin.close()


if __name__ == "__main__":
    _serve()
