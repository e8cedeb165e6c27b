"""Runs that take their lengths from where they were counted before."""

import dataclasses
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher_logits.errors import DatasetError
from teacher_logits.extraction.compute_lengths import compute_lengths
from tests.extraction.runs import ForkServer, Place, stored_rows
from tests.extraction.sorting import lengths_config
from tests.hub_server import Fault, HubServer
from tests.tiny import CHATML, save_teacher, write_jsonl


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
    with pytest.raises(DatasetError, match="no file or folder"):
        place.run(tokenized_dataset=str(tmp_path / "nope.parquet"))


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


class TestWhatTheyWereCountedWith:
    @pytest.mark.parametrize(
        ("options", "what"),
        [
            ({"chat_template": CHATML.replace("role'] }}\n", "role'] }}:\n")}, "another chat template"),
            ({"system_prompt": "Be brief."}, "another system prompt"),
            ({"system_prompt": "Be brief.", "split": "valid"}, "another system prompt and another split"),
            ({"assistant_col": "subject"}, "other columns"),
            ({"split": "valid"}, "another split"),
        ],
    )
    def test_with_other_options_they_are_refused(
        self, options: dict[str, Any], what: str, place: Place, sorted_chat: Path, tmp_path: Path
    ) -> None:
        if "chat_template" in options:
            path = tmp_path / "other.jinja"
            path.write_text(options["chat_template"])
            options = {"chat_template": str(path)}
        there = tmp_path / "sorted"
        compute_lengths(lengths_config(place, there, **options))
        if "split" in options:  # the files' names are the split's
            (there / "data" / "valid-00000-of-00001.parquet").rename(there / "data" / "train-00000-of-00001.parquet")
            (there / "README.md").unlink()
        with pytest.raises(DatasetError, match=rf"--tokenized-dataset: .* counted with {what} \("):
            place.run(tokenized_dataset=str(there))
        assert not list(place.folder.rglob("*.parquet"))

    def test_with_another_tokenizer(self, place: Place, sorted_chat: Path, tmp_path: Path) -> None:
        other = dataclasses.replace(place, teacher=save_teacher(tmp_path / "other", nfc=True))
        with pytest.raises(DatasetError, match=r"another tokenizer \(model 'llama', source 'chat.jsonl'"):
            other.run(tokenized_dataset=str(sorted_chat))
        by_column = dataclasses.replace(other, data=sorted_chat)
        with pytest.raises(DatasetError, match=r"--length-col: .* another tokenizer .* leave --length-col out"):
            by_column.run(length_col="length")
        # Which rows are read of the source is the run's own business there.
        with pytest.raises(DatasetError, match=r"another tokenizer \("):
            by_column.run(tokenized_dataset=str(sorted_chat))

    def test_of_another_dataset(self, place: Place, sorted_chat: Path, tmp_path: Path) -> None:
        rows = [json.loads(line) for line in place.data.read_text().splitlines()]
        other = dataclasses.replace(place, data=write_jsonl(tmp_path / "chat.jsonl", rows[1:]))
        with pytest.raises(DatasetError, match=r"another dataset \("):
            other.run(tokenized_dataset=str(sorted_chat))

    def test_what_holds_no_lengths_is_not_believed_first(
        self, place: Place, reference: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        with (
            caplog.at_level(logging.WARNING, "teacher_logits"),
            pytest.raises(DatasetError, match="has no column 'length'"),
        ):
            place.run(tokenized_dataset=str(reference.folder))
        assert "believed" not in caplog.text

    def test_without_a_record_they_are_believed_with_a_warning(
        self, place: Place, reference: Place, sorted_chat: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        shutil.copytree(sorted_chat, tmp_path / "sorted")
        (tmp_path / "sorted" / "lengths.json").unlink()
        with caplog.at_level(logging.WARNING, "teacher_logits"):
            place.run(tokenized_dataset=str(tmp_path / "sorted"), max_batch_size=1)
        assert re.search(r"doesn't say which tokenizer and chat template .*\(it has no lengths.json\)", caplog.text)
        assert "not this run's" not in caplog.text
        assert stored_rows(place.folder).equals(stored_rows(reference.folder))

    @pytest.mark.parametrize(
        "content", [b"[1]", b"{", b"\xff\xfe\x00", b"", b"[" * 100_000, b'{"a": ' + b"9" * 6000 + b"}"]
    )
    def test_a_record_that_is_none(self, content: bytes, place: Place, sorted_chat: Path, tmp_path: Path) -> None:
        shutil.copytree(sorted_chat, tmp_path / "sorted")
        (tmp_path / "sorted" / "lengths.json").write_bytes(content)
        with pytest.raises(DatasetError, match=r"lengths.json of .* can't be read"):
            place.run(tokenized_dataset=str(tmp_path / "sorted"))

    def test_lengths_of_the_first_conversations_are_looked_at(
        self, place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        rows = [json.loads(line) for line in place.data.read_text().splitlines()]
        for row in rows:
            row["words"] = len(row["question"].split()) + len(row["answer"].split())
        there = dataclasses.replace(place, data=write_jsonl(tmp_path / "words.jsonl", rows))
        with caplog.at_level(logging.WARNING, "teacher_logits"):
            there.run(length_col="words")
        assert re.search(r"conversation 0 has \d+ tokens and not \d+, and so 20 of the first 20", caplog.text)


def test_conversations_without_a_length_are_counted(
    place: Place, reference: Place, sorted_chat: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Those that compute_lengths.py left out, or its --limit did."""
    limited = tmp_path / "limited"
    compute_lengths(lengths_config(place, limited, limit=12))
    with caplog.at_level(logging.INFO, "teacher_logits"):
        place.run(tokenized_dataset=str(limited), max_batch_size=1)
    assert "18 conversations have no known length, or one beyond the context: these are counted" in caplog.text
    assert "counted 18 conversations" in caplog.text
    assert stored_rows(place.folder).equals(stored_rows(reference.folder))


def test_those_that_were_left_out_are_skipped_with_their_reason(place: Place, tmp_path: Path):
    rows = [json.loads(line) for line in place.data.read_text().splitlines()]
    rows[4]["answer"] = " "
    there = dataclasses.replace(place, data=write_jsonl(tmp_path / "gap.jsonl", rows))
    compute_lengths(lengths_config(there, tmp_path / "sorted"))
    assert there.run(tokenized_dataset=str(tmp_path / "sorted")).complete
    assert there.skipped == {4: "empty assistant content"}
    assert sorted(stored_rows(there.folder)["index"].to_pylist()) == [n for n in range(30) if n != 4]


def test_the_record_names_no_path(place: Place, sorted_chat: Path):
    text = (sorted_chat / "lengths.json").read_text()
    record = json.loads(text)
    assert (record["model"], record["source"], record["source_split"]) == ("llama", "chat.jsonl", "train")
    assert record["mask_method"] == "template" and record["chat_template"] == CHATML
    assert str(place.data.parent) not in text + (sorted_chat / "README.md").read_text()
