"""What `load_dataset` makes of an output, in a process of its own: on the Hub and in a folder, streaming and not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi

from teacher_logits.hub import FolderRepository
from teacher_logits.journal import RunCache
from tests.hub.made import REPO, ROWS, hub, make_uploader, prepared, upload_everything, wait_until_idle
from tests.hub_server import HubServer, hub_environment

SCRIPT = """
import json, sys
from datasets import load_dataset, load_dataset_builder
found = []
for address, split in json.loads(sys.argv[1]):
    whole = load_dataset(address, split=split)
    streamed = load_dataset(address, split=split, streaming=True)
    found.append([list(load_dataset(address)), [row for row in whole] == [row for row in streamed],
                  whole.with_format("arrow")[:].to_pydict() if found == [] else whole["index"][:]])
print(json.dumps(found, default=lambda value: value.hex()))
"""


def test_load_dataset(server: HubServer, api: HfApi, cache: RunCache, tmp_path: Path):
    upload_everything(hub(api), cache)
    folders = {"train": tmp_path / "train", "validation-2.x": tmp_path / "odd", "test_sft": tmp_path / "sft"}
    for split, folder in folders.items():
        upload_everything(FolderRepository(folder), cache, split=split)
    names = ["train", "train", "validation_2_x", "test_sft"]
    wanted = list(zip([REPO, *map(str, folders.values())], names, strict=True))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(wanted)],
        env=hub_environment(server, tmp_path / "home"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [splits for splits, _, _ in found] == [[name] for name in names]
    assert all(same for _, same, _ in found)
    expected = json.loads(json.dumps(ROWS.to_pydict(), default=lambda value: value.hex()))
    assert found[0][2] == expected, "every value of every column"
    assert all(index == list(range(40)) for _, _, index in found[1:])


GROWING = """
import sys
from datasets import load_dataset
print(len(load_dataset(sys.argv[1], split="train")))
"""


def test_folders_of_one_name_and_one_that_grew(cache: RunCache, tmp_path: Path):
    """`load_dataset` keeps what it has read of a folder: it must see that this is another one, or has more now."""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}

    def rows(folder: Path) -> int | str:
        command = [sys.executable, "-c", GROWING, str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        return int(done.stdout) if done.returncode == 0 else done.stderr

    for place, count in (("one", 40), ("other", 10)):
        upload_everything(FolderRepository(tmp_path / place / "logits"), cache, rows=ROWS.slice(0, count))
        assert rows(tmp_path / place / "logits") == count
    growing = make_uploader(prepared(FolderRepository(tmp_path / "grown")), cache)
    growing.start()
    growing.add_rows(ROWS.slice(0, 10))
    wait_until_idle(growing)
    assert rows(tmp_path / "grown") == 10
    growing.add_rows(ROWS.slice(10))
    growing.finish()
    assert rows(tmp_path / "grown") == 40


@pytest.mark.parametrize("split", ["train", "validation-2.x"])
def test_card(tmp_path: Path, cache: RunCache, split: str):
    upload_everything(FolderRepository(tmp_path / "o"), cache, split=split)
    _, header, body = (tmp_path / "o" / "README.md").read_text().split("---\n", 2)
    content = yaml.safe_load(header)
    (config,) = content["configs"]
    ((data),) = config["data_files"]
    assert data["split"].isidentifier()
    matched = sorted(path.name for path in (tmp_path / "o").glob(data["path"]))
    assert matched == sorted(path.name for path in (tmp_path / "o" / "data").iterdir())
    assert "| conversations | 40 |" in body and "| assistant tokens | 120 |" in body and "| complete | yes |" in body
    assert f'load_dataset("./o", split="{data["split"]}")' in body
    assert "{" not in body.split("## Loading")[0], "no field is left unfilled"
