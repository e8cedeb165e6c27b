"""Whole comparisons: what a run stored is found sound, and each alteration is seen in its own figure."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from teacher_logits.command_line.explore import main
from teacher_logits.errors import FormatError, SettingsError, TeacherError
from teacher_logits.exploring import compare_with_teacher, fidelity_text, get_sample
from teacher_logits.exploring.fidelity import FidelityReport
from teacher_logits.exploring.fidelity.compare import spread_places
from teacher_logits.exploring.fidelity.measures import COSTS, ESTIMATES, UNITS
from tests.exploring.damage import Row, change_checkpoint, change_rows, shards_of
from tests.extraction.runs import Place
from tests.tiny import tiny_tokenizer

KINDS = ("float32", "bfloat16")


@pytest.fixture(scope="session")
def runs(tiny_teacher: Path, tiny_chat: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Place]:
    """A run by type, in padded batches. Not to be changed."""
    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        found[kind] = Place(tiny_teacher, tiny_chat, folder / "logits", folder / "cache")
        found[kind].run(dtype=kind, top_p_max_elements=30, sampled_n=8)
    return found


@pytest.fixture(params=KINDS)
def output(request: pytest.FixtureRequest, runs: dict[str, Place], tmp_path: Path) -> Path:
    """A copy of the output of each, to be altered."""
    return Path(shutil.copytree(runs[request.param].folder, tmp_path / "output"))


@pytest.fixture
def output32(runs: dict[str, Place], tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs["float32"].folder, tmp_path / "output"))


def compared(folder: Path, teacher: Path, **options: Any) -> FidelityReport:
    return compare_with_teacher(folder, teacher, **({"conversations": 100, "device": "cpu"} | options))


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_run_stored_is_sound(runs: dict[str, Place], kind: str):
    place = runs[kind]
    report = compared(place.folder, place.teacher)
    checkpoint = place.checkpoint
    assert report.problems == {} and report.sound and report.differences == ()
    assert (report.run_dtype, report.dtype) == (kind, kind)
    assert (report.conversations, report.of, report.entries) == (30, 30, checkpoint["total_tokens"])
    assert set(report.figures) == set(UNITS) and set(report.costs) == set(COSTS)
    assert report.nuclei.same + report.nuclei.tied == report.entries
    assert report.nuclei.same > 0.8 * report.entries
    assert report.figures["nucleus logits"].count == sum(
        sum(get_sample(place.folder, number)["top_counts"].tolist()) for number in range(30)
    )
    assert report.figures["nucleus logits"].within > 0.7
    worst = report.figures["logsumexp"].error
    assert worst.mean <= worst.worst and worst.median <= worst.p99 <= worst.worst
    text = fidelity_text(report)
    assert text.endswith(": sound") and "recomputed in" in text and all(name in text for name in (*UNITS, *ESTIMATES))


def test_the_same_logits_leave_nothing_but_the_formats_own_rounding(
    tiny_teacher: Path, tiny_chat: Path, tmp_path: Path
):
    for kind in KINDS:
        place = Place(tiny_teacher, tiny_chat, tmp_path / kind, tmp_path / f"{kind}-cache")
        place.run(dtype=kind, max_batch_size=1, limit=8)
        report = compared(place.folder, tiny_teacher)
        assert report.sound and report.nuclei.same == report.entries
        assert report.figures["extreme logits"].error.worst == 0
        for name in ("logsumexp", "logsumexp_t2", "logsumexp_t4", "actual token", "nucleus logits", "sampled logits"):
            assert report.figures[name].beyond.worst < 1e-9 and report.figures[name].within > 0.999, name
        assert max(steps for steps, _ in report.largest_steps.values()) <= (0.51 if kind == "float32" else 1)


def test_other_types_and_settings(runs: dict[str, Place], tiny_teacher: Path, tiny_chat: Path, tmp_path: Path):
    report = compared(runs["bfloat16"].folder, tiny_teacher, dtype="float32", conversations=9)
    assert report.sound and (report.run_dtype, report.dtype, report.conversations) == ("bfloat16", "float32", 9)
    assert report.figures["extreme logits"].error.mean > 1e-3
    assert "recomputed in float32 (the run was in bfloat16)" in fidelity_text(report)
    for number, options in enumerate(({"top_p": 1.0, "top_p_max_elements": 5}, {"vocab_limit": 380}, {"top_p": 0.5})):
        place = Place(tiny_teacher, tiny_chat, tmp_path / f"{number}", tmp_path / f"{number}-cache")
        place.run(limit=4, sampled_n=3, **options)
        assert compared(place.folder, tiny_teacher).problems == {}


def test_tokens_that_are_not_stored(tiny_teacher: Path, tiny_chat: Path, tmp_path: Path, runs: dict[str, Place]):
    place = Place(tiny_teacher, tiny_chat, tmp_path / "logits", tmp_path / "cache")
    place.run(store_tokens=False, dtype="float32", top_p_max_elements=30, sampled_n=8)
    found, wanted = compared(place.folder, tiny_teacher), compared(runs["float32"].folder, tiny_teacher)
    assert found.sound and found.figures == wanted.figures


def test_tokens_that_are_not_stored_of_a_source_that_moved(
    tiny_teacher: Path, tiny_chat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = Path(shutil.copy(tiny_chat, tmp_path / "chat.jsonl"))
    place = Place(tiny_teacher, data, tmp_path / "logits", tmp_path / "cache")
    place.run(store_tokens=False, limit=4)
    now = str(data.rename(tmp_path / "moved.jsonl"))
    assert compared(place.folder, tiny_teacher, dataset=now).entries
    page = ["-o", str(tmp_path / "report.html"), "--no-verify"]
    for command in (
        [str(place.folder), "compare"],
        ["compare", str(place.folder)],
        [str(place.folder), "report", *page],
    ):
        given = [*command, "--model", str(tiny_teacher)]
        assert main(given) == 2
        assert "say where it is now" in (said := capsys.readouterr().err) and "--dataset in a terminal" in said
        assert main([*given, "--dataset", now]) == 0
    assert "what the teacher says" in (tmp_path / "report.html").read_text()


def test_a_spread_of_conversations(runs: dict[str, Place], tiny_teacher: Path):
    place = runs["float32"]
    reports = [compared(place.folder, tiny_teacher, conversations=6, seed=seed) for seed in (1, 1, 2)]
    assert reports[0] == reports[1] != reports[2]
    assert spread_places(7, 10, 0) == list(range(7)) and spread_places(0, 3, 0) == []
    for seed in range(20):
        places = spread_places(1000, 10, seed)
        assert [place // 100 for place in places] == list(range(10))
    assert len({tuple(spread_places(1000, 10, seed)) for seed in range(20)}) == 20
    with pytest.raises(SettingsError, match="at least 1"):
        compared(place.folder, tiny_teacher, conversations=0)


def test_a_conversation_alone_is_sound(runs: dict[str, Place], tiny_teacher: Path):
    """Few numbers are judged by more than chance."""
    reports = [compared(runs["bfloat16"].folder, tiny_teacher, conversations=1, seed=seed) for seed in range(12)]
    assert [report.problems for report in reports] == [{}] * 12


def in_all(folder: Path, change: Callable[[Row], Any]) -> None:
    """Change each row of all shards."""
    for number in range(len(shards_of(folder))):
        change_rows(folder, lambda rows: [change(row) for row in rows] and rows, number)


def numbers(row: Row, column: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    row[column] = change(np.array(row[column])).tolist()


def inner_steps(row: Row) -> None:
    """Every nucleus logit but the first and the last a step higher."""
    numbers(row, "top_logits_quantized", lambda q: np.where((q > 0) & (q < 65535), np.minimum(q + 1, 65534), q))


def trade_ids(row: Row) -> None:
    """The first two ids of nuclei that have several."""
    ids = np.array(row["top_indices_low"])  # the tiny vocabulary needs no more bits
    first = np.cumsum([0, *row["top_counts"][:-1]])[np.array(row["top_counts"]) > 1]
    ids[first], ids[first + 1] = ids[first + 1].copy(), ids[first].copy()
    row["top_indices_low"] = ids.tolist()


def renormalise(row: Row) -> None:
    """Move the samples' logits so that their probabilities sum to that of the tail."""
    n = row["num_tokens"]
    low, high, lse = (np.array(row[name]) for name in ("sampled_min", "sampled_max", "logsumexp"))
    q = np.array(row["sampled_logits_quantized"]).reshape(n, -1)
    drawn = np.exp(low[:, None] + q / 65535 * (high - low)[:, None] - lse[:, None]).sum(1)
    counts = row["top_counts"]
    entry = np.arange(n).repeat(counts)
    least, most = np.array(row["top_min"])[entry], np.array(row["top_max"])[entry]
    top = np.exp(least + np.array(row["top_logits_quantized"]) / 65535 * (most - least) - lse[entry])
    tail = np.maximum(1 - np.bincount(entry, top, minlength=n), 1e-12)
    for name, values in (("sampled_min", low), ("sampled_max", high)):
        row[name] = (values + np.log(tail / drawn)).tolist()


