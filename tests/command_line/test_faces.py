"""The three programs as processes: their help, their names, their exit codes, and what an early Ctrl+C does."""

import dataclasses
import importlib
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import extract_logits
from teacher_logits.command_line.explore import Show, Stats
from teacher_logits.extraction.compute_lengths import LengthsConfig
from teacher_logits.settings import ExtractionConfig, option_name
from tests.extraction.runs import ROOT, Ended, command

FACES = ("extract_logits.py", "explore_logits.py", "compute_lengths.py")


@pytest.mark.parametrize("face", FACES)
def test_help(face: str, tmp_path: Path):
    end = command("--help", face=face, cwd=tmp_path)
    assert end.code == 0 and end.err == "" and end.out.startswith(f"usage: {face}")
    assert not list(tmp_path.iterdir()), "asking for help leaves nothing behind"


def test_help_names_every_option():
    end = command("--help")
    for option in ("--model", "--top-p-max", "--no-store-tokens", "--sample-subject JSON", "--resume", "--cache-dir"):
        assert option in end.out


def test_every_public_name_resolves():
    assert {"ExtractionConfig", "StreamingHFUploader", "pack_indices", "run_extraction"} <= set(extract_logits.__all__)
    for name in extract_logits.__all__:
        found = getattr(extract_logits, name)
        assert callable(found) and found.__name__ == name and found.__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        extract_logits.nothing  # noqa: B018
    with pytest.raises(ImportError):
        importlib.import_module("extract_logits.nothing")


def test_importing_is_cheap():
    """No torch before somebody asks for what needs it: signal handlers must stand first."""
    code = (
        "import sys, extract_logits\n"
        "from extract_logits import GracefulInterrupt, TimedShutdown, ExtractionConfig, pack_indices, parse_args\n"
        "heavy = {'torch', 'transformers', 'datasets', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from extract_logits import run_extraction, StreamingHFUploader\n"
        "assert 'torch' in sys.modules and run_extraction.__doc__\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_user_errors_are_one_line(tmp_path: Path):
    """Exit code 2, one sentence, no traceback, nothing left behind."""
    given = ["--dataset", "none.jsonl", "--output", "./o"]
    for face, arguments, said in (
        ("extract_logits.py", [], "--model, --dataset, --output missing"),
        ("extract_logits.py", ["--model", "./none", *given], "error: There is no folder ./none with a model"),
        ("compute_lengths.py", ["--model", "m"], "--dataset, --output missing"),
        ("explore_logits.py", ["./none"], "none"),
    ):
        end = command(*arguments, face=face, cwd=tmp_path)
        assert end.code == 2 and said in end.err and "Traceback" not in end.err and end.out == "", end
        assert len([line for line in end.err.splitlines() if line.startswith("error: ")]) == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("face", FACES[:2])
def test_unknown_option(face: str, tmp_path: Path):
    end = command("output", "--unheard-of", face=face, cwd=tmp_path)
    assert end.code == 2 and "--unheard-of" in end.err and "Traceback" not in end.err


def caught(process: subprocess.Popen[str], number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    masks = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return bool(int(masks["SigCgt"], 16) >> (number - 1) & 1)


def interrupted(face: str, number: int, after: float, arguments: list[str], cwd: Path) -> Ended:
    """How a program ends that gets a signal `after` seconds from when its handlers stand."""
    program = [sys.executable, str(ROOT / face), *arguments]
    pipe = subprocess.PIPE
    process = subprocess.Popen(program, cwd=cwd, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)
    deadline = time.monotonic() + 30
    # Python has a handler for SIGINT of its own, and none for SIGTERM; compute_lengths.py takes the former away.
    waits = [(signal.SIGTERM, True)] if face == "extract_logits.py" else [(signal.SIGINT, True), (signal.SIGINT, False)]
    for awaited, there in waits:
        while caught(process, awaited) != there:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    time.sleep(after)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return Ended(process.returncode, out, err)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="signals of a process are read from /proc")
def test_interrupted_while_importing(tmp_path: Path, tiny_teacher: Path, tiny_chat: Path):
    """From the moment that the handlers stand, an early Ctrl+C ends the program with its code and without a word."""
    arguments = ["--model", str(tiny_teacher), "--dataset", str(tiny_chat), "--output", str(tmp_path / "o")]
    for after, number, code in ((0.0, signal.SIGINT, 130), (0.5, signal.SIGTERM, 143), (1.0, signal.SIGINT, 130)):
        end = interrupted("extract_logits.py", number, after, arguments, tmp_path)
        assert end.code == code, end
        assert end.out == "" and "Traceback" not in end.err and "Error" not in end.err, end
    end = interrupted("compute_lengths.py", signal.SIGINT, 0.5, arguments, tmp_path)
    assert end.code == -signal.SIGINT and end.out == "" and "Traceback" not in end.err, end


@pytest.mark.parametrize("face", FACES)
def test_a_reader_that_leaves_early(face: str, tmp_path: Path):
    """As `head` does."""
    program = [sys.executable, str(ROOT / face), "--help"]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    process.wait(60)
    assert "Traceback" not in said and "Broken" not in said


def test_messages_name_options_that_exist():
    fields = {
        field.name for kind in (ExtractionConfig, LengthsConfig, Show, Stats) for field in dataclasses.fields(kind)
    }
    known = {option_name(field) for field in fields}
    known |= {f"--no-{name[2:]}" for name in known}
    for path in (ROOT / "teacher_logits").rglob("*.py"):
        named = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", path.read_text()))
        assert named <= known, path
