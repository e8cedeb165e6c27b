"""What the page says of the teacher's own word, against the comparison itself."""

import importlib.util
import shlex
import shutil
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from teacher_logits.command_line.explore import main
from teacher_logits.errors import SettingsError, TeacherError
from teacher_logits.exploring import FidelityReport, compare_with_teacher, dataset_report, fidelity_text
from teacher_logits.exploring.fidelity import compared_text, fidelity_explanation, fidelity_tables, recomputed_text
from teacher_logits.exploring.fidelity.verdict import allowed_rounding
from teacher_logits.exploring.report import content
from tests.exploring.damage import change_checkpoint, relist, shards_of
from tests.exploring.fidelity.test_compare import in_all, shifted
from tests.exploring.parsing import Page, Tables
from tests.exploring.report.conftest import SOME
from tests.exploring.report.test_page import checked
from tests.extraction.runs import Place

HOSTILE = "<script>alert(1)<\u202e"


@pytest.fixture(scope="module")
def found(extracted: Place) -> FidelityReport:
    return compare_with_teacher(extracted.folder, extracted.teacher, SOME, device="cpu")


@pytest.fixture
def output(extracted: Place, tmp_path: Path) -> Path:
    """A copy of the dataset, to be altered."""
    return Path(shutil.copytree(extracted.folder, tmp_path / "output"))


def table_with(html: str, column: str) -> dict[str, list[str]]:
    """The cells of the table that has such a column, by the names of its rows."""
    (rows,) = [table for table in Tables(html).tables if column in table[0]]
    return {row[0]: row[1:] for row in rows[1:]}


def numbers(cells: list[str]) -> list[float]:
    return [float(cell.replace(",", "").split()[0]) for cell in cells]


def test_differences(found: FidelityReport, compared_html: str):
    rows = table_with(compared_html, "bias")
    assert list(rows) == list(found.figures) and len(rows) == 9
    for name, (unit, *sizes, index, position, bias) in rows.items():
        figure = found.figures[name]
        error = figure.error
        assert unit == figure.unit and (int(index), int(position)) == (error.index, error.position)
        wanted = [error.mean, error.median, error.p99, error.worst]
        assert numbers([*sizes, bias]) == pytest.approx([*wanted, figure.bias], rel=0.06)


def test_logits_and_nuclei(found: FidelityReport, compared_html: str):
    rows = table_with(compared_html, "within half a step")
    assert list(rows) == ["nucleus logits", "sampled logits"]
    for name, cells in rows.items():
        steps, size = found.largest_steps[name]
        within, worst, step = numbers(cells)
        assert within == pytest.approx(100 * found.figures[name].within, abs=0.006)
        assert (worst, step) == (pytest.approx(steps, rel=0.01), pytest.approx(size, rel=0.5))
    nuclei = table_with(compared_html, "share of tokens")
    counts = [found.nuclei.same, found.nuclei.tied, found.nuclei.wrong]
    assert [numbers(cells)[0] for cells in nuclei.values()] == counts and sum(counts) == found.entries > 100
    assert sum(numbers(cells)[1] for cells in nuclei.values()) == pytest.approx(100, abs=0.02)
    told = f"They hold {found.mean_mass[0]:.2%} of the probability on average as stored".replace("%", " %")
    assert told in compared_html


def test_costs_and_estimates(found: FidelityReport, compared_html: str):
    (costs,) = [table for table in Tables(compared_html).tables if len(table[0]) == 7 and table[0][5] == "conversation"]
    assert [row[0] for row in costs[1:]] == list(found.costs)
    for row, figure in zip(costs[1:], found.costs.values(), strict=True):
        error = figure.error
        wanted = [error.mean, error.median, error.p99, error.worst]
        assert numbers(row[1:5]) == pytest.approx(wanted, rel=0.06)
    estimates = table_with(compared_html, "z")
    assert list(estimates) == list(found.estimates)
    for name, cells in estimates.items():
        each = found.estimates[name]
        assert numbers(cells[:2]) == pytest.approx([each.estimated, each.exact], rel=1e-4)
        assert numbers(cells[2:]) == [pytest.approx(each.standard_error, rel=0.5), pytest.approx(each.z, abs=0.006)]


def test_the_terminal_tells_the_same(found: FidelityReport, compared_html: str):
    text, page = fidelity_text(found), Tables(compared_html)
    for table in fidelity_tables(found):
        assert [list(table.head), *map(list, table.rows)] in page.tables
        assert table.title in text and all(cell in text for row in table.rows for cell in row)
        assert all(note.split(":")[0][:60] in text for note in table.notes)


def test_verdict_and_explanation(found: FidelityReport, compared_html: str):
    assert found.sound
    page = checked(compared_html)
    assert page.texts["strong"].count("Compared with its teacher: sound.") == 1
    assert page.texts["strong"].count("Verified: all is sound.") == page.texts["strong"].count("Sound.") == 1
    assert page.texts["a"].count("The figures") == page.texts["a"].count("Fidelity") == 1
    told = [" ".join(text.split()) for text in page.texts["verdict"]]
    assert told[0].startswith(f"llama was run again over {compared_text(found)}.")
    assert told[2] == f"{compared_text(found)}, {recomputed_text(found)}."
    counted = f"{SOME} of {found.of} conversations, {found.entries:,} tokens"
    assert told[2].startswith(f"{counted}, recomputed in float32 (as the run was), one conversation at a time")
    allowed = allowed_rounding("float32", "float32")
    assert f"{allowed.mean:g} nats on average, {allowed.worst:g} at worst" in fidelity_explanation(found)
    assert fidelity_explanation(found) in page.texts["p"]
    assert not any("Not compared" in text for text in page.texts["remark"])


