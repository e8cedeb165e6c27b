"""The numbers: each impossible one is named with its conversation, and what sound runs store never is."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from teacher_logits.codec import Contents, encode_rows
from teacher_logits.exploring import verify_dataset
from teacher_logits.exploring.verifying.structure import Bounds, row_faults
from teacher_logits.exploring.verifying.values import entry_faults
from teacher_logits.records import Example, JoinedExamples
from teacher_logits.sampling import SamplingSettings, sample
from tests.exploring.damage import Row, change_rows, change_table, problems_of
from tests.extraction.runs import Place


@pytest.fixture(scope="session")
def verified(tiny_teacher: Path, tiny_chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run of nine conversations in two shards. Not to be changed."""
    folder = tmp_path_factory.mktemp("values")
    Place(tiny_teacher, tiny_chat, folder / "logits", folder / "cache").run(limit=9, top_p_max_elements=20, sampled_n=6)
    return folder / "logits"


@pytest.fixture
def output(verified: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(verified, tmp_path / "output"))


def wide(row: Row, least: int = 3) -> int:
    """An entry with at least so many tokens in its nucleus."""
    return next(place for place, count in enumerate(row["top_counts"]) if count >= least)


def start(row: Row, entry: int) -> int:
    """Where its nucleus begins in the row."""
    return sum(row["top_counts"][:entry])


def at(column: str, value: Any) -> Callable[[Row], None]:
    """Another value at entry 1: a number, or what a function makes of the old one."""

    def change(row: Row) -> None:
        row[column][1] = value(row[column][1]) if callable(value) else value

    return change


def swapped(row: Row) -> None:
    entry = wide(row)
    row["top_min"][entry], row["top_max"][entry] = row["top_max"][entry], row["top_min"][entry]


def rising(row: Row) -> None:
    place, quantized = start(row, wide(row, 4)), row["top_logits_quantized"]
    quantized[place + 1], quantized[place + 2] = quantized[place + 2], quantized[place + 1]


def twice_in_nucleus(row: Row) -> None:
    place = start(row, wide(row))
    row["top_indices_low"][place + 2] = row["top_indices_low"][place + 1]


def twice_in_sample(row: Row) -> None:
    row["sampled_indices_low"][6 * wide(row) + 4] = row["sampled_indices_low"][6 * wide(row)]


def repeated_at_the_end(row: Row) -> None:
    row["sampled_indices_low"][6 * wide(row) + 5] = row["sampled_indices_low"][6 * wide(row) + 4]


def sampled_from_nucleus(row: Row) -> None:
    row["sampled_indices_low"][6 * wide(row) + 2] = row["top_indices_low"][start(row, wide(row))]


def beyond_the_vocabulary(row: Row) -> None:
    row["sampled_indices_low"][6 + 2] = 400


def high_bits(row: Row) -> None:
    row["top_indices_high"] = b"\x01" + row["top_indices_high"][1:]


def same_positions(row: Row) -> None:
    row["positions"][2] = row["positions"][1]


def first_position(row: Row) -> None:
    row["positions"][0] = 0


def beyond_the_text(row: Row) -> None:
    row["positions"][-1] = len(row["input_ids"])


def foreign_text(row: Row) -> None:
    row["input_ids"][0] = 400


def moved_text(row: Row) -> None:
    """Every entry with the token before its own: an alignment that is off by one."""
    row["positions"] = [position - 1 for position in row["positions"]]


def narrower_samples(row: Row) -> None:
    row["sampled_max"] = [largest - 1e-2 for largest in row["sampled_max"]]


def lower_logits(row: Row) -> None:
    entry = wide(row)
    row["top_min"][entry], row["top_max"][entry] = row["top_min"][entry] - 1, row["top_max"][entry] - 1


