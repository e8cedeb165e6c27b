"""A checkpoint.json that is damaged or hostile, and how much is said of it."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from teacher_logits.exploring import verification_text, verify_dataset
from teacher_logits.settings import fingerprint
from tests.exploring.damage import (
    change_checkpoint,
    change_metadata,
    problems_of,
    read_checkpoint,
    shards_of,
)
from tests.exploring.test_verify import code_of, output, verified

__all__ = ["output", "verified"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "checkpoint.json is not there"),
        (b'{"shards": ', "checkpoint.json is not JSON"),
        (b"\xff\x00", "checkpoint.json is not JSON"),
        (b"[" * 200_000, "checkpoint.json is not JSON"),
        (b'["\x1b[31m"]', "checkpoint.json is not JSON"),
        (b'["\\u001b[31m"]', 'checkpoint.json holds ["\\u001b[31m"], not an object'),
    ],
    ids=range(6),
)
def test_no_checkpoint(output: Path, content: bytes | None, expected: str, capsys: pytest.CaptureFixture[str]):
    (output / "checkpoint.json").unlink()
    if content is not None:
        (output / "checkpoint.json").write_bytes(content)
    (line,) = problems_of(output)
    assert line.startswith(expected) and line.endswith("hashes, counts and missing conversations could not be checked")
    assert code_of(output) == 1
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    advice = printed.splitlines()[-1]
    assert advice.startswith("To mend checkpoint.json: put it back from a backup") and "--force-restart" in advice
    assert "remove the shards" not in printed, "none is named"
    (output / shards_of(output)[0]).write_bytes(b"")
    found = verify_dataset(output)
    assert len(found.problems) == 2, "the rest is looked at"
    assert found.advice.startswith(advice) and "remove the shards that are named" in found.advice


def test_a_hostile_checkpoint(output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "secret.parquet").write_bytes(b"private")
    deep = json.loads("[" * 300 + "]" * 300)

    def change(checkpoint: dict[str, Any]) -> None:
        checkpoint["shards"] |= {
            "../secret.parquet": {"rows": 1, "tokens": 1, "sha256": "0"},
            "data/\x1b[31m\n\u202e.parquet": {"rows": 1, "tokens": 1, "sha256": "0"},
            "data/x": deep,
            "data/y": {"rows": 1e999, "tokens": True, "sha256": 10**400},
        }
        checkpoint["metadata"]["system_prompt"] = deep
        checkpoint["config"] |= {"dataset": "\x1b[2J", "trust-remote-code": True}
        checkpoint |= {"complete": "\x1b]0;", "fingerprint": deep, "total_samples": 10**400}

    change_checkpoint(output, change)
    found = problems_of(output)
    assert "../secret.parquet: checkpoint.json lists it, and it is not there" in found
    assert "data/\\x1b[31m\\n\\u202e.parquet: checkpoint.json lists it, and it is not there" in found
    assert code_of(output) == 1
    printed = capsys.readouterr()
    assert not set("\x1b\u202e") & set(printed.out + printed.err)
    assert printed.out.count("\n") == len(found) + 3, "a line each, a note, a line of what was looked at, advice"
    assert "Traceback" not in printed.err
    assert max(map(len, found)) <= 400


@pytest.mark.parametrize("part", ["config", "metadata", "shards", "complete", "format_version", "fingerprint"])
def test_a_checkpoint_that_lacks_a_part(output: Path, part: str):
    for value in (None, [], "\x1b", 7):
        change_checkpoint(output, lambda checkpoint, value=value: checkpoint.update({part: value}))
        found = problems_of(output)
        assert part.removesuffix("_version") in found[0] and found[0].startswith("checkpoint.json: "), found
        assert len(found) == 1 or part == "fingerprint", found
    change_checkpoint(output, lambda checkpoint: checkpoint.pop(part))
    assert problems_of(output)


def test_nested_metadata_that_agree(output: Path):
    """What can be hashed can be verified, however odd: the fingerprint is a hash of whatever stands there."""
    metadata = read_checkpoint(output)["metadata"] | {"system_prompt": "\x1b[31m"}
    for name in shards_of(output):
        position = shards_of(output).index(name)
        change_metadata(output, position, system_prompt="\x1b[31m", fingerprint=fingerprint(metadata))
    change_checkpoint(
        output, lambda checkpoint: checkpoint.update(metadata=metadata, fingerprint=fingerprint(metadata))
    )
    found = problems_of(output)
    assert len(found) == len(shards_of(output)) and all("has another name" in line for line in found)


def test_many_problems_of_a_kind_are_counted(output: Path):
    for number in range(50):
        (output / "data" / f"train-01234567-{number:05d}.parquet").write_bytes(b"")
    found = problems_of(output)
    assert sum(line.endswith("does not list it") for line in found) == 20
    assert "and 30 more: shards that are not listed" in found and "and 30 more: shards that can't be read" in found
    assert "and 30 more: shards of other names" in found and len(found) == 63


def test_names_that_no_terminal_should_see(output: Path, capsys: pytest.CaptureFixture[str]):
    (output / "data" / "\x1b[31m\n.parquet").write_bytes(b"x")
    (output / os.fsdecode(b"data/\xff.parquet")).write_bytes(b"x")
    assert code_of(output) == 1
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "data/\\x1b[31m\\n.parquet: checkpoint.json does not list it\n" in printed


def test_of_a_whole_dataset_the_text_says_all(output: Path):
    (output / shards_of(output)[0]).write_bytes(b"")
    found = dataclasses.replace(verify_dataset(output), problems=["a", "b"], notes=["c"])
    text = verification_text(found).splitlines()
    assert text[:3] == ["a", "b", "note: c"] and text[3].endswith("bytes: NOT sound, see above")
    assert text[4].startswith("To mend it: remove the shards") and "--resume" in text[4] and len(text) == 5


def test_where_all_shards_agree_it_is_the_checkpoint_that_is_to_be_mended(output: Path):
    change_checkpoint(output, lambda checkpoint: checkpoint["metadata"].update(vocab_used=399))
    found = verify_dataset(output)
    assert len(found.problems) == len(shards_of(output)) > 1 and "checkpoint.json says 399" in found.problems[0]
    assert found.advice.startswith("To mend checkpoint.json:") and "remove" not in found.advice
    change_checkpoint(output, lambda checkpoint: checkpoint["metadata"].update(vocab_used=400))
    assert verify_dataset(output).sound
    change_metadata(output, vocab_used=399)
    assert verify_dataset(output).advice.startswith("To mend it: remove the shards that are named"), "one of several"


def test_the_checkpoint_of_another_run(output: Path):
    def change(checkpoint: dict[str, Any]) -> None:
        checkpoint["metadata"]["seed"] += 1
        checkpoint["fingerprint"] = checkpoint["metadata"]["fingerprint"] = fingerprint(checkpoint["metadata"])

    change_checkpoint(output, change)
    found = verify_dataset(output, look_at_source=False)
    assert any("the fingerprint is" in line for line in found.problems)
    assert any("has another name" in line for line in found.problems)
    assert found.advice.startswith("To mend checkpoint.json:") and "remove" not in found.advice
