"""What works beside the teacher, and what stops it: AsyncPostProcessor, prefetch, GracefulInterrupt, TimedShutdown."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from teacher_logits.extraction.postprocess import AsyncPostProcessor, prefetch
from teacher_logits.extraction.stop import GracefulInterrupt, TimedShutdown


@pytest.fixture(autouse=True)
def no_deadlock() -> Iterator[None]:
    """A test that hangs is killed by an alarm, with the stack it hangs in."""

    def alarm(number: int, frame: object) -> None:
        raise TimeoutError("deadlock")

    before = signal.signal(signal.SIGALRM, alarm)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_items_are_worked_off_in_order():
    done: list[int] = []
    with AsyncPostProcessor(done.append) as packer:
        for item in range(50):
            packer.submit(item)
    assert done == list(range(50)), "leaving the block waits for all of them"


def test_only_a_few_items_wait():
    gate, taken = threading.Event(), []

    def work(item: int) -> None:
        gate.wait()
        taken.append(item)

    submitted: list[int] = []

    def submit() -> None:
        for item in range(9):
            packer.submit(item)
            submitted.append(item)

    packer = AsyncPostProcessor(work, ahead=2)
    thread = threading.Thread(target=submit)
    thread.start()
    time.sleep(0.3)
    assert len(submitted) == 3, "one being worked on and two waiting: the teacher waits rather than fill the memory"
    gate.set()
    thread.join()
    packer.close()
    assert taken == list(range(9))


def test_failure_of_work_reaches_the_next_submit():
    def explode(item: int) -> None:
        if item == 3:
            raise KeyError("item three")
        seen.append(item)

    seen: list[int] = []
    with pytest.raises(KeyError, match="item three") as failure, AsyncPostProcessor(explode) as packer:
        for item in range(1000):
            packer.submit(item)
            time.sleep(0.001)
    assert "explode" in [entry.name for entry in failure.traceback]
    assert seen == [0, 1, 2], "nothing is worked on after a failure"


def test_failure_of_the_last_item_reaches_close():
    def explode(item: int) -> None:
        time.sleep(0.05)
        raise KeyError("late")

    with pytest.raises(KeyError, match="late"), AsyncPostProcessor(explode) as packer:
        packer.submit(1)


def test_failure_of_the_block_wins_and_what_was_submitted_is_done():
    done: list[int] = []

    def slow(item: int) -> None:
        time.sleep(0.02)
        done.append(item)

    with pytest.raises(ValueError, match="outside"), AsyncPostProcessor(slow, ahead=5) as packer:
        for item in range(5):
            packer.submit(item)
        raise ValueError("outside")
    assert done == list(range(5))


def test_prefetch_gives_everything_in_order():
    with prefetch(iter(range(30))) as items:
        assert list(items) == list(range(30))
        assert list(items) == []
    with prefetch(()) as nothing:
        assert list(nothing) == []


def test_prefetch_is_bounded():
    made: list[int] = []

    def make() -> Iterator[int]:
        for item in range(1000):
            made.append(item)
            yield item

    with prefetch(make(), ahead=2) as items:
        assert next(items) == 0
        time.sleep(0.3)
        assert len(made) <= 4
    count = len(made)
    time.sleep(0.3)
    assert len(made) == count, "leaving the block ends the thread"
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_failure_in_preparing_comes_in_its_turn():
    def make() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("third")

    got = []
    with pytest.raises(KeyError, match="third") as failure, prefetch(make(), ahead=5) as items:
        for item in items:
            got.append(item)
            time.sleep(0.05)
    assert got == [1, 2] and "make" in [entry.name for entry in failure.traceback]


def test_failure_while_the_preparing_thread_waits():
    with pytest.raises(ValueError, match="outside"), prefetch(iter(range(1000)), ahead=1) as items:
        next(items)
        raise ValueError("outside")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(number: signal.Signals, code: int):
    before = signal.getsignal(number)
    with GracefulInterrupt() as stop:
        child = os.fork()
        if not child:  # before there is work, the process ends at once, whatever it is doing
            os.kill(os.getpid(), number)
            time.sleep(1)
            os._exit(99)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code and not stop.requested
        stop.begin_work()
        assert (stop.requested, stop.exit_code) == (False, 0)
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert (stop.requested, stop.exit_code) == (True, code)
        assert signal.getsignal(signal.SIGINT) == signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "the next kills"
    assert signal.getsignal(number) == before


def test_without_handlers_nothing_is_asked():
    stop = GracefulInterrupt()
    stop.begin_work()
    assert (stop.requested, stop.exit_code) == (False, 0)


def test_no_time_limit():
    clock = TimedShutdown(None)
    assert clock.remaining is None and not clock.due


def test_time_limit_leaves_room_for_a_batch_and_for_saving():
    now = time.monotonic()
    assert TimedShutdown(1.0, start=now - 61).due and TimedShutdown(1.0, start=now - 56).due
    assert TimedShutdown(2.0, grace=10, start=now - 106).due and not TimedShutdown(2.0, grace=10, start=now - 104).due
    assert TimedShutdown(1.0, grace=60, start=now - 46).due and not TimedShutdown(1.0, grace=60, start=now - 44).due
    clock = TimedShutdown(1.0, start=now - 50)
    assert not clock.due and clock.remaining == pytest.approx(10, abs=0.5)
    with clock.batch():
        time.sleep(0.1)
    assert not clock.due
    clock._durations.append(4.0)
    assert clock.due, "one and a half times the slowest batch would not fit any more"
    clock._durations.extend([0.1] * 10)
    assert not clock.due, "only the last ten count"
