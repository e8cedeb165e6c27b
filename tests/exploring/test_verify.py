"""Files, lists and counts: each damage is named, and nothing else; what is sound has no problem."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from teacher_logits.command_line.explore import main
from teacher_logits.errors import FormatError
from teacher_logits.exploring import dataset_report, verification_text, verify_dataset
from tests.exploring.damage import (
    change_checkpoint,
    change_metadata,
    change_rows,
    change_table,
    problems_of,
    read_checkpoint,
    rehash,
    relist,
    shards_of,
)
from tests.extraction.runs import Place, StopAfter


@pytest.fixture(scope="session")
def verified(tiny_teacher: Path, tiny_chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finished run of 30 conversations in four shards, some of them left out. Not to be changed."""
    folder = tmp_path_factory.mktemp("verified")
    place = Place(tiny_teacher, tiny_chat, folder / "logits", folder / "cache")
    place.run(max_seq_len=60)
    assert 0 < len(place.skipped) < 15
    return place


@pytest.fixture
def output(verified: Place, tmp_path: Path) -> Path:
    """A copy of its output, to be damaged."""
    return Path(shutil.copytree(verified.folder, tmp_path / "output"))


def code_of(folder: Path, *options: str) -> int:
    return main(["verify", str(folder), *options])


def test_what_is_sound(verified: Place, capsys: pytest.CaptureFixture[str]):
    found = verify_dataset(verified.folder)
    checkpoint = verified.checkpoint
    assert (found.problems, found.notes, found.sound) == ([], [], True)
    assert (found.shards, found.conversations) == (len(checkpoint["shards"]), checkpoint["total_samples"])
    assert found.tokens == checkpoint["total_tokens"]
    assert found.size == sum(path.stat().st_size for path in (verified.folder / "data").iterdir())
    for arguments in (["verify", str(verified.folder)], [str(verified.folder), "verify"]):
        assert main(arguments) == 0
        printed = capsys.readouterr().out
        assert printed.count("\n") == 1 and printed.endswith(f"{found.size:,} bytes: all is sound\n")
    assert str(verify_dataset(str(verified.folder)).name) == str(verified.folder)


def test_options(output: Path, capsys: pytest.CaptureFixture[str]):
    assert code_of(output, "--no-source") == 0
    assert "note: missing conversations were not looked for, as asked\n" in capsys.readouterr().out
    assert main([str(output), "--split", "train", "verify"]) == 2
    assert "leave --split out" in capsys.readouterr().err
    assert main(["verify", str(output / "nowhere")]) == 2
    shutil.rmtree(output / "data")
    (output / "checkpoint.json").unlink()
    with pytest.raises(FormatError, match="has no shards"):
        verify_dataset(output)


def test_bytes_that_changed(output: Path):
    one, other, *_ = shards_of(output)
    content = bytearray((output / one).read_bytes())
    content[len(content) // 2] ^= 1
    (output / one).write_bytes(content)
    (output / other).write_bytes((output / other).read_bytes()[:-100])
    found = problems_of(output)
    assert found[0].startswith(f"{one}: SHA-256 is ") and "checkpoint.json says" in found[0]
    assert found[1].startswith(f"{one}: the shard can't be read") and "page" in found[1], "its checksum is wrong"
    assert [line.split(" (")[0].split(" is ")[0] for line in found[2:]] == [
        f"{other}: SHA-256",
        f"{other}: the shard can't be read as a Parquet shard",
    ]
    assert code_of(output) == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "is empty, 0 bytes"), (b"<html></html>" * 9, "the shard can't be read as a Parquet shard")],
)
def test_no_parquet(output: Path, content: bytes, expected: str):
    name = shards_of(output)[1]
    (output / name).write_bytes(content)
    rehash(output, name)
    (line,) = problems_of(output)
    assert line.startswith(f"{name}: {expected}")
    assert verify_dataset(output).notes == ["missing conversations could not be looked for: not all shards can be read"]
    assert code_of(output) == 1


@pytest.mark.parametrize("kind", ["folder", "pipe", "broken link"])
def test_no_files(output: Path, kind: str):
    path = output / shards_of(output)[0]
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nothing")
    (line,) = problems_of(output)
    assert line.startswith(f"data/{path.name}: ")
    assert code_of(output) == 1


