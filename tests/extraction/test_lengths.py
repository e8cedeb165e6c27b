"""compute_lengths.py, and what extract_logits.py does with its result."""

import dataclasses
import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from transformers import AutoTokenizer

from teacher_logits.errors import DatasetError, OutputError
from teacher_logits.extraction.compute_lengths import LengthsConfig, compute_lengths
from tests.extraction.runs import ForkServer, Place, stored_rows
from tests.extraction.test_rows import Recomputed
from tests.hub_server import Fault, HubServer
from tests.tiny import UNMARKED, message_rows, question_rows, save_teacher, write_jsonl


def lengths(place: Place, output: Path | str, **options: Any) -> LengthsConfig:
    return LengthsConfig(**({"model": str(place.teacher), "dataset": str(place.data), "output": str(output)} | options))


@pytest.fixture(scope="module")
def sorted_chat(tiny_teacher: Path, tiny_chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny chat, sorted by length."""
    folder = tmp_path_factory.mktemp("sorted")
    place = Place(tiny_teacher, tiny_chat, folder, folder)
    compute_lengths(lengths(place, folder / "chat"))
    return folder / "chat"


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return pa.concat_tables([pq.read_table(path) for path in sorted((folder / "data").iterdir())]).to_pylist()


def test_sorted_with_lengths(place: Place, sorted_chat: Path):
    rows = rows_of(sorted_chat)
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
    compute_lengths(lengths(unmarked, tmp_path / "sorted"))
    assert rows_of(tmp_path / "sorted") == rows_of(sorted_chat)


def test_sorted_dataset_gives_the_same_rows(place: Place, reference: Place, sorted_chat: Path):
    """Its original_index is kept, so the draws are the same, too."""
    dataclasses.replace(place, data=sorted_chat).run(max_batch_size=1)
    assert stored_rows(place.folder).equals(stored_rows(reference.folder))
    assert place.checkpoint["metadata"]["source_columns"]["index"] == "original_index"


def test_lengths_are_taken_from_it(
    place: Place, reference: Place, sorted_chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def counted(*_: Any) -> None:
        pytest.fail("lengths were counted again")

    monkeypatch.setattr("teacher_logits.extraction.prepare.count_lengths", counted)
    place.run(max_batch_size=1, tokenized_dataset=str(sorted_chat))
    by_column = dataclasses.replace(place, data=sorted_chat, output=tmp_path / "b", cache=tmp_path / "b-cache")
    by_column.run(max_batch_size=1, length_col="length")
    expected = stored_rows(reference.folder)
    assert stored_rows(place.folder).equals(expected) and stored_rows(by_column.folder).equals(expected)
    for each in (place, by_column):
        counts = [entry["rows"] for _, entry in sorted(each.checkpoint["shards"].items())]
        assert counts == [7, 7, 7, 7, 2]


def test_lengths_that_are_wrong_spoil_nothing(place: Place, reference: Place, tmp_path: Path):
    """A length column is believed for making batches, and for nothing else."""
    table = pa.Table.from_pylist([json.loads(line) for line in place.data.read_text().splitlines()])
    lies = np.random.default_rng(0).integers(1, 60, 30)
    pq.write_table(table.append_column("length", pa.array(lies)), tmp_path / "chat.parquet")
    there = dataclasses.replace(place, data=tmp_path / "chat.parquet")
    assert there.run(length_col="length", max_batch_size=1).complete
    assert stored_rows(there.folder).equals(stored_rows(reference.folder))
    limited = dataclasses.replace(there, output=tmp_path / "limited", cache=tmp_path / "limited-cache")
    limited.run(length_col="length", max_seq_len=40)
    stored = stored_rows(limited.folder)
    assert max(map(len, stored["input_ids"].to_pylist())) <= 40
    assert {*stored["index"].to_pylist(), *limited.skipped} == set(range(30))


def test_lengths_that_cannot_be_used(place: Place, sorted_chat: Path, tmp_path: Path):
    with pytest.raises(DatasetError, match="no column 'size'"):
        place.run(length_col="size")
    with pytest.raises(DatasetError, match="whole numbers"):
        place.run(length_col="question")
    with pytest.raises(DatasetError, match=r"--tokenized-dataset .* has no column"):
        place.run(tokenized_dataset=str(place.data))
    longer = write_jsonl(tmp_path / "longer.jsonl", question_rows(33))
    with pytest.raises(DatasetError, match=r"no length for 3 of 33 conversations \(the first is 30\)"):
        dataclasses.replace(place, data=longer).run(tokenized_dataset=str(sorted_chat))


def test_unusable_conversations_are_left_out(place: Place, tmp_path: Path):
    rows = question_rows(9)
    rows[2]["answer"] = " "
    rows[5]["question"] = ""
    found = compute_lengths(lengths(place, tmp_path / "o", dataset=str(write_jsonl(tmp_path / "c.jsonl", rows))))
    assert found.skipped == {"empty assistant content": 1, "empty user content": 1}
    assert sorted(row["original_index"] for row in rows_of(tmp_path / "o")) == [0, 1, 3, 4, 6, 7, 8]
    assert "7 conversations" in found.text() and "left out 1: empty user content" in found.text()


def test_worker_processes_write_the_same(
    place: Place, sorted_chat: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, "teacher_logits"):
        compute_lengths(lengths(place, tmp_path / "o", processes=2))
    assert rows_of(tmp_path / "o") == rows_of(sorted_chat)
    assert re.search(r"counted 30 conversations in .*, in 2 worker processes", caplog.text)


def test_selection_and_messages(place: Place, tmp_path: Path):
    data = write_jsonl(tmp_path / "m.jsonl", message_rows(12))
    compute_lengths(lengths(place, tmp_path / "o", dataset=str(data), start_offset=2, limit=5, split="test[:10]"))
    rows = rows_of(tmp_path / "o")
    assert sorted(row["original_index"] for row in rows) == [2, 3, 4, 5, 6]
    assert [path.name for path in (tmp_path / "o" / "data").iterdir()] == ["test-00000-of-00001.parquet"]
    tokenizer = AutoTokenizer.from_pretrained(place.teacher)
    for row in rows:
        encoded = tokenizer.apply_chat_template(row["messages"], return_dict=True)
        assert row["length"] == len(encoded["input_ids"])


def test_a_dataset_that_is_there_is_not_replaced(place: Place, sorted_chat: Path, tmp_path: Path):
    with pytest.raises(OutputError, match=r"already holds a dataset.*--force-restart"):
        compute_lengths(lengths(place, sorted_chat))
    compute_lengths(lengths(place, tmp_path / "o"))
    compute_lengths(lengths(place, tmp_path / "o", limit=4, force_restart=True, split="valid"))
    assert len(rows_of(tmp_path / "o")) == 4, "the old split is gone"


def test_by_its_command(place: Place, tmp_path: Path, forks: ForkServer):
    given = ["--model", str(place.teacher), "--dataset", str(place.data), "--output", str(tmp_path / "o")]
    end = forks.run(*given, face="lengths")
    assert end.code == 0 and "30 conversations, " in end.out and end.last_line == f"written to {tmp_path / 'o'}", end
    assert re.search(r"^counted 30 conversations in .* s: .* a second, in one process$", end.err, re.M), end
    assert len(rows_of(tmp_path / "o")) == 30
    end = forks.run(*given, face="lengths")
    assert end.code == 2 and end.err.splitlines()[-1].startswith("error: ") and "Traceback" not in end.err, end


def test_on_the_hub_and_back(place: Place, reference: Place, tmp_path: Path, hub_forks: tuple[HubServer, ForkServer]):
    server, forks = hub_forks
    fault = server.add_fault(Fault("POST", "sorted/commit/", "status", status=503))
    end = forks.run(
        *("--model", str(place.teacher), "--dataset", str(place.data), "--output", "tester/sorted", "--private"),
        face="lengths",
    )
    assert end.code == 0 and end.last_line == "written to Hub dataset tester/sorted", end
    assert server.is_private("tester/sorted") and server.struck(fault) == 1
    from_hub = dataclasses.replace(place, data=Path("tester/sorted"))
    end = forks.run(*from_hub.arguments("--max-batch-size", "1", "--tokenized-dataset", "tester/sorted"))
    assert end.code == 0, end
    assert stored_rows(place.folder).equals(stored_rows(reference.folder))
    metadata = place.checkpoint["metadata"]
    head = server.commits("tester/sorted")[0].oid
    assert (metadata["source"], metadata["source_revision"]) == ("tester/sorted", head)
    # Somebody changes the dataset: --resume goes on with what it was.
    server.add_files("tester/sorted", {"data/train-00000-of-00001.parquet": b"changed"})
    end = forks.run("--resume", "--cache-dir", str(place.cache))
    assert end.code == 0 and end.last_line == "complete", end
    assert server.token not in end.out + end.err


def test_a_length_from_elsewhere_skips_nobody(place: Place, reference: Place, tmp_path: Path):
    """Counted with another tokenizer, say: what would be skipped for it is counted again."""
    rows = [json.loads(line) for line in place.data.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["length"] = 10**9 if number % 3 else 5
    there = dataclasses.replace(place, data=write_jsonl(tmp_path / "wrong.jsonl", rows))
    summary = there.run(length_col="length", max_batch_size=1)
    assert summary.complete and not summary.skipped
    found = {row["index"]: row for row in stored_rows(there.folder).to_pylist()}
    assert found == {row["index"]: row for row in stored_rows(reference.folder).to_pylist()}
