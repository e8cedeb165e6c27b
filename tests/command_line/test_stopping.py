"""Signals to the commands that have nothing to save."""

import contextlib
import importlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from teacher_logits.command_line import stopping
from teacher_logits.command_line.shell import exit_code_of
from teacher_logits.command_line.stopping import Stopped, unwinding

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
FAR_AWAY = 30.0


def raised(number: int) -> Callable[[], None]:
    return lambda: signal.raise_signal(number)


@pytest.mark.parametrize("number", NUMBERS)
def test_what_is_under_way_unwinds(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(each) for each in NUMBERS]
    cleared = False

    def command() -> int:
        nonlocal cleared
        with unwinding():
            try:
                raised(number)()
            finally:
                raised(number)()  # a second one doesn't interrupt the clearing away
                cleared = True
        return 0

    assert exit_code_of(command) == 128 + number and cleared
    assert capsys.readouterr().err == f"stopped by {number.name}; run it again to begin anew\n"
    assert [signal.getsignal(each) for each in NUMBERS] == before


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_in_a_destructor_is_not_lost(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    """Python drops what a destructor raises: libraries whose imports make many of them swallowed Ctrl+C."""

    class Dropped:
        def __del__(self) -> None:
            raised(number)()

    with pytest.raises(Stopped) as stopped, unwinding():
        for _ in range(2):  # the second one comes while the first waits to be sent again
            item = Dropped()
            del item
        time.sleep(FAR_AWAY)
    assert stopped.value.number == number
    assert capsys.readouterr().err == ""


def test_a_signal_that_is_swallowed_comes_again(capsys: pytest.CaptureFixture[str]) -> None:
    """As by callbacks of libraries that drop whatever is raised."""
    swallowed = 0
    with pytest.raises(Stopped) as stopped, unwinding():
        while swallowed < 3:
            try:
                if not swallowed:
                    signal.raise_signal(signal.SIGTERM)
                time.sleep(FAR_AWAY)
            except BaseException:  # noqa: BLE001 (as such libraries do)
                swallowed += 1
        time.sleep(FAR_AWAY)
    assert stopped.value.number == signal.SIGTERM and swallowed == 3
    assert capsys.readouterr().err == ""


def test_what_a_signal_breaks_is_its_consequence() -> None:
    """As where a library written in C makes another error of it."""

    def command() -> int:
        with unwinding():
            try:
                signal.raise_signal(signal.SIGINT)
            except BaseException as error:
                raise ValueError("callback failed") from error
        return 0

    assert exit_code_of(command) == 128 + signal.SIGINT


def test_imports_are_not_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pandas within pyarrow drops what is raised, numpy within pandas makes an ImportError of it, torch can abort."""
    (tmp_path / "stops_while_imported.py").write_text(
        "import signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep(0.5)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Stopped), unwinding():
        importlib.import_module("stops_while_imported")
        time.sleep(FAR_AWAY)
    assert sys.modules.pop("stops_while_imported").whole


@pytest.mark.parametrize("interrupted", [True, False])
def test_clearing_away_is_not_disturbed(interrupted: bool) -> None:
    """Not by the alarm either, where it takes longer: a `finally`, and a generator that is closed on the way."""
    cleared: list[str] = []

    def generator() -> Iterator[int]:
        try:
            yield 1
        finally:
            time.sleep(5 * stopping._AGAIN_SECONDS)
            cleared.append("generator")

    def work() -> None:
        try:
            for _ in generator():
                if interrupted:
                    signal.raise_signal(signal.SIGINT)
        finally:
            time.sleep(5 * stopping._AGAIN_SECONDS)
            cleared.append("finally")

    with pytest.raises(Stopped) if interrupted else contextlib.nullcontext(), unwinding():
        work()
    assert cleared == ["generator", "finally"]
    if hasattr(signal, "getitimer"):
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_other_errors_of_destructors_are_told_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[BaseException | None] = []
    monkeypatch.setattr("sys.unraisablehook", lambda what: told.append(what.exc_value))

    class Broken:
        def __del__(self) -> None:
            raise ValueError("broken")

    with unwinding():
        item = Broken()
        del item
    assert [str(error) for error in told] == ["broken"]


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As nohup asks."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with unwinding():
            raised(signal.SIGHUP)()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
