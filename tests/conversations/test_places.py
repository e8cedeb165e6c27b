"""Datasets from anywhere: patterns of files, CSV, compressed files, parts of a Hub dataset."""

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from teacher_logits.conversations.places import Place, load_rows
from teacher_logits.errors import DatasetError
from tests.conversations.reading import contents, opened
from tests.hub_server import HubServer
from tests.tiny import messages, write_jsonl

ROWS = [{"question": f"q{n}", "answer": f"a{n}"} for n in range(5)]
PAIRS = [[f"q{n}", f"a{n}"] for n in range(5)]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """The rows in two files, and something else beside them."""
    folder = tmp_path / "parts"
    (folder / "deeper").mkdir(parents=True)
    write_jsonl(folder / "b.jsonl", ROWS[3:])
    write_jsonl(folder / "a.jsonl", ROWS[:3])
    write_jsonl(folder / "deeper" / "c.jsonl", [{"question": "deep", "answer": "down"}])
    (folder / "README.md").write_text("Read me.")
    return folder


class TestPatterns:
    def test_all_files_that_fit_in_order(self, parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert contents(opened(parts / "*.jsonl")) == PAIRS
        assert contents(opened(parts / "[b]*")) == PAIRS[3:]
        assert contents(opened(parts / "**" / "*.jsonl")) == [*PAIRS, ["deep", "down"]]
        monkeypatch.chdir(parts.parent)
        assert contents(opened("parts/?.jsonl")) == contents(opened("./parts/*")) == PAIRS

    def test_how_many_there_are_is_said(self, parts: Path) -> None:
        assert opened(parts / "*.jsonl").describe().endswith(f", from *.jsonl (2 files, {len(PAIRS)} rows)")
        assert opened(parts / "a*").describe().endswith(", from a* (1 file, 3 rows)")
        assert opened(parts / "a.jsonl").describe().endswith(", from a.jsonl")

    def test_they_are_the_split_that_is_asked_for(self, parts: Path) -> None:
        source = opened(parts / "*.jsonl", split="train[1:4]")
        assert contents(source) == PAIRS[1:4] and source.split == "train"
        assert opened(parts / "*.jsonl", split="test").split == "test"

    def test_what_identifies_them_is_their_content_in_order(self, parts: Path, tmp_path: Path) -> None:
        before = opened(parts / "*.jsonl")
        assert before.name == "*.jsonl" and str(parts) not in before.content
        moved = shutil.copytree(parts, tmp_path / "elsewhere")
        (moved / "b.jsonl").rename(moved / "other.jsonl")
        assert opened(moved / "*.jsonl").content == before.content
        (moved / "other.jsonl").rename(moved / "0.jsonl")
        assert opened(moved / "*.jsonl").content != before.content
        shutil.rmtree(parts / "deeper")
        assert opened(parts).content == before.content, "the folder holds the same"
        assert opened(parts / "a*").content == opened(parts / "a.jsonl").content

    def test_files_of_a_folder(self, parts: Path) -> None:
        assert contents(opened(parts, data_files="*.jsonl")) == PAIRS
        assert contents(opened(parts, data_files="deeper/c.jsonl")) == [["deep", "down"]]
        assert opened(parts, data_files="*.jsonl").content == opened(parts / "*.jsonl").content

    def test_none_that_fits(self, parts: Path) -> None:
        with pytest.raises(DatasetError, match=r"No file fits .*\*\.parquet .*\.jsonl, "):
            opened(parts / "*.parquet")
        with pytest.raises(DatasetError, match="No file fits"):
            opened(parts, data_files="*.md")

    def test_several_kinds_are_refused_with_advice(self, parts: Path) -> None:
        pq.write_table(pa.Table.from_pylist(ROWS), parts / "d.parquet")
        for address in (parts, parts / "*"):
            with pytest.raises(DatasetError, match=rf"\.jsonl and \.parquet files.*--dataset '{parts}/\*\.jsonl'"):
                opened(address)
        assert contents(opened(parts / "*.jsonl")) == PAIRS

    def test_several_shapes(self, parts: Path) -> None:
        pq.write_table(pa.Table.from_pylist(ROWS), parts / "d.parquet")
        pq.write_table(pa.Table.from_pylist([{"messages": messages("a", "b")}]), parts / "e.parquet")
        with pytest.raises(DatasetError, match=r"its rows have different columns\. Name files of one shape"):
            opened(parts / "*.parquet")

    def test_data_files_of_one_file(self, parts: Path) -> None:
        with pytest.raises(DatasetError, match="--data-files chooses files of a Hub dataset or of a folder"):
            opened(parts / "a.jsonl", data_files="*")


@pytest.mark.parametrize("address", ["$HOME/rows.jsonl", "${HOME}/rows.jsonl", "~/rows.jsonl", "$HOME/r*.jsonl"])
def test_variables_mean_what_they_mean_in_a_shell(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    trap = tmp_path / "$HOME"
    trap.mkdir()
    write_jsonl(trap / "rows.jsonl", ROWS[:1])
    source = opened(address)
    assert contents(source) == PAIRS
    assert source.content == opened(tmp_path / "rows.jsonl").content


def test_a_file_address(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    assert contents(opened(f"file://{path}")) == PAIRS
    with pytest.raises(DatasetError, match="no file or folder file:///nowhere"):
        opened("file:///nowhere")


@pytest.mark.parametrize("option", ["dataset_revision", "dataset_config"])
def test_options_of_the_hub_are_refused_here(option: str, parts: Path) -> None:
    flag = "--" + option.replace("_", "-")
    for address in (parts / "a.jsonl", parts, parts / "*.jsonl"):
        with pytest.raises(DatasetError, match=rf"{flag} is for datasets on the Hub, and .* leave it out"):
            opened(address, **{option: "main"})


class TestCsv:
    def test_every_cell_is_text(self, tmp_path: Path) -> None:
        (tmp_path / "rows.csv").write_text('question,answer\n007,NA\n"a, ""b""\nc",1.50\n,x\nnull,True\n')
        assert contents(opened(tmp_path / "rows.csv")) == [
            ["007", "NA"],
            ['a, "b"\nc', "1.50"],
            "empty user content",
            ["null", "True"],
        ]

    def test_tabs(self, tmp_path: Path) -> None:
        (tmp_path / "rows.tsv").write_text("question\tanswer\na,b\tc\n")
        assert contents(opened(tmp_path / "rows.tsv")) == [["a,b", "c"]]
        assert contents(opened(tmp_path / "*.tsv")) == contents(opened(tmp_path)) == [["a,b", "c"]]

    def test_numbers_where_they_are_asked_for(self, tmp_path: Path) -> None:
        (tmp_path / "rows.csv").write_text("id,original_index,question,answer\n7,3,1,2\n8,4,3,4\n")
        assert opened(tmp_path / "rows.csv").index.tolist() == [3, 4]
        source = opened(tmp_path / "rows.csv", index_col="id")
        assert source.index.tolist() == [7, 8] and contents(source) == [["1", "2"], ["3", "4"]]

    def test_messages_in_json_text(self, tmp_path: Path) -> None:
        cell = json.dumps(messages("a", "b")).replace('"', '""')
        (tmp_path / "rows.csv").write_text(f'messages\n"{cell}"\n')
        assert contents(opened(tmp_path / "rows.csv")) == [["a", "b"]]

    @pytest.mark.parametrize("content", [b"", b"question,answer\n", b"question,answer\n1,2\n3,4,5\n", b"q,a\n\xff,b\n"])
    def test_what_can_not_be_read(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "rows.csv").write_bytes(content)
        with pytest.raises(DatasetError, match=r"rows\.csv"):
            opened(tmp_path / "rows.csv")


def test_compressed_files(tmp_path: Path) -> None:
    plain = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    with gzip.open(tmp_path / "other.jsonl.gz", "wb") as stream:
        stream.write(plain.read_bytes())
    assert contents(opened(tmp_path / "other.jsonl.gz")) == contents(opened(tmp_path / "o*.gz")) == PAIRS


def test_rows_are_mapped_from_disk(tmp_path: Path) -> None:
    """None of the kinds is held in memory: the rows lie in files of Arrow's, which are mapped."""
    table = pa.Table.from_pylist(ROWS)
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    pq.write_table(table, tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text("question,answer\na,b\n")
    opened(tmp_path / "rows.jsonl").dataset.save_to_disk(tmp_path / "saved")
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    for path in (*tmp_path.glob("rows.*"), tmp_path / "saved", arrow):
        assert opened(path).dataset.cache_files, path


def test_a_chat_dataset_is_no_log_of_agents(tmp_path: Path) -> None:
    """The library takes JSON with these columns for one, and asks for another library to make it over."""
    row = {"id": "1", "source": "s", "model": "m", "system_prompt": "p", "messages": messages("a", "b")}
    assert contents(opened(write_jsonl(tmp_path / "rows.jsonl", [row]))) == [["a", "b"]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", server.token)
        lines = [json.dumps(row).encode() + b"\n" for row in ROWS]
        files = {"a/one.jsonl": b"".join(lines[:2]), "a/two.jsonl": b"".join(lines[2:]), "b/x[1].jsonl": lines[0]}
        server.add_files("tester/chats", {**files, "a/card.md": b"hello", "b/other.csv": b"question,answer\n1,2\n"})
        yield server


class TestHubFiles:
    def opened(self, address: str, **options: Any) -> Any:
        source = opened(address, **options)
        assert source.name == "tester/chats"
        return source

    def test_a_pattern(self, hub: HubServer) -> None:
        commit = hub.commits("tester/chats")[0].oid
        one = self.opened("tester/chats", data_files="a/*.jsonl")
        other = self.opened("hf://datasets/tester/chats/a/*.jsonl", split="test")
        assert contents(one) == contents(other) == PAIRS
        assert one.content == other.content == f"hub:tester/chats/a/*.jsonl@{commit}"
        assert one.revision == commit

    def test_all_of_it_a_configuration_and_an_earlier_commit(
        self, hub: HubServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.endpoint)
        card = "---\nconfigs:\n- config_name: first\n  default: true\n  data_files: a/*.jsonl\n"
        card += "- config_name: other\n  data_files: c/*.jsonl\n---\n"
        more = b'{"question": "1", "answer": "2"}\n'
        hub.add_files("tester/chats", {"README.md": card.encode(), "c/other.jsonl": more})
        before = hub.commits("tester/chats")[0].oid
        hub.add_files("tester/chats", {"a/one.jsonl": b'{"question": "new", "answer": "row"}\n'})
        now = hub.commits("tester/chats")[0].oid
        for options, commit, subset, rows in (
            ({}, now, "", [["new", "row"], *PAIRS[2:]]),
            ({"dataset_revision": before}, before, "", PAIRS),
            ({"dataset_config": "other"}, now, ":other", [["1", "2"]]),
        ):
            source = self.opened("tester/chats", **options)
            assert contents(source) == rows and source.revision == commit
            assert source.content == f"hub:tester/chats{subset}@{commit}"
        with pytest.raises(DatasetError, match=r"tester/chats.*first.*other"):
            opened("tester/chats", dataset_config="third")

    def test_one_file_by_its_name(self, hub: HubServer) -> None:
        assert contents(self.opened("hf://datasets/tester/chats/a/one.jsonl")) == PAIRS[:2]
        assert contents(self.opened("hf://datasets/tester/chats@main/a/two.jsonl")) == PAIRS[2:]
        assert contents(self.opened("hf://datasets/tester/chats/b/*.csv")) == [["1", "2"]]

    def test_an_earlier_commit(self, hub: HubServer) -> None:
        before = hub.commits("tester/chats")[0].oid
        hub.add_files("tester/chats", {"a/one.jsonl": b'{"question": "new", "answer": "row"}\n'})
        assert contents(self.opened("tester/chats", data_files="a/one*"))[0] == ["new", "row"]
        for options in ({"dataset": f"hf://datasets/tester/chats@{before}/a/one.jsonl"}, {"dataset_revision": before}):
            address = options.pop("dataset", "hf://datasets/tester/chats/a/one.jsonl")
            assert contents(self.opened(address, **options)) == PAIRS[:2]

    def test_what_does_not_go_together(self, hub: HubServer) -> None:
        with pytest.raises(DatasetError, match=r"\.csv and \.jsonl files"):
            opened("hf://datasets/tester/chats/*/*")
        with pytest.raises(DatasetError, match=r"No file of dataset tester/chats fits a that.*such as a/\*\.parquet"):
            opened("hf://datasets/tester/chats/a")
        with pytest.raises(DatasetError, match="--dataset-config and a choice of files"):
            opened("hf://datasets/tester/chats/a/*.jsonl", dataset_config="default")
        with pytest.raises(DatasetError, match="both choose files"):
            opened("hf://datasets/tester/chats/a/*.jsonl", data_files="b/*")
        with pytest.raises(DatasetError, match="--dataset-revision and the revision in"):
            opened("hf://datasets/tester/chats@main/a/*.jsonl", dataset_revision="main")

    def test_what_is_not_there(self, hub: HubServer) -> None:
        with pytest.raises(DatasetError, match="no dataset 'tester/nothing'"):
            opened("hf://datasets/tester/nothing/a.jsonl")
        with pytest.raises(DatasetError, match="has not the revision"):
            opened("hf://datasets/tester/chats@nope/a/one.jsonl")


@pytest.mark.parametrize("address", ["hf://tester/chats", "hf://datasets/chats", "hf://", "hf://models/a/b/c.jsonl"])
def test_what_is_no_address_of_a_dataset(address: str) -> None:
    with pytest.raises(DatasetError, match="is no address of a dataset; expected hf://datasets/user/name"):
        load_rows(Place(address))
