"""Token lengths, counted or taken from where they were counted before."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher_logits.batching import count_lengths, lengths, lengths_from_column, lengths_from_dataset
from teacher_logits.conversations import RendererSpec, Source, open_source
from teacher_logits.conversations.places import Place, Rows, load_rows
from teacher_logits.conversations.thoughts import THINK
from teacher_logits.errors import DatasetError
from teacher_logits.settings import SourceOptions
from tests.tiny import CHATML, messages, question_rows, tiny_tokenizer, write_jsonl

BROKEN = {4: "empty assistant content", 9: "no assistant tokens"}


def opened(folder: Path, rows: list[dict[str, Any]], **options: Any) -> Source:
    return open_source(SourceOptions(dataset=str(write_jsonl(folder / "rows.jsonl", rows)), **options))


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, list[dict[str, Any]]]:
    """14 conversations, two of which can't be used; numbers that are not their rows."""
    rows = question_rows(14)
    for number, row in enumerate(rows):
        row["original_index"] = 100 - number
    rows[4]["answer"] = " "
    rows[9]["answer"] = "<think>never said"
    return opened(tmp_path_factory.mktemp("chat"), rows), rows


@pytest.fixture(scope="module")
def spec(tiny_teacher: Path) -> RendererSpec:
    return RendererSpec(str(tiny_teacher), None, False, CHATML, None, think_tags=(THINK,), end_ids=(2,))


class TestCounting:
    ROWS = np.array([13, 4, 0, 9, 5])

    def test_lengths_are_those_of_the_rendered_conversations(
        self, chat: tuple[Source, list[dict[str, Any]]], spec: RendererSpec
    ) -> None:
        source, rows = chat
        table = count_lengths(source, self.ROWS, spec.build())
        tokenizer = tiny_tokenizer()
        for place, row in enumerate(self.ROWS.tolist()):
            if row in BROKEN:
                assert table.reasons[place] == BROKEN[row]
                assert table.lengths[place] == table.assistant_lengths[place] == 0
                continue
            said = messages(rows[row]["question"], rows[row]["answer"])
            whole: Any = tokenizer.apply_chat_template(said, chat_template=CHATML, tokenize=True, return_dict=True)
            assert table.lengths[place] == len(whole["input_ids"])
            assert table.assistant_lengths[place] == len(tokenizer.encode(rows[row]["answer"]))
        assert set(table.reasons) == {1, 3}

    @pytest.mark.parametrize("chunk", [1, 2, 5, 14, 100])
    def test_the_size_of_chunks_makes_no_difference(
        self,
        chunk: int,
        chat: tuple[Source, list[dict[str, Any]]],
        spec: RendererSpec,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        source, _ = chat
        whole = count_lengths(source, np.arange(14), spec.build())
        monkeypatch.setattr(lengths, "CHUNK", chunk)
        table = count_lengths(source, np.arange(14), spec.build())
        assert table.lengths.tolist() == whole.lengths.tolist()
        assert table.assistant_lengths.tolist() == whole.assistant_lengths.tolist()
        assert table.reasons == whole.reasons == BROKEN

    def test_of_no_rows(self, chat: tuple[Source, list[dict[str, Any]]], spec: RendererSpec) -> None:
        table = count_lengths(chat[0], np.arange(0), spec.build())
        assert len(table.lengths) == 0 and not table.reasons

    def test_speed_is_said(
        self, chat: tuple[Source, list[dict[str, Any]]], spec: RendererSpec, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            table = count_lengths(chat[0], np.arange(14), spec.build())
        assert table.seconds > 0 and table.workers == 0
        assert dataclasses.replace(table, seconds=0.5).speed() == (
            "counted 14 conversations in 0.5 s: 28 a second, in one process"
        )
        assert dataclasses.replace(table, seconds=0.0, workers=3).speed().endswith(", in 3 worker processes")
        assert table.speed() in caplog.messages


class TestFromColumn:
    def rows(self, *values: Any) -> list[dict[str, Any]]:
        return [{"question": "a", "answer": "b", "tokens": value} for value in values]

    def test_in_the_order_of_the_rows(self, tmp_path: Path) -> None:
        source = opened(tmp_path, self.rows(10, 11, 12, 13))
        found = lengths_from_column(source, np.array([3, 0]), "tokens")
        assert found.tolist() == [13, 10] and found.dtype == np.int64

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ([1.5, 2.0], "'tokens' holds float64; expected whole numbers"),
            ([1, None], "expected whole numbers without gaps"),
            (["1", "2"], "expected whole numbers"),
            ([True, False], "expected whole numbers"),
            ([1, -2], "'tokens' holds -2; expected whole numbers from 0 on"),
        ],
    )
    def test_what_is_no_length(self, values: list[Any], message: str, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=message):
            lengths_from_column(opened(tmp_path, self.rows(*values)), np.array([0]), "tokens")

    def test_a_missing_column(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=r"no column 'words' \(--length-col\); it has .*'tokens'"):
            lengths_from_column(opened(tmp_path, self.rows(1)), np.array([0]), "words")


