"""A bar on a terminal, lines in the log elsewhere, and never a print."""

import io
import logging
import os
import pty
import subprocess
import sys

import pytest

from teacher_logits import progress as room
from teacher_logits.progress import SECONDS_BETWEEN_LINES, progress, track


class Clock:
    """`time` for the room, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(room, "time", clock)
    return clock


def test_without_a_terminal_a_line_every_half_minute(
    clock: Clock, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    caplog.set_level(logging.INFO, "teacher_logits")
    with progress("extracting", 2000, "tokens", done=500) as shown:
        shown.advance(100)
        assert not caplog.messages
        clock.now += SECONDS_BETWEEN_LINES
        shown.advance(400, note="3 shards")
        assert caplog.messages == ["extracting: 1,000 of 2,000 tokens (50%), 3 shards"]
        clock.now += SECONDS_BETWEEN_LINES - 0.1
        shown.advance(100)
        assert len(caplog.messages) == 1
        clock.now += 0.1
        shown.advance(0)
        assert caplog.messages[1] == "extracting: 1,100 of 2,000 tokens (55%), 3 shards"
    assert capfd.readouterr() == ("", ""), "nothing past the log"


def test_without_a_terminal_nothing_is_said_of_short_work(
    clock: Clock, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    caplog.set_level(logging.INFO, "teacher_logits")
    assert list(track(iter("abc"), "reading", 3, "rows")) == ["a", "b", "c"]
    assert caplog.messages == [] and capfd.readouterr() == ("", "")


def test_line_without_a_total(clock: Clock):
    with progress("reading", 0, "rows") as shown:
        shown.advance(1234)
        assert shown.line() == "1,234 of 0 rows"
    with progress("reading", None, "rows") as shown:
        shown.advance(1234, "so far")
        assert shown.line() == "1,234 rows, so far"


def test_on_a_terminal_a_bar_on_stderr_alone(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
):
    caplog.set_level(logging.INFO, "teacher_logits")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("extracting", 4, "rows", done=1) as shown:
        clock.now += 10 * SECONDS_BETWEEN_LINES
        shown.advance(3, note="done soon")
    bar = terminal.getvalue()
    assert "extracting" in bar and "4/4" in bar and "done soon" in bar
    assert caplog.messages == [] and capsys.readouterr().out == ""


def test_bar_is_closed_when_the_work_fails(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(RuntimeError), progress("extracting", 4, "rows") as shown:
        raise RuntimeError
    assert shown._bar.disable, "closed"


def test_tracked_items_are_passed_on_one_by_one(clock: Clock, caplog: pytest.LogCaptureFixture):
    """An item counts when the next is asked for, so what is shown was done."""
    caplog.set_level(logging.INFO, "teacher_logits")
    items = track(range(3), "reading", 3, "rows")
    assert next(items) == 0
    clock.now += SECONDS_BETWEEN_LINES
    assert caplog.messages == []
    assert next(items) == 1
    assert caplog.messages == ["reading: 1 of 3 rows (33%)"]
    items.close()


def test_a_terminal_that_does_not_know_its_size_shows_the_bar():
    """As in some containers: the size of a new pseudo-terminal is 0 by 0."""
    ours, theirs = pty.openpty()
    program = (
        "from teacher_logits.progress import progress\n"
        "with progress('counting', 3, 'things') as bar:\n    [bar.advance(1, 'so far') for _ in range(3)]\n"
    )
    subprocess.run([sys.executable, "-c", program], stderr=theirs, stdout=subprocess.DEVNULL, check=True, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "counting" in shown and "3/3" in shown and "so far" in shown
