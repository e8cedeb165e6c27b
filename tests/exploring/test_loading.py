"""Opening a dataset and its run, and what is said where that can't be."""

import json
import shutil
from pathlib import Path

import pytest
from datasets import Dataset, IterableDataset, load_dataset

from explore_logits import get_sample, load_extraction_config, load_logit_dataset
from teacher_logits.command_line.explore import main
from teacher_logits.errors import FormatError, TeacherError
from teacher_logits.exploring import NoSuchSampleError, tokenizer_of
from teacher_logits.exploring.loading import run_of_dataset
from teacher_logits.extraction.extract import run_extraction
from teacher_logits.settings import ExtractionConfig
from tests.exploring.damage import change_table
from tests.exploring.made import RUN, TEXTS, Made
from tests.tiny import question_rows, write_jsonl


def test_the_kinds_of_dataset(made: Made):
    assert isinstance(load_logit_dataset(made.folder), Dataset)
    assert isinstance(load_logit_dataset(made.folder, streaming=True), IterableDataset)


@pytest.mark.parametrize("streaming", [False, True])
def test_order_and_run(made: Made, streaming: bool):
    dataset = load_logit_dataset(made.folder, split="train", streaming=streaming)
    assert [row["index"] for row in dataset] == list(TEXTS)
    run = run_of_dataset(dataset.take(2))
    assert run["metadata"]["logits_dtype"] == "bfloat16" and run["config"]["dataset"] == "somebody/chats"


def test_the_plain_library_reads_the_same(made: Made):
    assert load_dataset(str(made.folder), split="train")["index"][:] == list(TEXTS)
    assert run_of_dataset(load_dataset(str(made.folder), split="train")) == {}


def test_ways_to_name_a_folder(made: Made, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(made.folder.parent)
    monkeypatch.setenv("HOME", str(made.folder.parent))
    for name in ("logits", "./logits", "~/logits", f"file://{made.folder}", Path("logits")):
        assert load_extraction_config(name)["total_samples"] == 4
        assert len(load_logit_dataset(name)) == 4


def test_the_run_is_the_checkpoint(made: Made):
    assert load_extraction_config(made.folder) == json.loads((made.folder / "checkpoint.json").read_text())


def test_the_run_from_a_shard(copy: Path):
    (copy / "checkpoint.json").unlink()
    run = load_extraction_config(copy)
    assert run["complete"] is None and run["config"] == run["shards"] == {}
    assert run["fingerprint"] == RUN * 8 and run["metadata"]["model"] == "teacher"
    assert run_of_dataset(load_logit_dataset(copy))["metadata"]["logits_dtype"] == "bfloat16"


def test_shards_of_several_workers_and_splits(copy: Path):
    first, second = sorted((copy / "data").iterdir())
    first.rename(copy / f"data/train-{RUN}-w1-00000.parquet")
    second.rename(copy / f"data/held_out-{RUN}-00000.parquet")
    (copy / "data/something.parquet").write_bytes(b"not ours")
    with pytest.raises(FormatError, match=r"several splits.*held_out, train"):
        load_logit_dataset(copy)
    with pytest.raises(FormatError, match="no split 'test'"):
        load_logit_dataset(copy, split="test")
    assert load_logit_dataset(copy, split="train")["index"][:] == [17, 123]
    assert load_logit_dataset(copy, split="held_out")["index"][:] == [5, 9]


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "no/where/else", "not a name"])
def test_no_such_dataset(name: str):
    for load in (load_logit_dataset, load_extraction_config):
        with pytest.raises(FormatError, match=r"no folder|neither a folder"):
            load(name)


def test_folders_without_a_dataset(copy: Path, tmp_path: Path):
    shutil.rmtree(copy / "data")
    with pytest.raises(FormatError, match="has no shards"):
        load_logit_dataset(copy)
    with pytest.raises(FormatError, match="has no shards"):
        load_extraction_config(tmp_path)


def test_damaged_files(copy: Path):
    shard = min((copy / "data").iterdir())
    shard.write_bytes(shard.read_bytes()[:5000])
    with pytest.raises(FormatError, match="damaged"):
        load_logit_dataset(copy)
    (copy / "checkpoint.json").write_text("{")
    with pytest.raises(FormatError, match="not JSON"):
        load_extraction_config(copy)
    (copy / "checkpoint.json").write_text("[]")
    with pytest.raises(FormatError, match="not one of a logits dataset"):
        load_extraction_config(copy)
    (copy / "checkpoint.json").write_text('{"format_version": 2, "config": {}, "metadata": {}}')
    with pytest.raises(FormatError, match="version 2"):
        load_extraction_config(copy)


def test_other_data_under_our_names(copy: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for shard in (copy / "data").iterdir():
        pq.write_table(pa.table({"index": [1], "text": ["a"]}), shard)
    with pytest.raises(FormatError, match="lacks the columns num_tokens"):
        load_logit_dataset(copy)


def test_folders_as_they_are_seen_from_here(
    tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A run that was started in another folder, and given relative paths there."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "teacher").symlink_to(tiny_teacher)
    write_jsonl(home / "chats.jsonl", question_rows(3))
    monkeypatch.chdir(home)
    config = ExtractionConfig(model="./teacher", dataset="chats.jsonl", output="./out/logits", cache_dir="cache")
    run_extraction(config)
    outputs = {tmp_path: "./home/out/logits", home / "out": "./logits", Path("/"): str(home / "out/logits")}
    for here, output in outputs.items():
        monkeypatch.chdir(here)
        options = load_extraction_config(output)["config"]
        assert (options["model"], options["dataset"]) == (str(home / "teacher"), str(home / "chats.jsonl"))
        assert tokenizer_of(get_sample(output, 0)["run"]).encode("a")
        assert main(["verify", output]) == 0
        assert "could not be looked for" not in capsys.readouterr().out
    monkeypatch.chdir(home)
    assert load_extraction_config("out/logits")["config"]["model"] == "./teacher", "as it was given, where it is there"
    (home / "out/logits").rename(home / "moved")
    monkeypatch.chdir(tmp_path)
    assert load_extraction_config("home/moved")["config"]["model"] == "./teacher", "nobody can tell"


def test_the_runs_tokenizer(made: Made, caplog: pytest.LogCaptureFixture):
    run = load_extraction_config(made.folder)
    assert tokenizer_of(run).get_vocab() == made.tokenizer.get_vocab()
    assert not caplog.records
    tokenizer_of({**run, "metadata": {"tokenizer_sha256": "0" * 64}})
    assert "not the one this dataset was made with" in caplog.text
    with pytest.raises(TeacherError, match="which model"):
        tokenizer_of({})
    with pytest.raises(TeacherError, match=r"tokenizer of \./gone can't be loaded"):
        tokenizer_of({"config": {"model": "./gone"}})


@pytest.mark.parametrize("streaming", [False, True])
def test_shards_without_rows(copy: Path, streaming: bool):
    change_table(copy, lambda table: table.slice(0, 0))
    dataset = load_logit_dataset(copy, streaming=streaming)
    assert [row["index"] for row in dataset] == list(TEXTS)[2:]
    assert get_sample(dataset, 1)["index"] == list(TEXTS)[3]
    change_table(copy, lambda table: table.slice(0, 0), 1)
    empty = load_logit_dataset(copy, streaming=streaming)
    assert list(empty) == [] and empty.features == dataset.features
    with pytest.raises(NoSuchSampleError):
        get_sample(empty, 0)