def shifted(column: str, by: float) -> Callable[[Row], None]:
    return lambda row: numbers(row, column, lambda values: values + by)


def one_entry(column: str, by: float) -> Callable[[Row], None]:
    """In conversation 4 alone, at its first entry."""

    def change(row: Row) -> None:
        if row["index"] == 4:
            row[column][0] += by

    return change


@pytest.mark.parametrize(
    ("change", "seen", "unseen"),
    [
        (inner_steps, {"nucleus logits"}, {"sampled logits", "logsumexp", "actual token", "extreme logits", "nuclei"}),
        (shifted("logsumexp", 1e-3), {"logsumexp", "nucleus mass", "tail mass"}, {"logsumexp_t2", "nuclei"}),
        (shifted("logsumexp_t2", 1e-3), {"logsumexp_t2"}, {"logsumexp", "logsumexp_t4", "nucleus mass"}),
        (shifted("logsumexp_t4", -1e-3), {"logsumexp_t4"}, {"logsumexp_t2", "actual token"}),
        (shifted("token_logprob", -1e-3), {"actual token"}, {"logsumexp", "nucleus mass"}),
        (one_entry("logsumexp", 0.05), {"logsumexp"}, {"logsumexp_t4", "nuclei", "actual token"}),
        (trade_ids, {"extreme logits", "nucleus logits", "nuclei"}, {"sampled logits", "logsumexp", "actual token"}),
        (renormalise, {"sampled logits", "extreme logits"}, {"nucleus logits", "logsumexp", "nuclei"}),
    ],
    ids=["step", "logsumexp", "t2", "t4", "token", "one-entry", "ids", "renormalised"],
)
def test_alterations_are_seen_in_their_figure(
    output32: Path, tiny_teacher: Path, change: Callable[[Row], None], seen: set[str], unseen: set[str]
):
    in_all(output32, change)
    report = compared(output32, tiny_teacher)
    assert not report.sound
    assert seen <= set(report.problems) and not unseen & set(report.problems), report.problems
    text = fidelity_text(report)
    assert text.endswith("NOT sound, see above") and text.count("wrong: ") == len(report.problems)
    if len(seen) == 1 and "logsumexp" in seen:
        assert report.figures["logsumexp"].error.index == 4
        assert report.figures["logsumexp"].error.position == get_sample(output32, index=4)["positions"][0]


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (shifted("logsumexp", 0.5), "logsumexp"),
        (shifted("token_logprob", 1.0), "actual token"),
        (trade_ids, "extreme logits"),
        (shifted("sampled_max", 2.0), "sampled logits"),
    ],
    ids=["logsumexp", "token", "ids", "samples"],
)
def test_coarse_alterations_are_seen_in_any_type(
    output: Path, tiny_teacher: Path, change: Callable[[Row], None], seen: str
):
    in_all(output, change)
    assert seen in compared(output, tiny_teacher).problems


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("column", "figure"),
    [("token_logprob", "actual token"), ("logsumexp_t2", "logsumexp_t2"), ("logsumexp_t4", "logsumexp_t4")],
)
def test_what_is_no_number_is_not_sound(output: Path, tiny_teacher: Path, column: str, figure: str, number: float):
    def change(rows: list[Row]) -> None:
        rows[1][column][2] = number

    change_rows(output, change)
    row = get_sample(output, 1)
    report = compared(output, tiny_teacher)
    assert set(report.problems) == {figure}
    assert f"conversation {row['index']}, position {row['positions'][2]}" in report.problems[figure]
    assert fidelity_text(report)


