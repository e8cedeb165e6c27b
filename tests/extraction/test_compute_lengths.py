"""compute_lengths.py: the dataset that it writes, and what it says."""

import dataclasses
import json
import logging
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from transformers import AutoTokenizer

from teacher_logits.errors import DatasetError, OutputError
from teacher_logits.extraction.compute_lengths import compute_lengths
from tests.extraction.runs import ForkServer, Place
from tests.extraction.sorting import lengths_config, sorted_rows
from tests.extraction.test_rows import Recomputed
from tests.tiny import UNMARKED, message_rows, question_rows, save_teacher, write_jsonl


def test_sorted_with_lengths(place: Place, sorted_chat: Path):
    rows = sorted_rows(sorted_chat)
    original = [json.loads(line) for line in place.data.read_text().splitlines()]
    assert sorted(row["original_index"] for row in rows) == list(range(30))
    teacher = Recomputed(place.teacher)
    for row in rows:
        expected = original[row["original_index"]]
        assert {name: row[name] for name in expected} == expected
        assert row["length"] == len(teacher.tokens(expected)[0])
    found = [row["length"] for row in rows]
    assert found == sorted(found, reverse=True) and len(set(found)) > 10
    header = yaml.safe_load((sorted_chat / "README.md").read_text().split("---\n")[1])
    assert header["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]


def test_without_marks_the_lengths_are_the_same(place: Place, sorted_chat: Path, tmp_path: Path):
    unmarked = dataclasses.replace(place, teacher=save_teacher(tmp_path / "unmarked", template=UNMARKED))
    compute_lengths(lengths_config(unmarked, tmp_path / "sorted"))
    assert sorted_rows(tmp_path / "sorted") == sorted_rows(sorted_chat)


def test_unusable_conversations_are_left_out(place: Place, tmp_path: Path):
    rows = question_rows(9)
    rows[2]["answer"] = " "
    rows[5]["question"] = ""
    found = compute_lengths(lengths_config(place, tmp_path / "o", dataset=str(write_jsonl(tmp_path / "c.jsonl", rows))))
    assert found.skipped == {"empty assistant content": 1, "empty user content": 1}
    assert sorted(row["original_index"] for row in sorted_rows(tmp_path / "o")) == [0, 1, 3, 4, 6, 7, 8]
    assert "7 conversations" in found.text() and "left out 1: empty user content" in found.text()


def test_worker_processes_write_the_same(
    place: Place, sorted_chat: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, "teacher_logits"):
        compute_lengths(lengths_config(place, tmp_path / "o", processes=2))
    assert sorted_rows(tmp_path / "o") == sorted_rows(sorted_chat)
    assert re.search(r"counted 30 conversations in .*, in 2 worker processes", caplog.text)


def test_selection_and_messages(place: Place, tmp_path: Path):
    data = write_jsonl(tmp_path / "m.jsonl", message_rows(12))
    compute_lengths(
        lengths_config(place, tmp_path / "o", dataset=str(data), start_offset=2, limit=5, split="test[:10]")
    )
    rows = sorted_rows(tmp_path / "o")
    assert sorted(row["original_index"] for row in rows) == [2, 3, 4, 5, 6]
    assert [path.name for path in (tmp_path / "o" / "data").iterdir()] == ["test-00000-of-00001.parquet"]
    tokenizer = AutoTokenizer.from_pretrained(place.teacher)
    for row in rows:
        encoded = tokenizer.apply_chat_template(row["messages"], return_dict=True)
        assert row["length"] == len(encoded["input_ids"])


def test_a_dataset_that_is_there_is_not_replaced(place: Place, sorted_chat: Path, tmp_path: Path):
    with pytest.raises(OutputError, match=r"already holds a sorted dataset.*--force-restart"):
        compute_lengths(lengths_config(place, sorted_chat))
    compute_lengths(lengths_config(place, tmp_path / "o"))
    compute_lengths(lengths_config(place, tmp_path / "o", limit=4, force_restart=True, split="valid"))
    assert len(sorted_rows(tmp_path / "o")) == 4, "the old split is gone"


def test_by_its_command(place: Place, tmp_path: Path, forks: ForkServer):
    given = ["--model", str(place.teacher), "--dataset", str(place.data), "--output", str(tmp_path / "o")]
    end = forks.run(*given, face="lengths")
    assert end.code == 0 and "30 conversations, " in end.out and end.last_line == f"written to {tmp_path / 'o'}", end
    assert re.search(r"^counted 30 conversations in .* s: .* a second, in one process$", end.err, re.M), end
    assert len(sorted_rows(tmp_path / "o")) == 30
    end = forks.run(*given, face="lengths")
    assert end.code == 2 and end.err.splitlines()[-1].startswith("error: ") and "Traceback" not in end.err, end


class TestFigures:
    def test_lengths_of_the_assistant(self, place: Place, sorted_chat: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(place.teacher)
        for row in sorted_rows(sorted_chat):
            assert row["assistant_length"] == len(tokenizer.encode(row["answer"])) + 1, "and the end of the turn"

    def test_what_is_said(self, place: Place, tmp_path: Path) -> None:
        """Against figures computed by hand from the rows."""
        found = compute_lengths(lengths_config(place, tmp_path / "o", batch_tokens=200))
        rows = sorted_rows(tmp_path / "o")
        lengths = [row["length"] for row in rows]
        by_index = [row["length"] for row in sorted(rows, key=lambda row: row["original_index"])]
        assert found.lengths.tolist() == lengths
        assert found.assistant_lengths.tolist() == [row["assistant_length"] for row in rows]

        def padding(lengths: list[int]) -> float:
            batches: list[list[int]] = [[]]
            for length in lengths:
                if batches[-1] and (len(batches[-1]) + 1) * max([*batches[-1], length]) > 200:
                    batches.append([])
                batches[-1].append(length)
            return 1 - sum(lengths) / sum(len(batch) * max(batch) for batch in batches)

        assert found.padding_sorted == pytest.approx(padding(lengths))
        assert found.padding_unsorted == pytest.approx(padding(by_index))
        assert found.padding_unsorted > found.padding_sorted
        head, whole, assistant, *lines = found.text().splitlines()
        assert head.split("  ")[0] == "tokens of a conversation" and head.split()[-2:] == ["longest", "total"]
        expected = [np.mean(lengths), *np.percentile(lengths, [50, 75, 90, 95, 99]), max(lengths), sum(lengths)]
        assert whole.split() == ["all", *(f"{figure:,.0f}" for figure in expected)]
        assert assistant.split()[-1] == f"{sum(row['assistant_length'] for row in rows):,}"
        assert lines[0] == "30 conversations, 0 (0.0 %) of them longer than the model's context of 512 tokens"
        assert lines[1] == (
            f"padding in batches of 200 tokens: {found.padding_sorted:.1%} sorted by length, "
            f"{found.padding_unsorted:.1%} in the source's order".replace("%", " %")
        )

    def test_those_beyond_the_context(self, place: Place, tmp_path: Path) -> None:
        rows = question_rows(5)
        rows[3]["answer"] = "word " * 400
        found = compute_lengths(
            lengths_config(place, tmp_path / "o", dataset=str(write_jsonl(tmp_path / "c.jsonl", rows)))
        )
        assert found.too_long == 1 and "5 conversations, 1 (20.0 %) of them longer than" in found.text()

    def test_where_none_can_be_used(self, place: Place, tmp_path: Path) -> None:
        data = write_jsonl(tmp_path / "c.jsonl", [row | {"answer": ""} for row in question_rows(3)])
        with pytest.raises(DatasetError, match=r"None of the 3 conversations can be used: empty assistant content"):
            compute_lengths(lengths_config(place, tmp_path / "deep" / "o", dataset=str(data)))
        assert not (tmp_path / "deep").exists()

    def test_the_card_shows_them(self, sorted_chat: Path) -> None:
        card = (sorted_chat / "README.md").read_text()
        assert "| tokens of a conversation | mean |" in card and "30 conversations, 0 (0.0 %)" in card
        assert "(lengths.png)" in card
        assert (sorted_chat / "lengths.png").read_bytes().startswith(b"\x89PNG")

    def test_without_the_libraries_that_draw(
        self, place: Place, sorted_chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compute_lengths(lengths_config(place, tmp_path / "o"))
        monkeypatch.setitem(sys.modules, "matplotlib.ticker", None)  # as if it weren't installed
        compute_lengths(lengths_config(place, tmp_path / "o", force_restart=True))
        assert not (tmp_path / "o" / "lengths.png").exists(), "the picture of before is gone"
        assert "lengths.png" not in (tmp_path / "o" / "README.md").read_text()
        assert sorted_rows(tmp_path / "o") == sorted_rows(sorted_chat)
