"""Token lengths: counted by rendering every conversation, or taken from where they were counted before."""

import logging
import math
import multiprocessing
import os
import pickle
import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from teacher_logits.conversations import ChatRenderer, RendererSpec, Source, Unusable
from teacher_logits.conversations.places import Rows
from teacher_logits.conversations.source import arrow_column
from teacher_logits.errors import DatasetError, TeacherLogitsError
from teacher_logits.progress import progress
from teacher_logits.records import Conversation, Int64

log = logging.getLogger(__name__)

CHUNK = 256
"""Conversations that are tokenized together, and travel to a worker process at a time."""
TRIAL_SECONDS = 0.5
"""How long the speed of this process is measured before worker processes are thought of."""
WORTH_SECONDS = 5.0
"""Worker processes are started where this process would need longer than this for the rest; they need about one
second to start."""
MOST_WORKERS = 32
"""The most that are started unasked: this process reads the rows for all of them, and is then busy with it."""


@dataclass(frozen=True)
class LengthTable:
    """Tokens of some rows, in the order of the rows asked for."""

    lengths: Int64
    """[n] tokens; 0 for a conversation that can't be used."""
    assistant_lengths: Int64
    """[n] assistant tokens; 0 likewise."""
    reasons: dict[int, str]
    """Why a conversation can't be used, by its place."""
    seconds: float = 0.0
    """How long counting took; 0 where nothing was counted."""
    workers: int = 0
    """Worker processes that counted; 0 where this one did."""

    def speed(self) -> str:
        """How fast they were counted, in words."""
        where = f"{self.workers} worker processes" if self.workers else "one process"
        return (
            f"counted {len(self.lengths):,} conversations in {self.seconds:,.1f} s: "
            f"{len(self.lengths) / max(1e-9, self.seconds):,.0f} a second, in {where}"
        )


def count_lengths(source: Source, rows: Int64, renderer: ChatRenderer, processes: int | None = None) -> LengthTable:
    """Render every conversation and count its tokens.

    processes: worker processes, none if less than 2; by default one a core as soon as that is faster.
    Raises TeacherLogitsError where a worker process dies. How many there are makes no difference to the result.
    """
    started, place, workers = time.monotonic(), 0, 0
    lengths, assistant = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    reasons: dict[int, str] = {}
    chunks = (list(source.conversations(rows[first : first + CHUNK])) for first in range(0, len(rows), CHUNK))
    with progress("counting tokens", len(rows), "conversations") as bar:
        for at_work, counted in _map(renderer, chunks, len(rows), processes):
            workers = at_work
            for length, of_assistant, reason in counted:
                lengths[place], assistant[place] = length, of_assistant
                if reason is not None:
                    reasons[place] = reason
                place += 1
            bar.advance(len(counted))
    table = LengthTable(lengths, assistant, reasons, time.monotonic() - started, workers)
    log.info("%s", table.speed())
    return table


def lengths_from_column(source: Source, rows: Int64, name: str) -> Int64:
    """[rows] lengths that a column of the source holds. Raises DatasetError where they are not whole numbers."""
    return _whole_numbers(source.column(name, "--length-col").to_numpy(), name)[rows]


def lengths_from_dataset(source: Source, rows: Int64, counted: Rows, address: str) -> Int64:
    """[rows] lengths that a dataset of `compute_lengths.py` holds, by `original_index`; 0 where it holds none.

    address: its name, for messages.   Raises DatasetError where it lacks the columns, or they aren't whole numbers.
    """
    missing = {"original_index", "length"} - set(counted.dataset.column_names)
    if missing:
        raise DatasetError(
            f"--tokenized-dataset {address} has no column {sorted(missing)[0]!r}; it should be a dataset that "
            "compute_lengths.py wrote."
        )
    numbers = _whole_numbers(arrow_column(counted.dataset, "original_index").to_numpy(), "original_index")
    lengths = _whole_numbers(arrow_column(counted.dataset, "length").to_numpy(), "length")
    order = np.argsort(numbers)
    wanted = source.index[rows]
    places = np.searchsorted(numbers[order], wanted).clip(max=len(numbers) - 1)
    return np.where(numbers[order][places] == wanted, lengths[order][places], 0)


def _whole_numbers(values: np.ndarray, name: str) -> Int64:
    if not np.issubdtype(values.dtype, np.integer):
        raise DatasetError(f"Column {name!r} holds {values.dtype}; expected whole numbers without gaps.")
    if len(values) and values.min() < 0:
        raise DatasetError(f"Column {name!r} holds {values.min()}; expected whole numbers from 0 on.")
    return values.astype(np.int64)


Chunk = list[Conversation | Unusable]
Counted = list[tuple[int, int, str | None]]

_renderer: ChatRenderer | None = None
"""The renderer of a worker process."""