DAMAGES = {
    "a NaN": (at("logsumexp", math.nan), ["logsumexp is not finite"]),
    "infinite": (at("logsumexp_t4", math.inf), ["logsumexp_t4 is not finite"]),
    "infinite t2": (at("logsumexp_t2", -math.inf), ["logsumexp_t2 is not finite"]),
    "top_min": (at("top_min", -math.inf), ["top_min is not finite"]),
    "top_max": (at("top_max", math.nan), ["top_max is not finite"]),
    "sampled_min": (at("sampled_min", math.nan), ["sampled_min is not finite"]),
    "sampled_max": (at("sampled_max", math.inf), ["sampled_max is not finite"]),
    "token_logprob": (at("token_logprob", math.nan), ["token_logprob is no log-probability"]),
    "below all": (at("token_logprob", -1e38), ["token_logprob is below what a token can have"]),
    "just below all": (
        at("token_logprob", -700 - math.log(400) - 0.01),
        ["token_logprob is below what a token can have"],
    ),
    "swapped": (swapped, ["top_min is above top_max"]),
    "sampled swapped": (at("sampled_max", -1000.0), ["sampled_min is above sampled_max"]),
    "t2": (at("logsumexp_t2", lambda old: old + 50), ["logsumexp_t2 can't be the sum over logits up to top_max"]),
    "t4": (at("logsumexp_t4", lambda old: old - 50), ["logsumexp_t4 can't be the sum over logits up to top_max"]),
    "rising": (rising, ["the nucleus' logits don't fall from top_max to top_min"]),
    "twice": (twice_in_nucleus, ["a token stands twice in the nucleus"]),
    "sampled twice": (twice_in_sample, ["a token stands twice in the sample"]),
    "no end": (repeated_at_the_end, ["the last token is repeated though there are others to draw"]),
    "overlap": (sampled_from_nucleus, ["a sampled token is in the nucleus"]),
    "vocabulary": (beyond_the_vocabulary, ["a token id is not below vocab_used, 400"]),
    "high bits": (high_bits, ["a token id is not below vocab_used, 400"]),
    "same positions": (same_positions, ["positions don't rise from 1 on inside input_ids"]),
    "position 0": (first_position, ["positions don't rise from 1 on inside input_ids"]),
    "beyond": (beyond_the_text, ["positions don't rise from 1 on inside input_ids"]),
    "foreign text": (foreign_text, ["an id of input_ids is below 0, or not below 400"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_can_not_be(output: Path, damage: str):
    change, expected = DAMAGES[damage]
    indices = []

    def change_one(rows: list[Row]) -> None:
        indices.append(rows[1]["index"])
        change(rows[1])

    name = change_rows(output, change_one)
    lines = [line.removeprefix(f"{name}, conversation {indices[0]}: ") for line in problems_of(output)]
    # The text's own token may be the one that was changed.
    own = ("token_logprob is above", "token_logprob is not what")
    assert [line.split(" (at ")[0] for line in lines if not line.startswith(own)] == expected, lines
    assert " of " in lines[0].split(" (at ")[1] and lines[0].endswith(" tokens)")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (at("token_logprob", 0.5), "token_logprob is no log-probability"),
        (at("token_logprob", -1e-9), "token_logprob is "),
        (at("logsumexp", lambda old: old + 3), "the nucleus has less than top_p, 0.98, and is not at the cap"),
        (at("logsumexp", lambda old: old - 3), "logsumexp can't be the sum over logits up to top_max"),
        (at("logsumexp", lambda old: old - 3), "the nucleus has a probability above 1"),
        (at("sampled_max", 1000.0), "a sampled logit is above the nucleus"),
        (narrower_samples, "token_logprob is not what the sample says of the token"),
        (lower_logits, "the nucleus has less than top_p"),
        (moved_text, "token_logprob is not what the nucleus says of the token"),
    ],
    ids=range(9),
)
def test_numbers_that_do_not_belong_together(output: Path, change: Callable[[Row], None], expected: str):
    """They break more than one law at a time."""

    def change_all(rows: list[Row]) -> None:
        for row in rows:
            change(row)

    name = change_rows(output, change_all)
    found = problems_of(output)
    assert found and all(line.startswith(f"{name}, conversation ") for line in found)
    assert any(f": {expected}" in line for line in found), found


@pytest.mark.parametrize(
    ("column", "length", "what"),
    [
        ("top_min", -1, "top_min has not the length that belongs to the row"),
        ("token_logprob", -1, "token_logprob has not the length that belongs to the row"),
        ("positions", -1, "positions has not the length that belongs to the row"),
        ("logsumexp", 0, "logsumexp has not the length that belongs to the row"),
        ("sampled_indices_low", -6, "sampled_indices_low has not the length that belongs to the row"),
        ("top_logits_quantized", -1, "top_logits_quantized has not the length that belongs to the row"),
        ("sampled_indices_high", -1, "sampled_indices_high has not the length that belongs to the row"),
    ],
)
def test_lengths(output: Path, column: str, length: int, what: str):
    def cut(rows: list[Row]) -> None:
        rows[2][column] = rows[2][column][:length]
        indices.append(rows[2]["index"])

    indices: list[int] = []
    name = change_rows(output, cut)
    assert problems_of(output) == [f"{name}, conversation {indices[0]}: {what}"]


def test_counts_that_can_not_be(output: Path):
    def change(rows: list[Row]) -> None:
        entry = wide(rows[0], 6)
        rows[0]["top_counts"][entry : entry + 1] = [0]
        rows[1]["top_counts"][0] = 21
        rows[2]["num_tokens"] += 1
        indices.extend(row["index"] for row in rows[:3])

    indices: list[int] = []
    name = change_rows(output, change)
    found = problems_of(output)
    for index in indices[:2]:
        assert f"{name}, conversation {index}: a nucleus has not 1 to 20 tokens" in found
    assert f"{name}, conversation {indices[2]}: top_counts has not the length that belongs to the row" in found
    assert all(any(f"conversation {index}: " in line for index in indices) for line in found), "the others are sound"


@pytest.mark.parametrize("value", [None, [None]])
def test_nulls(output: Path, value: Any):
    def change(rows: list[Row]) -> None:
        rows[3]["logsumexp"] = value and [*rows[3]["logsumexp"][:-1], None]
        indices.append(rows[3]["index"])

    indices: list[int] = []
    name = change_rows(output, change)
    found = problems_of(output)
    assert found[0] == f"{name}, conversation {indices[0]}: logsumexp has nulls"
    assert all(line.startswith(f"{name}, conversation {indices[0]}: logsumexp has") for line in found)


def test_an_index_that_is_null(output: Path):
    def change(table: pa.Table) -> pa.Table:
        numbers = [None, *table["index"].to_pylist()[1:]]
        return table.set_column(0, "index", pa.array(numbers, pa.int32()))

    name = change_table(output, change)
    assert f"{name}, conversation -1: index has nulls" in problems_of(output)


def test_many_conversations_are_counted(output: Path):
    def change(rows: list[Row]) -> list[Row]:
        more = [{**rows[0], "index": 1000 + number} for number in range(30)]
        for row in more:
            row["logsumexp_t2"] = [math.nan] * row["num_tokens"]
        return more

    change_rows(output, change)
    found = problems_of(output, look_at_source=False)
    assert len(found) == 21 and found[-1] == "and 10 more: conversations where logsumexp_t2 is not finite"


SOUND = {
    "as usual": {},
    "vocabulary to the tokenizer": {"vocab_limit": "tokenizer"},
    "fewer tokens than the text has": {"vocab_limit": 90, "top_p_max_elements": 40, "sampled_n": 8},
    "always the cap": {"top_p": 1.0, "top_p_max_elements": 255},
    "all but a few tokens": {"vocab_limit": 90, "top_p": 1.0, "top_p_max_elements": 80, "sampled_n": 9},
    "one token": {"top_p_max_elements": 1},
    "one of each": {"top_p_max_elements": 1, "sampled_n": 1},
    "nearly all": {"top_p": 0.9999999, "top_p_max_elements": 200},
    "without tokens": {"store_tokens": False},
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16", "top_p": 1.0},
    "without end tokens": {"exclude_end_tokens": True},
    "a part": {"limit": 7, "start_offset": 3, "random_sample": True},
    "subjects": {"subject_col": "subject", "sample_subject": {"maths": 3, "*": 2}},
}


@pytest.mark.parametrize("options", SOUND.values(), ids=SOUND)
def test_sound_runs(tiny_teacher: Path, tiny_chat: Path, tmp_path: Path, options: dict[str, Any]):
    place = Place(tiny_teacher, tiny_chat, tmp_path / "logits", tmp_path / "cache")
    place.run(**{"limit": 12, **options})
    found = verify_dataset(place.folder)
    assert (found.problems, found.notes) == ([], [])


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("gemma2", {}),
        ("qwen3", {}),
        ("mixtral", {}),
        ("gpt2", {}),
        ("cohere", {}),
        ("llama", {"spread": 400.0}),
        ("llama", {"spread": 0.1}),
        ("llama", {"vocabulary": 70_000, "spread": 3.0}),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sound_teachers(
    save_tiny_teacher: Callable[..., Path],
    tiny_messages: Path,
    tmp_path: Path,
    architecture: str,
    options: dict[str, Any],
    dtype: str,
):
    """Also logits a thousand apart, and such as hardly differ."""
    place = Place(save_tiny_teacher(architecture, **options), tiny_messages, tmp_path / "logits", tmp_path / "cache")
    place.run(limit=8, dtype=dtype)
    found = verify_dataset(place.folder)
    assert (found.problems, found.notes) == ([], [])


@pytest.mark.parametrize("finite", [1, 2, 5, 6, 7, 14, 15, 50])
@pytest.mark.parametrize("top_p", [0.5, 0.98, 1.0])
@pytest.mark.parametrize("sampled_n", [1, 9])
def test_tails_that_run_out(finite: int, top_p: float, sampled_n: int):
    """The last draw stands for those that are lacking, the nucleus' last token where there is no tail at all."""
    entries, width, cap = 40, 64, 6
    generator = torch.Generator().manual_seed(finite)
    logits = torch.full((entries, width), -torch.inf)
    for row in logits:
        chosen = torch.randperm(width, generator=generator)[:finite]
        row[chosen] = torch.randn(finite, generator=generator) * 40
    ids = torch.randint(0, width, (entries + 1,), generator=generator)
    positions = torch.arange(1, entries + 1)
    settings = SamplingSettings(top_p, cap, sampled_n, 42, width)
    kept = sample(logits, ids[1:], torch.full_like(positions, 3), positions, settings)
    example = Example(3, ids.numpy().astype(np.int32), positions.numpy().astype(np.int32))
    table = encode_rows(kept, JoinedExamples.of([example]), Contents(True))
    bounds = Bounds(width, width, top_p, cap, sampled_n)
    assert not [what for what, rows in row_faults(table, bounds) if rows.any()]
    assert not [what for what, faulty in entry_faults(table, bounds) if faulty.any()]