def test_positions_that_are_one_off(output: Path, tiny_teacher: Path):
    in_all(output, lambda row: numbers(row, "positions", lambda places: places - 1))
    found = set(compared(output, tiny_teacher).problems)
    assert {"extreme logits", "nuclei", "logsumexp", "actual token"} <= found


def test_another_model(output: Path, save_tiny_teacher: Callable[..., Path], tmp_path: Path):
    other = save_tiny_teacher(seed=5)
    with pytest.raises(TeacherError, match=r"not the model .* Different: model_content \(stored .*any_model=True"):
        compared(output, other)
    report = compared(output, other, any_model=True)
    assert "extreme logits" in report.problems and "nuclei" in report.problems
    assert fidelity_text(report).startswith("NOT the model of this dataset: model_content (stored ")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["river"])
    with pytest.raises(TeacherError, match=r"Different: tokenizer_sha256 \("):
        compared(output, save_tiny_teacher(), tokenizer=tokenizer)
    assert compared(output, save_tiny_teacher(), tokenizer=tokenizer, any_model=True).sound
    small = save_tiny_teacher(vocabulary=384)
    assert not compared(output, small, any_model=True).sound


def test_weights_that_changed_a_little(output32: Path, tiny_teacher: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_teacher, tmp_path / "teacher"))
    weights = load_file(folder / "model.safetensors")
    name = "model.norm.weight"
    save_file({**weights, name: weights[name] * 1.0005}, folder / "model.safetensors", {"format": "pt"})
    report = compared(output32, folder, any_model=True)
    assert "extreme logits" in report.problems and 1e-4 < report.figures["extreme logits"].error.mean < 0.1