def _map(
    renderer: ChatRenderer, chunks: Iterator[Chunk], total: int, processes: int | None
) -> Iterator[tuple[int, Counted]]:
    """Count chunk by chunk, in order; with each, how many worker processes are at work.

    Without worker processes the tokenizer uses all cores by itself, but rendering and reading use only one.
    """
    if processes is None or processes < 2:
        started, done = time.monotonic(), 0
        for chunk in chunks:
            yield 0, _count(renderer, chunk)
            done += len(chunk)
            if processes is None and _workers_pay(time.monotonic() - started, done, total):
                break
        else:
            return
        processes = min(_cores(), MOST_WORKERS, math.ceil((total - done) / CHUNK))
    for counted in _in_workers(renderer, chunks, processes):
        yield processes, counted


def _workers_pay(seconds: float, done: int, total: int) -> bool:
    """Whether worker processes should count the rest, after so many in so many seconds here."""
    if _cores() < 2 or total - done <= CHUNK or seconds < TRIAL_SECONDS:
        return False
    return seconds / done * (total - done) > WORTH_SECONDS


def _cores() -> int:
    """Cores this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _in_workers(renderer: ChatRenderer, chunks: Iterator[Chunk], processes: int) -> Iterator[Counted]:
    """Count in worker processes, with a bounded number of chunks under way."""
    # Spawned, not forked: a fork would copy the threads' locks of libraries that are already loaded.
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, _environment_of_workers():
        # Not as an argument: megabytes of it would make each worker's start wait for the one before.
        path = Path(folder) / "renderer"
        path.write_bytes(_packed(renderer))
        try:
            with _terminal_held():  # this may start the process that clears semaphores away
                pool = ProcessPoolExecutor(processes, context, initializer=_start_worker, initargs=(path,))
            with pool:
                try:
                    yield from _in_order(pool.submit, chunks, ahead=2 * processes)
                except BaseException:  # GeneratorExit, too: whoever asked wants no more
                    _kill_workers(pool)
                    raise
        except BrokenProcessPool as error:
            raise TeacherLogitsError(
                "A worker process that counts tokens died, perhaps for want of memory. compute_lengths.py with "
                "--processes 0 counts without any, and --tokenized-dataset takes its result. (A script that calls "
                "this must do so under `if __name__ == '__main__':`.)"
            ) from error


def _kill_workers(pool: ProcessPoolExecutor) -> None:
    """End the workers at once, instead of after what waits for them or after their start. They hold nothing to save.

    From Python 3.14 on the pool's own `kill_workers` does this.
    """
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(cancel_futures=True)


def _packed(renderer: ChatRenderer) -> bytes:
    """What a worker makes its renderer of: the renderer itself, which takes a third of the time and the memory of
    loading the tokenizer again; or the spec, where the tokenizer can't be copied or is a program of the model's."""
    if not renderer.spec.trust_remote_code:
        try:
            return pickle.dumps(renderer)
        except Exception as error:  # noqa: BLE001 (parts of a tokenizer written in Python raise whatever comes)
            log.debug("the tokenizer can't be copied: %s", error)
    return pickle.dumps(renderer.spec)


@contextmanager
def _terminal_held() -> Iterator[None]:
    """Processes that are started here never see Ctrl+C, nor that the terminal is gone, from their first instant on: the
    parent decides when to stop. What comes meanwhile reaches the parent afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment_of_workers() -> Iterator[None]:
    """Processes that are started here compute in one thread, as there is one for each core; and the one that clears
    away semaphores does so without a word where this process is killed."""
    warnings = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker")))
    ours = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": warnings}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _in_order(submit: Callable[..., Future[Counted]], chunks: Iterator[Chunk], ahead: int) -> Iterator[Counted]:
    waiting: deque[Future[Counted]] = deque()
    for chunk in chunks:
        with _terminal_held():  # this may start a worker
            waiting.append(submit(_count_in_worker, chunk))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _start_worker(path: Path) -> None:
    global _renderer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it can't be held
    threading.Thread(target=_end_with_parent, args=(path,), daemon=True).start()
    try:
        content = path.read_bytes()
    except FileNotFoundError:  # the parent was killed meanwhile, and a worker has cleared its file away
        os._exit(1)
    packed = pickle.loads(content)  # noqa: S301 (the parent wrote it, in a folder of its own)
    _renderer = packed.build() if isinstance(packed, RendererSpec) else packed


def _end_with_parent(path: Path) -> None:
    """A worker whose parent was killed would wait for work for ever, and the parent's file would stay."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    shutil.rmtree(path.parent, ignore_errors=True)
    os._exit(1)


def _count_in_worker(chunk: Chunk) -> Counted:
    assert _renderer is not None
    return _count(_renderer, chunk)


def _count(renderer: ChatRenderer, chunk: Chunk) -> Counted:
    rendered = renderer.render(chunk)
    return [
        (0, 0, str(found)) if isinstance(found, Unusable) else (len(found.input_ids), len(found.positions), None)
        for found in rendered
    ]