def test_a_shard_that_is_gone(output: Path):
    name = shards_of(output)[2]
    (output / name).unlink()
    assert problems_of(output) == [f"{name}: checkpoint.json lists it, and it is not there"]
    assert code_of(output) == 1


def test_a_shard_that_is_not_listed(output: Path):
    name = shards_of(output)[-1]
    relist(output, *shards_of(output)[:-1])
    assert problems_of(output) == [f"{name}: checkpoint.json does not list it"]
    assert code_of(output) == 1


def test_a_file_that_is_no_shard(output: Path):
    name = shards_of(output)[0]
    (output / name).rename(output / "data/mine.parquet")
    relist(output)
    assert problems_of(output) == ["data/mine.parquet: this is not what a shard is called"]


def test_counts(output: Path):
    one, other, *_ = shards_of(output)
    entry = read_checkpoint(output)["shards"][one]

    def change(checkpoint: dict[str, Any]) -> None:
        checkpoint["shards"][one]["rows"] += 1
        checkpoint["shards"][other]["tokens"] -= 1
        checkpoint["total_samples"] += 1
        checkpoint["total_tokens"] += 5

    change_checkpoint(output, change)
    rows, tokens = entry["rows"], entry["tokens"]
    total = read_checkpoint(output)["total_tokens"]
    found = problems_of(output)
    assert found[0] == f"checkpoint.json: total_tokens is {total}, and its shards add up to {total - 6}"
    assert found[1] == f"{one}: {rows} rows and {tokens} tokens, and checkpoint.json says {rows + 1} and {tokens}"
    assert found[2].startswith(f"{other}: ") and len(found) == 3


def test_another_fingerprint(output: Path):
    stored = read_checkpoint(output)["fingerprint"]
    name = change_metadata(output, fingerprint="0" * 64)
    assert problems_of(output) == [f'{name}: the fingerprint is "{"0" * 64}", and that of checkpoint.json {stored}']
    change_metadata(output, fingerprint=stored, seed=43)
    (line,) = problems_of(output)
    assert line.startswith(f"{name}: the fingerprint is {stored[:16]}..., and that of the metadata ")
    change_metadata(output, seed=42)
    change_checkpoint(output, lambda checkpoint: checkpoint["metadata"].update(top_p=0.97))
    (line,) = problems_of(output)
    assert line.startswith(f"checkpoint.json: the fingerprint is {stored[:16]}..., and that of the metadata ")
    change_checkpoint(output, lambda checkpoint: checkpoint["metadata"].pop("seed"))
    assert problems_of(output) == ["checkpoint.json: the metadata lacks seed"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"format_version": 2}, "the shard has format version 2, and this reader knows version 1."),
        ({"min_index": -1}, "and its metadata say [-1, "),
        ({"max_index": 99}, ", 99]"),
        ({"vocab_used": 1e999}, "vocab_used is Infinity, not a whole number from 1 to 262,144; no value was checked"),
        ({"tokenizer_length": None}, "tokenizer_length is null, not a whole number"),
    ],
    ids=str,
)
def test_metadata_of_a_shard(output: Path, values: dict[str, Any], expected: str):
    name = change_metadata(output, **values)
    (line,) = problems_of(output)
    assert line.startswith(f"{name}: ") and expected in line
    assert code_of(output) == 1


def without(name: str) -> Any:
    return lambda table: table.drop_columns([name])


def cast(name: str, kind: pa.DataType) -> Any:
    return lambda table: table.set_column(table.column_names.index(name), name, table[name].cast(kind))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (without("positions"), "lacks the columns positions"),
        (without("index"), "lacks the columns index"),
        (lambda table: table.append_column("mine", table["index"]), "has columns beyond the format: mine"),
        (lambda table: table.append_column("index", table["index"]), "column index is there twice, not int32"),
        (
            cast("logsumexp", pa.list_(pa.float32())),
            "column logsumexp is list<element: float>, not list<item: double>",
        ),
        (cast("num_tokens", pa.int64()), "column num_tokens is int64, not int32"),
        (cast("top_min", pa.large_list(pa.float32())), "column top_min is large_list<element: float>"),
        (lambda table: table.select(table.column_names[::-1]), "its columns are in another order: positions, "),
        (lambda table: table.replace_schema_metadata({}), "the shard carries no teacher_logits metadata"),
    ],
    ids=range(9),
)
def test_schema(output: Path, change: Any, expected: str):
    name = change_table(output, change)
    (line,) = problems_of(output)
    assert line.startswith(f"{name}: {expected}")
    assert code_of(output) == 1


