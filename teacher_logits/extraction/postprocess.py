"""Work that goes on beside the teacher: preparing what comes next, packing what came out."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.2


class AsyncPostProcessor(Generic[T]):
    """Hands items to `work` in another thread, in order, with at most `ahead` of them waiting.

    What `work` raises is raised, with its traceback, by the next `submit` or by `close`.
    """

    def __init__(self, work: Callable[[T], None], ahead: int = 2) -> None:
        self._work = work
        self._queue: queue.Queue[T | None] = queue.Queue(ahead)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="postprocess", daemon=True)
        self._thread.start()

    def submit(self, item: T) -> None:
        """Hand an item over; waits while `ahead` of them are waiting."""
        self._check()
        self._queue.put(item)

    def close(self) -> None:
        """Wait until everything is worked off."""
        self._queue.put(None)
        self._thread.join()
        self._check()

    def __enter__(self) -> "AsyncPostProcessor[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:  # finish what was handed over, but let the first error be the one that is seen
            self._queue.put(None)
            self._thread.join()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._failure is None:  # after a failure the queue is only emptied, so that nobody waits for ever
                try:
                    self._work(item)
                except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
                    self._failure = error


@contextmanager
def prefetch(items: Iterable[T], ahead: int = 2) -> Iterator[Iterator[T]]:
    """Give an iterator over `items`, while another thread prepares the next ones, at most `ahead` of them.

    What preparing raises is raised by the iterator, in its turn. Leaving the block ends the thread.
    """
    waiting: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(ahead)
    left = threading.Event()

    def put(good: bool, item: T | BaseException | None) -> None:
        while not left.is_set():
            try:
                return waiting.put((good, item), timeout=_POLL_SECONDS)
            except queue.Full:
                continue

    def prepare() -> None:
        try:
            for item in items:
                put(True, item)
                if left.is_set():
                    return
            put(False, None)
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            put(False, error)

    def prepared() -> Iterator[T]:
        while True:
            good, item = waiting.get()
            if isinstance(item, BaseException):
                raise item
            if not good:
                return
            yield item  # type: ignore[misc]

    thread = threading.Thread(target=prepare, name="prefetch", daemon=True)
    thread.start()
    try:
        yield prepared()
    finally:
        left.set()
        thread.join()