def test_a_teacher_that_gives_no_numbers(output32: Path, tiny_teacher: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_teacher, tmp_path / "teacher"))
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][7] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    report = compared(output32, folder, any_model=True)
    assert "NaN" in report.problems["not finite"] and "no token was compared" in report.problems["nothing"]
    assert "NOT sound" in fidelity_text(report)


def test_what_cannot_be_compared(output32: Path, tiny_teacher: Path):
    change_rows(output32, lambda rows: rows[0]["positions"].__setitem__(0, 0))
    with pytest.raises(FormatError, match="is damaged: its positions"):
        compared(output32, tiny_teacher)
    for values, message in (
        ({"vocab_used": None}, "doesn't tell vocab_used"),
        ({"vocab_used": "many"}, "which is no number of tokens"),
        ({"model_dtype": "int8"}, "model_dtype 'int8'"),
        ({"top_p": "all"}, "no probability"),
    ):
        change_checkpoint(output32, lambda checkpoint, new=values: checkpoint["metadata"].update(new))
        with pytest.raises(FormatError, match=message):
            compared(output32, tiny_teacher)
        change_checkpoint(
            output32,
            lambda checkpoint: checkpoint["metadata"].update(vocab_used=400, model_dtype="float32", top_p=0.98),
        )


def test_without_checkpoint(output32: Path, tiny_teacher: Path):
    """A shard's own metadata is enough."""
    (output32 / "checkpoint.json").unlink()
    assert compared(output32, tiny_teacher).sound