def test_a_dataset_that_is_not_what_the_teacher_says(output: Path, extracted: Place):
    in_all(output, shifted("token_logprob", -1e-3))
    page = output.parent / "page.html"
    options = ["--conversations", f"{SOME}", "--device", "cpu", "--no-verify", "-o", str(page)]
    assert main([str(output), "report", "--model", str(extracted.teacher), *options]) == 0
    found = compare_with_teacher(output, extracted.teacher, SOME, device="cpu")
    assert set(found.problems) == {"actual token"}
    told = checked(page.read_text(encoding="utf-8"))
    assert {"Compared with its teacher: NOT sound.", "Not sound.", "Not verified."} <= set(told.texts["strong"])
    assert "What is wrong" in told.texts["a"] and "Sound." not in told.texts["strong"]
    assert [text for text in told.texts["li"] if text in found.problems.values()] == list(found.problems.values())


def test_without_a_model_the_page_names_the_command(
    extracted: Place, html: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    page = Page(html)
    assert "Fidelity" not in page.texts["a"] and "Is it what the teacher says?" not in html
    (command,) = [text for text in page.texts["code"] if "--model" in text]
    assert any(text.startswith("Not compared with its teacher.") for text in page.texts["remark"])
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "path" / "to" / extracted.teacher.name).symlink_to(extracted.teacher)
    (tmp_path / extracted.folder.name).symlink_to(extracted.folder)
    monkeypatch.chdir(tmp_path)
    program, face, *arguments = shlex.split(command)
    assert (program, face) == ("python", "explore_logits.py")
    assert main([*arguments, "--no-verify", "--device", "cpu"]) == 0
    assert "Compared with its teacher: sound." in Path("report.html").read_text(encoding="utf-8")


def test_the_command(extracted: Place, compared_html: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    page = tmp_path / "page.html"
    options = ["--model", str(extracted.teacher), "--conversations", f"{SOME}", "--device", "cpu"]
    assert main([str(extracted.folder), "report", "-o", str(page), *options]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert page.read_text(encoding="utf-8") == compared_html


def test_the_teacher_is_somewhere_else_now(output: Path, extracted: Place, tmp_path: Path):
    """Texts come from its tokenizer, too. Its name stays text, and its path here."""
    change_checkpoint(output, lambda checkpoint: checkpoint["config"].update(model="./gone"))
    teacher = Path(shutil.copytree(extracted.teacher, tmp_path / "models" / HOSTILE))
    html = dataset_report(output, model=teacher, conversations=2, device="cpu", verify=False)
    page = checked(html)
    assert [tag for tag, _ in page.elements].count("script") == 2 and "\u202e" not in html
    assert any("<script>alert(1)<\\u202e was run again over 2 of" in text for text in page.texts["verdict"])
    assert ("id", "conversation") in page.attributes and "could not be loaded" not in html
    assert str(tmp_path) not in html


def test_nothing_to_compare(output: Path, extracted: Place):
    for name in shards_of(output):
        pq.write_table(pq.read_table(output / name).slice(0, 0), output / name)
    relist(output)
    told = checked(dataset_report(output, model=extracted.teacher, device="cpu", verify=False))
    assert (
        "no token was compared" in told.texts["li"] and "Compared with its teacher: NOT sound." in told.texts["strong"]
    )
    assert not any("--model" in text for text in Page(dataset_report(output, verify=False)).texts.get("code", []))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "./nothing"], "There is no folder ./nothing with a model"),
        (["--model", "OTHER"], "is not the model this dataset was made with"),
        (["--model", "TEACHER", "--conversations", "0"], "conversations is 0; expected at least 1"),
        (["--model", "TEACHER", "--device", "abacus"], "--device abacus can't be used here"),
        (["--model", "TEACHER", "--split", "test"], "no split 'test'"),
    ],
)
def test_refusals_before_the_work(
    extracted: Place,
    save_tiny_teacher: Callable[..., Path],
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(content, "compute_dataset_stats", None)
    page = tmp_path / "page.html"
    places = {"TEACHER": str(extracted.teacher)}
    if "OTHER" in options:
        places["OTHER"] = str(save_tiny_teacher(seed=5))
    given = [places.get(word, word) for word in options]
    assert main([str(extracted.folder), "report", "-o", str(page), *given]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and message in said.err and said.err.count("\n") == 1 and not said.out
    assert not page.exists()


@pytest.mark.parametrize("library", ["torch", "transformers"])
def test_without_the_libraries_of_the_teacher(
    extracted: Place, library: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    known = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == library else known(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    page = tmp_path / "page.html"
    for command in (["report", "-o", str(page)], ["compare"]):
        assert main([str(extracted.folder), *command, "--model", str(extracted.teacher)]) == 2
        said = capsys.readouterr().err
        assert f"which needs {library}, and that isn't installed" in said and said.count("\n") == 1
    assert not page.exists()


def test_errors_in_python(extracted: Place, save_tiny_teacher: Callable[..., Path]):
    with pytest.raises(TeacherError, match="not the model"):
        dataset_report(extracted.folder, model=save_tiny_teacher(seed=5), device="cpu")
    with pytest.raises(SettingsError, match="at least 1"):
        dataset_report(extracted.folder, model=extracted.teacher, conversations=0)
