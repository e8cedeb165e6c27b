"""The same dataset on a Hub."""

import json
import subprocess
import sys
from pathlib import Path

import explore_logits
from tests.exploring.made import TEXTS, Made
from tests.hub_server import HubServer, hub_environment

REPO = "tester/logits"
ROOT = Path(explore_logits.__file__).parent
SCRIPT = f"""
import json
from explore_logits import *
from teacher_logits.errors import FormatError
found = {{"run": load_extraction_config("{REPO}")["total_samples"]}}
for streaming in (False, True):
    dataset = load_logit_dataset("{REPO}", streaming=streaming)
    sample = get_sample(dataset, index=5)
    found[str(streaming)] = [get_sample(dataset, 1)["index"], sample["top_indices"][1].tolist(), sample["logits_dtype"]]
for name, revision in (("tester/nothing", None), ("{REPO}", "gone"), ("tester/empty", None)):
    try:
        load_logit_dataset(name, revision=revision)
    except FormatError as error:
        found[f"{{name}} {{revision}}"] = str(error)
print(json.dumps(found))
"""


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(server: HubServer, home: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env=hub_environment(server, home),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_a_notebook(made: Made, tmp_path: Path):
    with HubServer() as server:
        server.add_files(REPO, files(made.folder))
        server.create_repository("tester/empty")
        found = json.loads(run(server, tmp_path, "-c", SCRIPT).splitlines()[-1])
    entries = made.entries[5]
    nucleus = entries.top_ids[1, : entries.top_counts[1]].tolist()
    assert found["run"] == 4
    assert found["False"] == found["True"] == [list(TEXTS)[1], nucleus, "bfloat16"]
    assert "no such dataset" in found["tester/nothing None"]
    assert "no such revision" in found[f"{REPO} gone"]
    assert "no shards" in found["tester/empty None"]


def test_in_a_terminal(made: Made, tmp_path: Path):
    with HubServer() as server:
        server.add_files(REPO, files(made.folder))
        assert "4 in 2 shards" in run(server, tmp_path, "explore_logits.py", REPO)
        shown = run(server, tmp_path, "explore_logits.py", REPO, "show", "--index", "5", "--revision", "main")
    assert shown.startswith("conversation 5: ")
