"""Where compute_lengths.py writes, what it never touches, and how it reads large datasets."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher_logits import files
from teacher_logits.errors import DatasetError, OutputError, SettingsError
from teacher_logits.extraction import compute_lengths as module
from teacher_logits.extraction import sorted_dataset
from teacher_logits.extraction.compute_lengths import compute_lengths
from tests.extraction.runs import ROOT, ForkServer, Place
from tests.extraction.sorting import lengths_config, sorted_rows
from tests.hub_server import HubServer
from tests.tiny import question_rows, write_jsonl


class TestFiles:
    def test_are_bounded(
        self, place: Place, sorted_chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sorted_dataset, "_FILE_ROWS", 12)
        monkeypatch.setattr(sorted_dataset, "_GROUP_ROWS", 5)
        compute_lengths(lengths_config(place, tmp_path / "o"))
        files = sorted((tmp_path / "o" / "data").iterdir())
        assert [path.name for path in files] == [f"train-0000{n}-of-00003.parquet" for n in range(3)]
        footers = [pq.ParquetFile(path).metadata for path in files]
        groups = [[footer.row_group(n).num_rows for n in range(footer.num_row_groups)] for footer in footers]
        assert groups == [[5, 5, 2], [5, 5, 2], [5, 1]]
        assert sorted_rows(tmp_path / "o") == sorted_rows(sorted_chat)
        loaded = datasets.load_dataset(str(tmp_path / "o"), split="train")
        assert loaded.to_list() == sorted_rows(sorted_chat)

    @pytest.mark.parametrize(
        ("weights", "most", "rows", "parts"),
        [
            ([3, 3, 3], 6, 9, [(0, 2), (2, 3)]),
            ([9, 1, 1], 6, 9, [(0, 1), (1, 3)]),
            ([1, 9, 1], 6, 9, [(0, 1), (1, 2), (2, 3)]),
            ([1, 1, 1, 1, 1], 100, 2, [(0, 2), (2, 4), (4, 5)]),
            ([0, 0, 0], 0, 9, [(0, 3)]),
            ([], 6, 9, [(0, 0)]),
        ],
    )
    def test_parts(self, weights: list[int], most: int, rows: int, parts: list[tuple[int, int]]) -> None:
        assert list(sorted_dataset.bounded_parts(np.array(weights, np.int64), most, rows)) == parts

    @pytest.mark.parametrize(
        ("index_col", "named"),
        [(None, "`length`, `assistant_length`"), ("id", "`length`, `assistant_length`, `original_index`")],
    )
    def test_columns_of_the_same_name_are_replaced_and_named(
        self, index_col: str | None, named: str, place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        own = {"length": -1, "assistant_length": "x"}
        rows = [row | own | {"original_index": 9 - n, "id": n} for n, row in enumerate(question_rows(4))]
        data = str(write_jsonl(tmp_path / "c.jsonl", rows))
        with caplog.at_level(logging.INFO, "teacher_logits"):
            compute_lengths(lengths_config(place, tmp_path / "o", dataset=data, index_col=index_col))
        found = sorted_rows(tmp_path / "o")
        assert all(row["length"] > row["assistant_length"] > 0 for row in found)
        assert all(row["original_index"] == (9 - row["id"] if index_col is None else row["id"]) for row in found)
        lines = [line for line in caplog.messages if line.startswith("replacing")]
        assert lines == [f"replacing what c.jsonl holds in {named}: columns of these names are added"]

    def test_nothing_is_said_where_none_is_replaced(
        self, place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        rows = [row | {"original_index": 9 - n} for n, row in enumerate(question_rows(4))]
        data = str(write_jsonl(tmp_path / "c.jsonl", rows))
        with caplog.at_level(logging.INFO, "teacher_logits"):
            compute_lengths(lengths_config(place, tmp_path / "o", dataset=data))
        assert sorted(row["original_index"] for row in sorted_rows(tmp_path / "o")) == [6, 7, 8, 9]
        assert "replacing" not in caplog.text

    def test_a_column_that_is_read_is_not_replaced(self, place: Place, tmp_path: Path) -> None:
        rows = [{"length": row["question"], "answer": row["answer"]} for row in question_rows(4)]
        data = write_jsonl(tmp_path / "c.jsonl", rows)
        with pytest.raises(DatasetError, match="Column 'length', which is read"):
            compute_lengths(lengths_config(place, tmp_path / "o", dataset=str(data), user_col="length"))

    def test_what_the_library_knows_of_columns_stays(self, place: Place, tmp_path: Path) -> None:
        kinds = datasets.Features(
            {
                "question": datasets.Value("string"),
                "answer": datasets.Value("string"),
                "subject": datasets.ClassLabel(names=["maths", "art"]),
            }
        )
        rows = [row | {"subject": number % 2} for number, row in enumerate(question_rows(6))]
        datasets.Dataset.from_list(rows, features=kinds).to_parquet(tmp_path / "c.parquet")
        compute_lengths(lengths_config(place, tmp_path / "o", dataset=str(tmp_path / "c.parquet")))
        loaded = datasets.load_dataset(str(tmp_path / "o"), split="train")
        assert loaded.features["subject"] == kinds["subject"] and loaded.features["length"].dtype == "int32"


class TestWhatIsThere:
    """Nothing that is not of its own making is overwritten or removed."""

    def refused(self, place: Place, output: Path | str, message: str, **options: Any) -> None:
        before = {path: path.read_bytes() for path in Path(output).rglob("*") if path.is_file()}
        for replace in (False, True):
            with pytest.raises((OutputError, SettingsError), match=message):
                compute_lengths(lengths_config(place, output, force_restart=replace, **options))
        assert {path: path.read_bytes() for path in Path(output).rglob("*") if path.is_file()} == before

    def test_logits(self, place: Place, reference: Place) -> None:
        self.refused(place, reference.folder, "holds logits, which are never replaced")

    @pytest.mark.parametrize("name", ["README.md", "data/precious.parquet", "notes/a.txt"])
    def test_other_files(self, name: str, place: Place, tmp_path: Path) -> None:
        path = tmp_path / "o" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"mine")
        self.refused(place, tmp_path / "o", rf"did not write, such as {name}.*never removed")

    @pytest.mark.parametrize("name", ["data/precious.parquet", "data/sub/train-00000-of-00001.parquet"])
    def test_other_files_among_ours(self, name: str, place: Place, tmp_path: Path) -> None:
        compute_lengths(lengths_config(place, tmp_path / "o"))
        path = tmp_path / "o" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"mine")
        self.refused(place, tmp_path / "o", rf"did not write, such as {name}")

    def test_the_source_itself(self, place: Place, sorted_chat: Path, tmp_path: Path) -> None:
        there = str(sorted_chat)
        for output in (there, f"{there}/data", str(sorted_chat.parent)):
            self.refused(place, output, "are one place, or one lies in the other", dataset=there)

    def test_an_output_that_cant_be_is_found_out_before_counting(
        self, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "count_lengths", None)  # whoever calls it fails
        for output in ("/dev/null/x", "/proc/x/y"):
            with pytest.raises(OutputError, match=f"{output} can't be created"):
                compute_lengths(lengths_config(place, output))

    def test_somebody_who_comes_while_it_counts(
        self, place: Place, sorted_chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain = module.count_lengths

        def count(*arguments: Any) -> Any:
            monkeypatch.setattr(module, "count_lengths", plain)
            compute_lengths(lengths_config(place, tmp_path / "o", limit=3))
            return plain(*arguments)

        monkeypatch.setattr(module, "count_lengths", count)
        with pytest.raises(OutputError, match="already holds a sorted dataset"):
            compute_lengths(lengths_config(place, tmp_path / "o"))
        assert len(sorted_rows(tmp_path / "o")) == 3

    def test_what_is_replaced_stays_until_the_new_is_there(
        self, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compute_lengths(lengths_config(place, tmp_path / "o"))
        before = sorted_rows(tmp_path / "o")

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(files.shutil, "copyfile", full)
        with pytest.raises(OutputError, match=r"did not take .*No space left.*run again") as caught:
            compute_lengths(lengths_config(place, tmp_path / "o", split="valid", limit=2, force_restart=True))
        assert "--resume" not in str(caught.value)
        assert sorted_rows(tmp_path / "o") == before


class TestStreaming:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"limit": 7},
            {"limit": 7, "start_offset": 5},
            {"start_offset": 28},
            {"limit": 4, "random_sample": True},
            {"limit": 2, "subject_col": "subject"},
            {"split": "train[3:9]"},
        ],
    )
    def test_gives_the_same(self, options: dict[str, Any], place: Place, tmp_path: Path) -> None:
        compute_lengths(lengths_config(place, tmp_path / "mapped", **options))
        compute_lengths(lengths_config(place, tmp_path / "streamed", streaming=True, **options))
        assert sorted_rows(tmp_path / "streamed") == sorted_rows(tmp_path / "mapped")
        mapped, streamed = ((tmp_path / name / "lengths.json").read_text() for name in ("mapped", "streamed"))
        assert mapped == streamed

    def test_reads_no_more_than_it_takes(self, place: Place, tmp_path: Path) -> None:
        """What comes after the rows of --limit can't be read, and isn't."""
        lines = [json.dumps(row) + "\n" for row in question_rows(100)]
        data = tmp_path / "broken.jsonl"
        data.write_text("".join(lines) * (1 + (40 << 20) // len("".join(lines))) + "{ this is no JSON\n")
        options = {"dataset": str(data), "limit": 100}
        compute_lengths(lengths_config(place, tmp_path / "o", streaming=True, **options))
        assert sorted(row["original_index"] for row in sorted_rows(tmp_path / "o")) == list(range(100))
        with pytest.raises(DatasetError, match=r"broken\.jsonl"):
            compute_lengths(lengths_config(place, tmp_path / "all", streaming=True, dataset=str(data)))

    def test_nothing_to_read(self, place: Place, tmp_path: Path) -> None:
        (tmp_path / "none.jsonl").write_text("")
        with pytest.raises(DatasetError, match=r"none\.jsonl.* holds no rows"):
            compute_lengths(lengths_config(place, tmp_path / "o", streaming=True, dataset=str(tmp_path / "none.jsonl")))

    def test_from_the_hub_by_its_command(
        self, place: Place, tmp_path: Path, hub_forks: tuple[HubServer, ForkServer]
    ) -> None:
        server, forks = hub_forks
        server.add_files("tester/chats", {"train.jsonl": place.data.read_bytes()})
        given = ["--model", str(place.teacher), "--dataset", "tester/chats", "--limit", "9"]
        for name, more in (("mapped", []), ("streamed", ["--streaming"])):
            end = forks.run(*given, "--output", str(tmp_path / name), *more, face="lengths")
            assert end.code == 0, end
        assert sorted_rows(tmp_path / "streamed") == sorted_rows(tmp_path / "mapped")

    @pytest.mark.parametrize(("first", "later"), [(None, "text"), (None, [{"a": 1}]), ({"a": 1}, {"a": 1, "b": 2})])
    def test_columns_whose_type_changes(self, first: Any, later: Any, place: Place, tmp_path: Path) -> None:
        rows = question_rows(50)
        lines = [json.dumps(row | {"more": first}) + "\n" for row in rows]
        data = tmp_path / "mixed.jsonl"
        data.write_text(
            "".join(lines) * (1 + (24 << 20) // len("".join(lines))) + json.dumps(rows[0] | {"more": later})
        )
        try:
            compute_lengths(lengths_config(place, tmp_path / "o", streaming=True, dataset=str(data), limit=10**30))
        except DatasetError as error:
            assert "mixed.jsonl" in str(error) and "\n" not in str(error)
        else:
            assert len(sorted_rows(tmp_path / "o")) == data.read_text().count("question")

    def test_where_there_is_no_room(self, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(datasets.arrow_writer.ArrowWriter, "write_table", full)
        with pytest.raises(OutputError, match=r"no room for the rows .*TMPDIR"):
            compute_lengths(lengths_config(place, tmp_path / "o", streaming=True))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_parquet_file_without_rows(streaming: bool, place: Place, tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": pa.array([], pa.string())}), tmp_path / "none.parquet")
    given = {"dataset": str(tmp_path / "none.parquet"), "streaming": streaming}
    with pytest.raises(DatasetError, match=r"none\.parquet.* (holds|has) no rows"):
        compute_lengths(lengths_config(place, tmp_path / "o", **given))


@pytest.mark.parametrize("processes", [-1, 3_000_000_000])
def test_numbers_of_processes_that_make_no_sense(processes: int, place: Place, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--processes is .*; expected 0 to 1,024"):
        lengths_config(place, tmp_path / "o", processes=processes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped(number: signal.Signals, place: Place, tmp_path: Path):
    """Nothing stays: no half dataset, no temporary file."""
    data = write_jsonl(tmp_path / "many.jsonl", question_rows(60_000))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    given = ["--model", str(place.teacher), "--dataset", str(data), "--output", str(tmp_path / "o"), "--streaming"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "compute_lengths.py"), *given],
        env=os.environ | {"TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "assistant tokens" not in process.stderr.readline():  # then it begins to count
        assert process.poll() is None
    time.sleep(0.3)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert out == "" and err.splitlines()[-1] == f"stopped by {number.name}; run it again to begin anew"
    assert not list(scratch.iterdir()) and not (tmp_path / "o").exists()
