"""`html` and `report` in a terminal."""

from pathlib import Path

import pytest

from explore_logits import get_sample, load_logit_dataset
from teacher_logits.command_line.explore import main
from teacher_logits.exploring import conversation_page, dataset_report
from tests.exploring.made import Made


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "index", "name"),
    [
        ([], 17, "conversation-17.html"),
        (["1"], 123, "conversation-123.html"),
        (["--index", "9", "-o", "page.html"], 9, "page.html"),
        (["0", "--split", "train", "--output-file", "x"], 17, "x"),
    ],
)
def test_html(made: Made, capsys: pytest.CaptureFixture[str], arguments: list[str], index: int, name: str):
    for _ in range(2):  # an earlier page is replaced
        assert main([str(made.folder), "html", *arguments]) == 0
        assert capsys.readouterr().out == f"{name}\n"
        page = conversation_page(get_sample(load_logit_dataset(made.folder), index=index))
        assert Path(name).read_text(encoding="utf-8") == page


def test_html_with_another_tokenizer(made: Made, tiny_teacher: Path):
    assert main([str(made.folder), "html", "-o", "page.html", "--tokenizer", str(tiny_teacher)]) == 0
    assert Path("page.html").read_text() != conversation_page(get_sample(load_logit_dataset(made.folder), 0))


def test_report(made: Made, capsys: pytest.CaptureFixture[str]):
    assert main([str(made.folder), "report", "--no-source"]) == 0
    assert capsys.readouterr().out == "report.html\n"
    report = Path("report.html").read_text(encoding="utf-8")
    assert report == dataset_report(made.folder, look_at_source=False)
    assert main([str(made.folder), "report", "--no-verify", "-o", "report.html"]) == 0
    assert Path("report.html").read_text(encoding="utf-8") == dataset_report(made.folder, verify=False) != report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["html", "4"], "no row 4"),
        (["html", "--index", "4"], "No row has index 4"),
        (["html", "1", "--index", "9"], "not both"),
        (["html", "--tokenizer", "./nothing"], "can't be loaded"),
        (["html", "--split", "test"], "no split 'test'"),
        (["html", "-o", "mine.html"], "mine.html exists and is no page of this program"),
        (["html", "-o", "folder"], "folder is a folder"),
        (["html", "-o", "nowhere/page.html"], "there is no folder nowhere"),
        (["report", "-o", "mine.html"], "mine.html exists and is no page of this program"),
        (["report", "-o", "nowhere/page.html"], "there is no folder nowhere"),
        (["report", "--tokenizer", "./nothing"], "can't be loaded"),
        (["report", "--split", "test"], "no split 'test'"),
    ],
)
def test_errors(made: Made, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str):
    mine = "<!DOCTYPE html><title>My own page about teacher-logits</title>"
    Path("mine.html").write_text(mine)
    Path("folder").mkdir()
    assert main([str(made.folder), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err and captured.out == ""
    assert captured.err.count("\n") == 1
    assert Path("mine.html").read_text() == mine
    assert sorted(path.name for path in Path().iterdir()) == ["folder", "mine.html"]


def test_no_dataset(capsys: pytest.CaptureFixture[str]):
    assert main(["./nowhere", "report"]) == 2
    assert "no folder ./nowhere" in capsys.readouterr().err and not Path("report.html").exists()
