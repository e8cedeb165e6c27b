"""Statistics and plots as files and on the terminal."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explore_logits import (
    compute_dataset_stats,
    execute_analysis,
    load_extraction_config,
    load_logit_dataset,
    print_dataset_stats,
    quick_explore,
)
from teacher_logits.command_line.explore import main
from teacher_logits.errors import FormatError, OutputError, SettingsError
from teacher_logits.exploring import (
    bytes_per_token_text,
    compute_bytes_per_token_stats,
    conversation_text,
    dataset_stats_text,
    open_source,
    read_sample,
    summarize,
    summary_text,
)
from teacher_logits.exploring.entropy import entropy_bounds
from tests.exploring.damage import change_checkpoint
from tests.exploring.made import TEXTS, Made

PNG = b"\x89PNG\r\n"
OF_THE_DATASET = ["dataset-nucleus-sizes.png", "dataset-entropy.png"]


def of_a_conversation(index: int, token: str) -> list[str]:
    names = ["nucleus-sizes", "entropy", f"{token}-distribution", f"{token}-nucleus-and-draws"]
    return [f"conversation-{index}-{name}.png" for name in names]


def least_certain(made: Made, place: int) -> str:
    sample = read_sample(open_source(made.folder), place=place)
    entry = int(np.argmax(entropy_bounds(sample)[0]))
    return f"position-{sample['positions'][entry]}" if "positions" in sample else f"token-{entry}"


def test_stats(made: Made, capsys: pytest.CaptureFixture[str]):
    assert main([str(made.folder), "stats", "--surprising", "3"]) == 0
    stats = compute_dataset_stats(made.folder, surprising=3)
    stored = compute_bytes_per_token_stats(made.folder)
    wanted = dataset_stats_text(stats, made.tokenizer) + "\n\n" + bytes_per_token_text(stored) + "\n"
    assert capsys.readouterr().out == wanted


def test_stats_without_a_tokenizer(copy: Path, capsys: pytest.CaptureFixture[str]):
    change_checkpoint(copy, lambda checkpoint: checkpoint["config"].update(model="./gone"))
    assert main([str(copy), "stats"]) == 0
    assert "  id " in capsys.readouterr().out.split("most surprising tokens")[1]


@pytest.mark.parametrize(
    ("arguments", "place", "entry"),
    [([], 0, None), (["--index", "123"], 1, 2), (["2"], 2, -1)],
)
def test_plots(
    made: Made,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    place: int,
    entry: int | None,
):
    folder = tmp_path / "a" / "b"
    chosen = least_certain(made, place)
    if entry is not None:
        position = read_sample(open_source(made.folder), place=place)["positions"][entry]
        chosen, arguments = f"position-{position}", [*arguments, "--position", str(position)]
    assert main([str(made.folder), "plots", "-o", str(folder), *arguments, "--theme", "dark"]) == 0
    names = OF_THE_DATASET + of_a_conversation(list(TEXTS)[place], chosen)
    assert capsys.readouterr().out.splitlines() == [str(folder / name) for name in names]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert all((folder / name).read_bytes().startswith(PNG) for name in names)


def test_execute_analysis(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    written = execute_analysis(made.folder)
    pictures = OF_THE_DATASET + of_a_conversation(17, least_certain(made, 0))
    assert written == [Path("logits-analysis", name) for name in ["statistics.txt", "statistics.json", *pictures]]
    stats = compute_dataset_stats(made.folder)
    text = written[0].read_text()
    assert text.startswith(dataset_stats_text(stats, made.tokenizer)) and "sampled_indices_low" in text
    figures = json.loads(written[1].read_text())
    assert stats.surprise is not None
    assert figures["surprise"]["perplexity"] == stats.surprise.perplexity
    assert figures["nucleus"]["histogram"] == stats.nucleus.histogram.tolist()
    assert figures["mass"]["4"]["percentiles"]["50"] == stats.mass[4].median
    assert figures["bytes"]["per_token"] == compute_bytes_per_token_stats(made.folder).per_token
    assert figures["lengths"]["mean"] == stats.lengths.mean and "run" not in figures
    assert [path.exists() for path in written] == [True] * len(written)
    assert execute_analysis(made.folder, tmp_path / "again", theme="dark")[0] == tmp_path / "again/statistics.txt"


def test_a_token_where_positions_are_not_stored(tokenless: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """It is called by its number."""
    plots = [str(tokenless.folder), "plots", "-o", str(tmp_path)]
    assert main([*plots, "--position", "2"]) == 0
    index = read_sample(open_source(tokenless.folder), place=0)["index"]
    assert {path.name for path in tmp_path.iterdir()} == {*OF_THE_DATASET, *of_a_conversation(index, "token-2")}
    assert main([*plots, "--position", "9999"]) == 2
    assert "has no stored token 9999: it has " in capsys.readouterr().err


def test_opened_datasets(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Everything but what only files can tell."""
    monkeypatch.chdir(tmp_path)
    for streaming in (False, True):
        dataset = load_logit_dataset(made.folder, streaming=streaming)
        assert quick_explore(dataset, place=1) is dataset
        written = execute_analysis(dataset)
        assert [path.parent for path in written] == [Path("analysis")] * len(written)
        wanted = {"statistics.txt", "statistics.json", *OF_THE_DATASET, *of_a_conversation(17, least_certain(made, 0))}
        assert {path.name for path in written} == wanted
        figures = json.loads(written[1].read_text())
        assert figures["nucleus"]["histogram"] == compute_dataset_stats(made.folder).nucleus.histogram.tolist()


@pytest.mark.parametrize("use", [load_logit_dataset, load_extraction_config])
def test_what_needs_an_address(use: Callable[[Any], Any], made: Made):
    with pytest.raises(FormatError, match="Expected a folder or the id of a Hub dataset, and got a Dataset"):
        use(load_logit_dataset(made.folder))
    with pytest.raises(FormatError, match="neither a folder that exists nor the id"):
        use("long " * 1000)


def test_where_nothing_can_be_written(made: Made, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="there is a file of that name"):
            execute_analysis(made.folder, place)
    with pytest.raises(SettingsError, match="no theme"):
        execute_analysis(made.folder, tmp_path / "unused", theme="blue")
    assert not (tmp_path / "unused").exists()


def test_quick_explore(made: Made, capsys: pytest.CaptureFixture[str], no_colours: None):
    dataset = quick_explore(made.folder, place=1)
    source = open_source(made.folder)
    wanted = [
        summary_text(summarize(source)),
        conversation_text(read_sample(source, place=1), made.tokenizer),
        dataset_stats_text(compute_dataset_stats(source), made.tokenizer),
        bytes_per_token_text(compute_bytes_per_token_stats(source)),
    ]
    assert capsys.readouterr().out == "\n\n".join(wanted) + "\n"
    assert dataset["index"][:] == list(TEXTS)


def test_quick_explore_without_tokens(tokenless: Made, capsys: pytest.CaptureFixture[str]):
    quick_explore(tokenless.folder)
    assert "samples a token" in capsys.readouterr().out


def test_print_dataset_stats(made: Made, capsys: pytest.CaptureFixture[str]):
    stats = compute_dataset_stats(made.folder)
    for given in (stats, made.folder, load_logit_dataset(made.folder)):
        print_dataset_stats(given)
        assert capsys.readouterr().out == dataset_stats_text(stats, made.tokenizer) + "\n"
