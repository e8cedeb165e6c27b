"""Groups of rows on several cores, each group on one.

torch would spread every single step over its threads, and make them wait for each other after each. Where other
programs use the cores too, that takes ten times as long as one thread alone.
"""

import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def side_by_side(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Results of the tasks, in their order, computed by as many threads as torch has here."""
    threads = torch.get_num_threads()
    if threads == 1:
        return [task() for task in tasks]
    return list(_workers(threads).map(_called, tasks))


def _called(task: Callable[[], T]) -> T:
    return task()


@functools.lru_cache(maxsize=1)
def _workers(count: int) -> ThreadPoolExecutor:
    """Threads in which torch doesn't use more."""
    pool = ThreadPoolExecutor(count, "sampling", initializer=_stay_alone)
    all_started = threading.Barrier(count + 1, timeout=60)
    try:
        for _ in range(count):
            pool.submit(all_started.wait)
        all_started.wait()
    except RuntimeError:  # there can't be so many threads: nobody is to wait for the missing ones
        all_started.abort()
        raise
    # OpenMP keeps the number for each thread, but MKL for all: say again what the others had.
    torch.set_num_threads(count)
    return pool


def _stay_alone() -> None:
    torch.get_num_threads()  # the first question in a thread sets it to the others' number
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.cache_clear)  # a forked process has no threads but its own