class TestFromDataset:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Source:
        rows = [{"question": "a", "answer": "b", "original_index": number} for number in (30, 10, 20)]
        return opened(tmp_path, rows)

    def counted(self, folder: Path, numbers: list[Any], tokens: list[Any]) -> Rows:
        pq.write_table(pa.table({"original_index": numbers, "length": tokens}), folder / "counted.parquet")
        return load_rows(Place(str(folder / "counted.parquet")))

    @pytest.mark.parametrize("order", [[10, 20, 30, 40], [40, 30, 10, 20], [20, 40, 10, 30]])
    def test_by_number_whatever_the_order(self, order: list[int], source: Source, tmp_path: Path) -> None:
        counted = self.counted(tmp_path, order, [number * 7 for number in order])
        found = lengths_from_dataset(source, np.array([2, 0, 1]), counted, "x")
        assert found.tolist() == [140, 210, 70] and found.dtype == np.int64

    def test_those_that_are_not_there_are_0(self, source: Source, tmp_path: Path) -> None:
        found = lengths_from_dataset(source, np.arange(3), self.counted(tmp_path, [20], [5]), "x")
        assert found.tolist() == [0, 0, 5]

    @pytest.mark.parametrize("numbers", [[9, 11, 19], [31], [1, 2, 3]])
    def test_neighbours_are_not_taken_for_it(self, numbers: list[int], source: Source, tmp_path: Path) -> None:
        counted = self.counted(tmp_path, numbers, [5] * len(numbers))
        assert lengths_from_dataset(source, np.arange(3), counted, "x").tolist() == [0, 0, 0]

    @pytest.mark.parametrize(
        ("numbers", "tokens", "message"),
        [
            ([10, None, 30], [1, 2, 3], "'original_index' holds float64; expected whole numbers without gaps"),
            (["10", "20", "30"], [1, 2, 3], "'original_index' holds object"),
            ([10, 20, 30], [1.0, 2.0, 3.0], "'length' holds float64"),
            ([10, 20, 30], [1, None, 3], "'length' holds float64"),
            ([10, 20, 30], [1, -1, 3], "'length' holds -1"),
        ],
    )
    def test_what_is_no_number(
        self, numbers: list[Any], tokens: list[Any], message: str, source: Source, tmp_path: Path
    ) -> None:
        with pytest.raises(DatasetError, match=message):
            lengths_from_dataset(source, np.arange(3), self.counted(tmp_path, numbers, tokens), "x")

    def test_columns_of_another_dataset(self, source: Source, tmp_path: Path) -> None:
        other = load_rows(Place(str(write_jsonl(tmp_path / "other.jsonl", [{"original_index": 10, "tokens": 3}]))))
        with pytest.raises(DatasetError, match=r"--tokenized-dataset x has no column 'length'.*compute_lengths\.py"):
            lengths_from_dataset(source, np.arange(3), other, "x")
