"""Token lengths: counted by rendering every conversation, or taken from where they were counted before."""

import logging
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from teacher_logits.conversations import ChatRenderer, RendererSpec, Source, Unusable
from teacher_logits.conversations.source import arrow_column, load_rows
from teacher_logits.errors import DatasetError
from teacher_logits.progress import progress
from teacher_logits.records import Conversation, Int64

log = logging.getLogger(__name__)

CHUNK = 256
"""Conversations that travel to a worker process at a time."""
WORTH_PROCESSES = 20_000
"""From this many conversations on, starting worker processes (several seconds) pays."""


@dataclass(frozen=True)
class LengthTable:
    """Tokens of some rows, in the order of the rows asked for."""

    lengths: Int64
    """[n] tokens; 0 for a conversation that can't be used."""
    assistant_lengths: Int64
    """[n] assistant tokens; 0 likewise, and where they weren't counted."""
    reasons: dict[int, str]
    """Why a conversation can't be used, by its place."""


def count_lengths(source: Source, rows: Int64, spec: RendererSpec, processes: int | None = None) -> LengthTable:
    """Render every conversation and count its tokens, in several processes where there are many conversations.

    processes: worker processes; by default one a core, none for few conversations.
    """
    if processes is None:
        processes = (os.cpu_count() or 1) if len(rows) >= WORTH_PROCESSES else 0
    lengths, assistant = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    reasons: dict[int, str] = {}
    started, place = time.monotonic(), 0
    chunks = (list(source.conversations(rows[first : first + CHUNK])) for first in range(0, len(rows), CHUNK))
    with progress("counting tokens", len(rows), "conversations") as bar:
        for counted in _map(spec, chunks, processes):
            for length, of_assistant, reason in counted:
                lengths[place], assistant[place] = length, of_assistant
                if reason is not None:
                    reasons[place] = reason
                place += 1
            bar.advance(len(counted))
    seconds = max(1e-9, time.monotonic() - started)
    log.info("counted %s conversations, %s a second", f"{len(rows):,}", f"{len(rows) / seconds:,.0f}")
    return LengthTable(lengths, assistant, reasons)


def lengths_from_column(source: Source, rows: Int64, name: str) -> LengthTable:
    """Lengths that a column of the source holds. Raises DatasetError where they are not whole numbers."""
    lengths = _whole_numbers(source.column(name, "--length-col").to_numpy(), name)[rows]
    return LengthTable(lengths, np.zeros(len(rows), np.int64), {})


def lengths_from_dataset(source: Source, rows: Int64, address: str, split: str) -> LengthTable:
    """Lengths that a dataset of `compute_lengths.py` holds, by `original_index`.

    Raises DatasetError where it lacks the columns, or a conversation.
    """
    counted, *_ = load_rows(address, split, None, None)
    missing = {"original_index", "length"} - set(counted.column_names)
    if missing:
        raise DatasetError(
            f"--tokenized-dataset {address} has no column {sorted(missing)[0]!r}; it should be a dataset that "
            "compute_lengths.py wrote."
        )
    numbers = _whole_numbers(arrow_column(counted, "original_index").to_numpy(), "original_index")
    lengths = _whole_numbers(arrow_column(counted, "length").to_numpy(), "length")
    order = np.argsort(numbers)
    wanted = source.index[rows]
    places = np.searchsorted(numbers[order], wanted).clip(max=max(0, len(numbers) - 1))
    absent = wanted if not len(numbers) else wanted[numbers[order][places] != wanted]
    if len(absent):
        raise DatasetError(
            f"--tokenized-dataset {address} has no length for {len(absent):,} of {len(rows):,} conversations (the "
            f"first is {absent[0]}). Run compute_lengths.py on the same dataset again, or leave the option out."
        )
    return LengthTable(lengths[order][places], np.zeros(len(rows), np.int64), {})


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


def _map(spec: RendererSpec, chunks: Iterator[Chunk], processes: int) -> Iterator[Counted]:
    """Count chunk by chunk, in order, with a bounded number of chunks under way."""
    if processes < 2:
        renderer = spec.build()
        yield from (_count(renderer, chunk) for chunk in chunks)
        return
    # Spawned, not forked: a fork would copy the threads' locks of libraries that are already loaded.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_start_worker, initargs=(spec,)) as pool:
        yield from _in_order(pool.submit, chunks, ahead=2 * processes)


def _in_order(submit: Callable[..., Future[Counted]], chunks: Iterator[Chunk], ahead: int) -> Iterator[Counted]:
    waiting: deque[Future[Counted]] = deque()
    for chunk in chunks:
        waiting.append(submit(_count_in_worker, chunk))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _start_worker(spec: RendererSpec) -> None:
    global _renderer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _renderer = spec.build()


def _count_in_worker(chunk: Chunk) -> Counted:
    assert _renderer is not None
    return _count(_renderer, chunk)


def _count(renderer: ChatRenderer, chunk: Chunk) -> Counted:
    rendered = renderer.render(chunk)
    return [
        (0, 0, str(found)) if isinstance(found, Unusable) else (len(found.input_ids), len(found.positions), None)
        for found in rendered
    ]
