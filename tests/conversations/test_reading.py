"""Files, folders and saved datasets become the same rows, or an error that says what to do."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher_logits.conversations import prepare_dataset
from teacher_logits.errors import DatasetError
from teacher_logits.settings import SourceOptions
from tests.conversations.reading import contents, found, of_rows, opened
from tests.tiny import write_jsonl

ROWS = [{"question": f"q{n}", "answer": f"a{n}"} for n in range(5)]
PAIRS = [[f"q{n}", f"a{n}"] for n in range(5)]


def as_jsonl(folder: Path) -> Path:
    return write_jsonl(folder / "rows.jsonl", ROWS)


def as_json_list(folder: Path) -> Path:
    (folder / "rows.json").write_text(json.dumps(ROWS))
    return folder / "rows.json"


def as_lines_in_json(folder: Path) -> Path:
    return write_jsonl(folder / "rows.json", ROWS)


def as_parquet(folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet", row_group_size=2)
    return folder / "rows.parquet"


def as_arrow_file(folder: Path) -> Path:
    as_saved(folder)
    return next((folder / "saved").glob("*.arrow"))


def as_saved(folder: Path) -> Path:
    datasets.Dataset.from_list(ROWS).save_to_disk(folder / "saved")
    return folder / "saved"


def as_saved_selection(folder: Path) -> Path:
    """Saved with an indices mapping: the order of the rows is not that of an underlying table."""
    datasets.Dataset.from_list(ROWS[::-1]).select([4, 3, 2, 1, 0]).save_to_disk(folder / "saved")
    return folder / "saved"


def as_saved_splits(folder: Path) -> Path:
    other = datasets.Dataset.from_list([{"question": "wrong", "answer": "split"}])
    datasets.DatasetDict(test=other, train=datasets.Dataset.from_list(ROWS)).save_to_disk(folder / "saved")
    return folder / "saved"


def as_parquet_folder(folder: Path) -> Path:
    (folder / "parts").mkdir()
    for number, rows in enumerate((ROWS[:2], ROWS[2:])):
        pq.write_table(pa.Table.from_pylist(rows), folder / "parts" / f"train-0000{number}-of-00002.parquet")
    return folder / "parts"


def as_plain_folder(folder: Path) -> Path:
    (folder / "parts").mkdir()
    write_jsonl(folder / "parts" / "b.jsonl", ROWS[3:])
    write_jsonl(folder / "parts" / "a.jsonl", ROWS[:3])
    return folder / "parts"


KINDS = [
    as_jsonl,
    as_json_list,
    as_lines_in_json,
    as_parquet,
    as_arrow_file,
    as_saved,
    as_saved_selection,
    as_saved_splits,
    as_parquet_folder,
    as_plain_folder,
]


@pytest.mark.parametrize("write", KINDS)
def test_every_kind_gives_the_same_rows_in_order(write: Callable[[Path], Path], tmp_path: Path) -> None:
    source = opened(write(tmp_path))
    assert contents(source) == PAIRS
    assert source.index.tolist() == [0, 1, 2, 3, 4]
    assert source.split == "train" and source.revision is None
    assert source.columns.names() == {"user": "question", "assistant": "answer"}


def test_rows_come_in_the_order_asked_for(tmp_path: Path) -> None:
    source = of_rows(tmp_path, ROWS)
    asked = list(source.conversations([3, 0, 3]))
    assert [c.messages[0]["content"] for c in asked] == ["q3", "q0", "q3"]  # type: ignore[union-attr]
    assert [c.index for c in asked] == [3, 0, 3]  # type: ignore[union-attr]


def test_reading_twice_gives_the_same(tmp_path: Path) -> None:
    path = as_jsonl(tmp_path)
    first, second = opened(path), opened(path)
    assert found(first) == found(second) == found(first)
    assert first.content == second.content


def test_the_other_split_of_a_saved_dataset(tmp_path: Path) -> None:
    path = as_saved_splits(tmp_path)
    assert contents(opened(path, split="test")) == [["wrong", "split"]]
    with pytest.raises(DatasetError, match=r"no split 'val'; it has 'test', 'train'"):
        opened(path, split="val")


@pytest.mark.parametrize(
    "name", ["a[1].jsonl", "a*.jsonl", "a?.jsonl", "a b#c%20.jsonl", "[x]/a.jsonl", ".hidden/a.jsonl"]
)
def test_a_name_is_not_a_pattern(name: str, tmp_path: Path) -> None:
    """Beside the file stands another that its name, taken as a pattern, would match."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write_jsonl(path, ROWS)
    write_jsonl(path.parent / "ab.jsonl", [{"question": "wrong", "answer": "file"}])
    write_jsonl(path.parent / "a1.jsonl", [{"question": "wrong", "answer": "file"}])
    assert contents(opened(path)) == PAIRS


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    as_jsonl(tmp_path)
    assert contents(opened("~/rows.jsonl")) == PAIRS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.jsonl", b'{"question": "q", "answer": "a"}\n{"question":\n', "bad.jsonl can't be read.*row 1"),
        ("bad.json", b'[{"question": ', "bad.json can't be read"),
        ("words.jsonl", b"hello\n", "can't be read"),
        ("numbers.jsonl", b"1\n2\n", "can't be read"),
        ("empty.jsonl", b"", "empty.jsonl holds no rows"),
        ("empty.json", b"", "empty.json holds no rows"),
        ("none.json", b"[]", "none.json"),
        ("empty.parquet", b"", "empty.parquet"),
        ("bad.parquet", b"not parquet", "bad.parquet"),
        ("bad.arrow", b"not arrow", "bad.arrow"),
        (
            "chat.txt",
            b"hello",
            r"not a kind of file that is read \(\.jsonl, \.json, \.parquet, \.arrow, \.csv, \.tsv\)",
        ),
    ],
)
def test_what_can_not_be_read_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        opened(tmp_path / name)


