"""Conversations that were left out."""

import json
from pathlib import Path

import pytest

from teacher_logits.journal import SkippedLog


def entries(content: bytes) -> list[tuple[int, str]]:
    return [(entry["index"], entry["reason"]) for entry in map(json.loads, content.decode().splitlines())]


def test_one_reason_each_by_rising_number(tmp_path: Path):
    path = tmp_path / "skipped.jsonl"
    log = SkippedLog(path)
    for index, reason in [(12, "empty"), (3, "zu groß\nhier"), (12, "too long"), (7, "empty")]:
        log.add(index, reason)
    expected = [(3, "zu groß\\nhier"), (7, "empty"), (12, "too long")]
    assert entries(log.content()) == expected and len(log) == 3
    assert log.counts() == {"empty": 1, "too long": 1, "zu groß\\nhier": 1}
    assert not path.exists()
    log.save()
    assert path.read_bytes() == log.content() and path.stat().st_mode & 0o777 == 0o600
    again = SkippedLog(path)
    assert entries(again.content()) == expected


def test_own_reason_wins_over_the_outputs(tmp_path: Path):
    log = SkippedLog(tmp_path / "skipped.jsonl")
    log.add(1, "own")
    log.merge('{"index": 1, "reason": "theirs"}\n\n{"index": 2, "reason": "theirs"}\n')
    assert entries(log.content()) == [(1, "own"), (2, "theirs")]


def test_what_is_stored_after_all_is_dropped(tmp_path: Path):
    path = tmp_path / "skipped.jsonl"
    log = SkippedLog(path)
    log.add(1, "a")
    log.add(2, "b")
    log.save()
    log.drop([1, 99])
    log.save()
    assert entries(path.read_bytes()) == [(2, "b")]
    log.drop([2])
    log.save()
    assert len(SkippedLog(path)) == 0 and log.content() == b""


def test_reasons_that_quote_the_data_stay_one_short_printable_line(tmp_path: Path):
    log = SkippedLog(tmp_path / "skipped.jsonl")
    log.add(1, "role \u2028\x1b[31m\x85 " + "x" * 1000)
    log.save()
    assert len(log.content().split(b"\n")) == 2 and b"\x1b" not in log.content() and len(log.content()) < 400
    assert SkippedLog(tmp_path / "skipped.jsonl").content() == log.content()


@pytest.mark.parametrize(
    "damage",
    [
        b'{"index": 3, "rea',
        b"[1]",
        b'{"reason": "x"}',
        b'{"index": "x", "reason": ""}',
        b'{"index": 1e999, "reason": ""}',
        b"[" * 100_000,
        b"\xff",
    ],
    ids=lambda damage: damage[:20],
)
def test_damaged_lines_are_passed_over(damage: bytes, tmp_path: Path):
    path = tmp_path / "skipped.jsonl"
    path.write_bytes(damage + b'\n{"index": 5, "reason": "empty"}\n')
    assert SkippedLog(path).counts() == {"empty": 1}
    assert len(SkippedLog(path, empty=True)) == 0
