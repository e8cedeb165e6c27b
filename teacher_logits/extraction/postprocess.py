"""Work that goes on beside the teacher: preparing what comes next, packing what came out."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable
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


def prefetch(items: Iterable[T], ahead: int = 2) -> Generator[T, None, None]:
    """Pass `items` on while another thread prepares the next ones, at most `ahead` of them.

    What preparing raises is raised here, in its turn. Closing the iterator ends the thread.
    """
    waiting: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(ahead)
    closed = threading.Event()

    def put(item: tuple[T | None, BaseException | None]) -> bool:
        while not closed.is_set():
            try:
                waiting.put(item, timeout=_POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    end: tuple[T | None, BaseException | None] = (None, StopIteration())

    def prepare() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put(end)
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            put((None, error))

    thread = threading.Thread(target=prepare, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, failure = waiting.get()
            if failure is not None:
                if isinstance(failure, StopIteration):
                    return
                raise failure
            yield item  # type: ignore[misc]
    finally:
        closed.set()
        thread.join()