def test_an_index_that_stands_twice(output: Path):
    one, other, *_ = shards_of(output)
    stored: list[int] = []

    def note(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        stored.extend(row["index"] for row in rows)
        return rows

    change_rows(output, note)
    change_rows(output, lambda rows: [*rows, {**rows[0], "index": stored[3]}], number=1)
    change_rows(output, lambda rows: [*rows, rows[2], rows[2]])
    twice, both = f"twice in {one}", f"in {one} and in {other}"
    expected = sorted([(stored[2], twice), (stored[3], both)])
    assert problems_of(output) == [f"conversation {index} is stored {where}" for index, where in expected]
    assert code_of(output) == 1


def test_conversations_that_are_missing(output: Path):
    gone: list[int] = []

    def drop(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        gone.extend(row["index"] for row in rows[2:])
        return rows[:2]

    change_rows(output, drop)
    named = ", ".join(map(str, sorted(gone)))
    assert problems_of(output) == [f"5 conversations are neither stored nor listed in skipped.jsonl: {named}"]
    assert code_of(output) == 1 and code_of(output, "--no-source") == 0
    change_rows(output, lambda rows: [{**row, "index": 1000 + place} for place, row in enumerate(rows)], number=1)
    (missing, foreign) = problems_of(output)
    assert missing.startswith("12 conversations are neither stored") and missing.endswith(", ...")
    assert foreign == f"7 conversations are stored, and the source has none of that number: {named_range(1000, 7)}"


def named_range(first: int, count: int) -> str:
    return ", ".join(str(first + place) for place in range(count))


def test_skipped_conversations_are_not_missing(output: Path, verified: Place):
    lines = (output / "skipped.jsonl").read_text().splitlines()
    (output / "skipped.jsonl").write_text(
        "\n".join([*lines[1:], "[" * 100_000, '{"index": 1e999, "reason": ""}', '{"i'])
    )
    first = json.loads(lines[0])["index"]
    assert problems_of(output) == [f"1 conversation is neither stored nor listed in skipped.jsonl: {first}"]


def test_a_source_that_moved_or_changed(output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "chat.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    for place, expected in (
        (tmp_path / "gone.jsonl", "There is no file or folder"),
        (tmp_path / "chat.jsonl", "is not what the run read"),
        (tmp_path, "or a folder of one kind"),
        ("", "names no source dataset"),
        (5, "is not of the type"),
    ):
        change_checkpoint(
            output, lambda checkpoint, at=place: checkpoint["config"].update(dataset=at if at == 5 else str(at))
        )
        found = verify_dataset(output)
        assert found.sound and len(found.notes) == 1, found
        assert found.notes[0].startswith("missing conversations could not be looked for: ")
        assert expected in found.notes[0]
        assert f"bytes: {found.verdict}" in verification_text(found) and found.missing_unknown
    capsys.readouterr()
    assert code_of(output) == 0
    verdict = "sound, but whether conversations are missing could not be checked"
    assert capsys.readouterr().out.endswith(f" bytes: {verdict}\n")
    assert f"<strong>S{verdict[1:]}.</strong>" in str(dataset_report(output))


def test_an_unfinished_run(tiny_teacher: Path, tiny_chat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    place = Place(tiny_teacher, tiny_chat, tmp_path / "logits", tmp_path / "cache")
    place.run(StopAfter(2), max_batch_size=1)
    assert code_of(place.folder) == 0
    assert capsys.readouterr().out.endswith(" 0 bytes: nothing is stored yet\n")
    place.run(StopAfter(16), max_batch_size=1, resume=True)
    assert not place.checkpoint["complete"]
    assert code_of(place.folder) == 0
    assert "note: the run is unfinished" in capsys.readouterr().out
    place.run(resume=True)
    found = verify_dataset(place.folder)
    assert (found.problems, found.notes, found.conversations) == ([], [], 30)
