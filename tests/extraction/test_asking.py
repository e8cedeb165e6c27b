"""--verify-mask at a terminal: marks in colour, and a question before anything is extracted."""

import os
import pty
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.extraction.runs import ForkServer, Place, fork_server, stored_rows
from tests.tiny import question_rows

ANSWER = question_rows(1)[0]["answer"]
QUESTION = "Go on? [Y/n]"


@pytest.fixture(scope="module")
def at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """A process whose runs may show colours."""
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "ANSI_COLORS_DISABLED")}
    with fork_server(tmp_path_factory.mktemp("home"), env | {"TERM": "xterm"}) as found:
        yield found


def at_a_terminal(server: ForkServer, typed: str | None, err: Path, *arguments: str) -> tuple[int, str]:
    """The exit code of a run whose user has typed something ahead (None: that reads from no terminal), and what was on
    the screen."""
    screen, terminal = pty.openpty()
    seen = bytearray()

    def watch() -> None:
        try:
            while piece := os.read(screen, 4096):
                seen.extend(piece)
        except OSError:  # the last to have the terminal open has closed it
            return

    watching = threading.Thread(target=watch)
    watching.start()
    os.write(screen, (typed or "").encode())
    name = os.ttyname(terminal)
    server.ask("run", "extract", os.devnull if typed is None else name, name, str(err), *arguments)
    code = os.waitstatus_to_exitcode(int(server.ask("wait")))
    os.close(terminal)
    watching.join()
    os.close(screen)
    return code, seen.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("typed", ["n\n", "No\n", "what?\n", "\x04"], ids=["n", "No", "what", "end"])
def test_whoever_does_not_agree(typed: str, place: Place, at_home: ForkServer, tmp_path: Path):
    code, seen = at_a_terminal(at_home, typed, tmp_path / "err", *place.arguments("--verify-mask"))
    assert code == 1 and QUESTION in seen
    assert "error: Stopped before anything was extracted" in (tmp_path / "err").read_text()
    assert not place.folder.exists()


@pytest.mark.parametrize("typed", ["\n", "YES\n", None], ids=["enter", "YES", "nobody"])
def test_whoever_agrees_or_is_not_there(typed: str | None, place: Place, at_home: ForkServer, tmp_path: Path):
    arguments = place.arguments("--verify-mask", "--limit", "2")
    code, seen = at_a_terminal(at_home, typed, tmp_path / "err", *arguments)
    assert code == 0 and seen.count(QUESTION) == (typed is not None) and seen.rstrip().endswith("complete")
    assert stored_rows(place.folder)["index"].to_pylist() == [0, 1]


def test_each_role_has_its_colour(place: Place, at_home: ForkServer, tmp_path: Path):
    """--verify-mask-only shows the same, and asks nothing."""
    arguments = place.arguments("--verify-mask-only", "--limit", "1", "--system-prompt", "Be brief.")
    code, seen = at_a_terminal(at_home, "", tmp_path / "err", *arguments)
    assert code == 0 and QUESTION not in seen and not place.folder.exists()
    green, cyan, yellow, grey, end = "\x1b[42m\x1b[30m", "\x1b[36m", "\x1b[33m", "\x1b[90m", "\x1b[0m"
    question = question_rows(1)[0]["question"]
    assert seen.rstrip().endswith(
        f"{grey}<|im_start|>system{end}\n{yellow}Be brief.{end}{grey}<|im_end|>{end}\n"
        f"{grey}<|im_start|>user{end}\n{cyan}{question}{end}{grey}<|im_end|>{end}\n"
        f"{grey}<|im_start|>assistant{end}\n{green}{ANSWER}<|im_end|>{end}"
    )
    assert "[[" not in seen and f"{green}marked: their distributions are stored{end}" in seen
