"""What explore_logits.py refuses, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import pytest

from explore_logits import execute_analysis, get_sample, load_logit_dataset
from teacher_logits.command_line.explore import main
from teacher_logits.errors import FormatError, OutputError
from teacher_logits.exploring.streams import files_of_stream
from tests.exploring.damage import change_checkpoint, shards_of
from tests.exploring.made import Made
from tests.extraction.runs import ROOT

HUGE = 10**30


@pytest.mark.parametrize("given", [{"filters": [("index", "==", 9)]}, {"columns": ["index"]}])
def test_a_stream_that_leaves_something_out_is_read_as_it_is(given: dict[str, Any], made: Made) -> None:
    paths = [str(made.folder / name) for name in shards_of(made.folder)]
    stream = datasets.load_dataset("parquet", data_files=paths, split="train", streaming=True, **given)
    assert files_of_stream(stream) is None
    if "filters" in given:
        assert get_sample(stream, 0)["index"] == 9
        with pytest.raises(FormatError):
            get_sample(stream, 1)
    else:
        with pytest.raises(FormatError, match="lacks"):
            get_sample(stream, 0)


def test_numbers_beyond_all(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    for dataset in (made.folder, load_logit_dataset(made.folder, streaming=True), load_logit_dataset(made.folder)):
        with pytest.raises(FormatError, match=f"No row has index {HUGE}"):
            get_sample(dataset, index=HUGE)
    assert main([str(made.folder), "show", "--index", str(HUGE)]) == 2
    assert capsys.readouterr().err.startswith("error: No row has index")


@pytest.mark.parametrize(
    "change",
    [
        {"shards": 5},
        {"shards": {"data/x.parquet": 1}},
        {"complete": []},
        {"complete": "x"},
    ],
)
@pytest.mark.parametrize("command", [[], ["stats"], ["show"]])
def test_a_checkpoint_with_other_types(
    change: dict[str, Any], command: list[str], copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "checkpoint.json"
    checkpoint = json.loads(path.read_text())
    for name, value in change.items():
        checkpoint[name] = checkpoint[name] | value if isinstance(value, dict) and name != "shards" else value
    path.write_text(json.dumps(checkpoint))
    assert main([str(copy), *command]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: checkpoint.json of") and "is damaged" in said and said.count("\n") == 1


@pytest.mark.parametrize("name", ["model", "dataset", "revision"])
@pytest.mark.parametrize("value", [5, ["a"], {"a": 1}])
@pytest.mark.parametrize("command", [[], ["stats"], ["show"]])
def test_options_that_are_no_texts(
    name: str, value: Any, command: list[str], copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What needs them says so; the rest does without."""
    path = copy / "checkpoint.json"
    checkpoint = json.loads(path.read_text())
    checkpoint["config"][name] = value
    checkpoint["metadata"].pop(name, None)
    path.write_text(json.dumps(checkpoint))
    code = main([str(copy), *command])
    said = capsys.readouterr().err
    assert code == (2 if command == ["show"] and name == "model" else 0), said
    assert not code or (said.startswith("error: ") and said.count("\n") == 1)


@pytest.mark.parametrize("command", [["stats"], ["show"], ["html", "-o", "page.html"]])
def test_a_model_revision_that_is_no_text(
    command: list[str], copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    change_checkpoint(copy, lambda checkpoint: checkpoint["metadata"].update(model_revision=["a"]))
    assert main([str(copy), *command]) == 0


def test_a_folder_that_can_not_be_made(made: Made, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, why in (("/proc/no/such", "can't be made"), (tmp_path / "file", "can't be a folder")):
        with pytest.raises(OutputError, match=why):
            execute_analysis(made.folder, folder)


def test_files_of_others_are_not_replaced(made: Made, tmp_path: Path) -> None:
    execute_analysis(made.folder, tmp_path / "an")
    written = {path.name: path.read_bytes() for path in (tmp_path / "an").iterdir()}
    execute_analysis(made.folder, tmp_path / "an")
    for name in written:
        (tmp_path / "an" / name).write_bytes(b"precious")
        with pytest.raises(OutputError, match=rf"{name} is there already and not from here"):
            execute_analysis(made.folder, tmp_path / "an")
        assert (tmp_path / "an" / name).read_bytes() == b"precious"
        (tmp_path / "an" / name).write_bytes(written[name])


def test_nobody_is_at_home(capsys: pytest.CaptureFixture[str], made: Made) -> None:
    for arguments in (["~nobody-at-all/x"], [str(made.folder), "html", "-o", "~nobody-at-all/x.html"]):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert "home directory" in said and said.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", [[], ["stats"], ["verify", "--no-source"]])
def test_a_result_that_can_not_be_written_is_no_success(command: list[str], made: Made) -> None:
    program = [sys.executable, str(ROOT / "explore_logits.py"), str(made.folder), *command]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 1 and "the disk is full" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("seconds", [0.2, 1.5])
def test_ctrl_c(seconds: float, made: Made, tmp_path: Path) -> None:
    """While the libraries are imported, and while something is under way, or behind all of it."""
    report = [str(made.folder), "report", "-o", str(tmp_path / "report.html")]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "explore_logits.py"), *report],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT, 0) and "Traceback" not in said
    assert process.returncode == 0 or not (tmp_path / "report.html").exists()


def test_a_tokenizer_that_is_not_the_runs_is_told_of(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "checkpoint.json"
    checkpoint = json.loads(path.read_text())
    given = [str(copy), "show", "--tokenizer", checkpoint["config"]["model"]]
    assert main(given) == 0 and "not the one this dataset was made with" not in capsys.readouterr().err
    checkpoint["metadata"]["tokenizer_sha256"] = "0" * 64
    path.write_text(json.dumps(checkpoint))
    assert main(given) == 0 and "not the one this dataset was made with" in capsys.readouterr().err


def test_the_way_from_a_surprise_to_its_conversation(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(made.folder), "stats"]) == 0
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("show --index ")]
    assert main([str(made.folder), "show", "--index", line.split()[2]]) == 0
    first = said.splitlines()[said.splitlines().index("most surprising tokens") + 2]
    assert capsys.readouterr().out.startswith(f"conversation {first.split()[0]}:")