def test_a_dataset_without_rows(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS).slice(0, 0), tmp_path / "none.parquet")
    with pytest.raises(DatasetError, match=r"none\.parquet"):
        opened(tmp_path / "none.parquet")
    datasets.Dataset.from_list(ROWS).select([]).save_to_disk(tmp_path / "none")
    with pytest.raises(DatasetError, match="holds no rows"):
        opened(tmp_path / "none")


def test_a_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no \.jsonl"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["./nothing", "/nowhere/at/all", "~/nothing", "rows.jsonl", "sub/rows.parquet"])
def test_a_missing_file_is_not_a_hub_id(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DatasetError, match=f"no file or folder {name}"):
        opened(name)


def test_a_missing_split_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no split 'test'; it has 'train'"):
        opened(as_parquet_folder(tmp_path), split="test")


CARD = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*.parquet\n---\n"


def sorted_folder(folder: Path, rows: int) -> Path:
    """As compute_lengths.py writes it: the card names the files of the split by a pattern."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(CARD)
    table = pa.Table.from_pylist([{"question": f"q{n}", "answer": f"{folder}"} for n in range(rows)])
    pq.write_table(table, folder / "data" / "train-00000-of-00001.parquet")
    return folder


def test_folders_of_one_name_are_not_taken_for_each_other(tmp_path: Path) -> None:
    for place, rows in (("one", 7), ("other", 4)):
        folder = sorted_folder(tmp_path / place / "sorted", rows)
        assert contents(opened(folder)) == [[f"q{n}", str(folder)] for n in range(rows)]


def test_a_folder_that_was_written_again_is_read_again(tmp_path: Path) -> None:
    for rows in (7, 9, 4):
        assert len(contents(opened(sorted_folder(tmp_path / "sorted", rows)))) == rows


def test_the_card_of_a_folder_names_its_splits(tmp_path: Path) -> None:
    folder = sorted_folder(tmp_path / "sorted", 3)
    (folder / "README.md").write_text(CARD.replace("split: train", "split: held_out"))
    assert len(contents(opened(folder, split="held_out"))) == 3
    assert len(contents(opened(folder, split="held_out[:2]"))) == 2
    with pytest.raises(DatasetError, match=r"no split 'train'; it has 'held_out'"):
        opened(folder)


def test_a_row_that_is_not_utf8_spoils_itself_alone(tmp_path: Path) -> None:
    lines = [
        b'{"question": "a", "answer": "b"}',
        b'{"question": "\xff\xfe", "answer": "b"}',
        b'{"question": "c", "answer": "d"}',
    ]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    first, spoilt, last = contents(opened(tmp_path / "rows.jsonl"))
    assert first == ["a", "b"] and last == ["c", "d"]
    assert isinstance(spoilt, str) and "UTF-8" in spoilt


def test_reading_a_file_asks_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("datasets.config.HF_UPDATE_DOWNLOAD_COUNTS", True)
    monkeypatch.setattr("datasets.load.get_session", lambda: asked.append("session"))
    monkeypatch.setattr("socket.getaddrinfo", lambda *address, **kind: asked.append(address))
    assert contents(opened(as_jsonl(tmp_path))) == PAIRS
    assert contents(opened(as_parquet_folder(tmp_path))) == PAIRS
    assert not asked


@pytest.mark.parametrize("name", ["nobody/nothing", "nothing"])
def test_a_hub_that_can_not_be_reached(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(DatasetError, match=f"can't be reached for dataset '{name}'"):
        opened(name)


def test_an_offline_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DatasetError, match="offline"):
        opened("nobody/nothing")


@pytest.mark.parametrize("name", ["a/b/c/d", "no body"])
def test_a_name_that_is_neither_file_nor_hub_id(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="neither a file or folder here nor a Hub id"):
        opened(name)


class TestContentHash:
    """It says which rows there are, wherever they lie; a resumed run is held against it."""

    @pytest.mark.parametrize("write", KINDS)
    def test_independent_of_place(self, write: Callable[[Path], Path], tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "other").mkdir()
        one = write(tmp_path / "one")
        other = one.rename(tmp_path / "other" / f"renamed{one.suffix}")
        content = opened(other).content
        assert content == opened(write(tmp_path / "one")).content
        assert content.startswith("sha256:") and "renamed" not in content

    def test_sensitive_to_every_letter(self, tmp_path: Path) -> None:
        changed = [*ROWS[:4], {"question": "q4", "answer": "a5"}]
        assert of_rows(tmp_path, changed).content != opened(as_jsonl(tmp_path)).content

    def test_sensitive_to_order(self, tmp_path: Path) -> None:
        assert of_rows(tmp_path, ROWS[::-1]).content != opened(as_jsonl(tmp_path)).content

    def test_sees_every_file_of_a_folder(self, tmp_path: Path) -> None:
        path = as_plain_folder(tmp_path)
        before = opened(path).content
        write_jsonl(path / "b.jsonl", [*ROWS[3:4], {"question": "q4", "answer": "other"}])
        assert opened(path).content != before

    def test_sees_every_split_of_a_saved_dataset(self, tmp_path: Path) -> None:
        """The rows of a saved dataset are what counts, not what the library notes beside them."""
        path = as_saved_splits(tmp_path)
        before = opened(path).content
        state = path / "train" / "state.json"
        state.write_text(json.dumps(json.loads(state.read_text()) | {"_fingerprint": "0123456789abcdef"}))
        assert opened(path).content == before
        other = datasets.Dataset.from_list(ROWS[::-1])
        datasets.DatasetDict(test=other, train=other).save_to_disk(path)
        assert opened(path).content != before

    def test_follows_a_file_that_changes_in_place(self, tmp_path: Path) -> None:
        path = as_jsonl(tmp_path)
        before = opened(path)
        write_jsonl(path, [{"question": "new", "answer": "row"}])
        os.utime(path, (1e9, 1e9))
        after = opened(path)
        assert contents(after) == [["new", "row"]] and after.content != before.content


def test_prepare_dataset_is_the_public_name(tmp_path: Path) -> None:
    assert contents(prepare_dataset(SourceOptions(dataset=str(as_jsonl(tmp_path))))) == PAIRS
