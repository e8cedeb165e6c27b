"""The same dataset on a Hub."""

import json
import subprocess
import sys
from pathlib import Path

import explore_logits
from teacher_logits.exploring import dataset_report, dataset_stats_text
from tests.exploring.damage import shards_of
from tests.exploring.made import TEXTS, Made
from tests.exploring.parsing import Page, Tables
from tests.extraction.runs import Place
from tests.hub_server import Fault, HubServer, hub_environment

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
        stats = run(server, tmp_path, "explore_logits.py", REPO, "stats", "--revision", "main")
        page = tmp_path / "report.html"
        run(server, tmp_path, "explore_logits.py", REPO, "report", "-o", str(page), "--no-source")
        shown = run(server, tmp_path, "explore_logits.py", REPO, "show", "--index", "5", "--revision", "main")
    assert shown.startswith("conversation 5: ")
    text = dataset_stats_text(explore_logits.compute_dataset_stats(made.folder), made.tokenizer)
    assert stats.startswith(text) and "sampled_indices_low" in stats
    report = page.read_text(encoding="utf-8")
    assert Tables(report).tables == Tables(dataset_report(made.folder, verify=False)).tables
    assert Page(report).texts["h1"] == [REPO]
    assert f"python explore_logits.py {REPO} html --index 5" in Page(report).texts["code"]


def verify(server: HubServer, home: Path, *options: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "explore_logits.py", "verify", REPO, *options],
        env=hub_environment(server, home / "home") | {"TMPDIR": str(home)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout.splitlines()


def test_verify(tiny_teacher: Path, tiny_chat: Path, tmp_path: Path):
    """A download that comes wrong is fetched again; one that stays wrong is named. Nothing is left on the disk."""
    place = Place(tiny_teacher, tiny_chat, tmp_path / "logits", tmp_path / "cache")
    place.run(limit=10)
    one, other = shards_of(place.folder)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with HubServer() as server:
        server.add_files(REPO, files(place.folder))
        fault = server.add_fault(Fault("GET", "/storage/|/resolve/.*parquet", "corrupt", times=1))
        code, lines = verify(server, temporary)
        assert (code, len(lines)) == (0, 1) and "looked at 2 shards, 10 conversations" in lines[0]
        assert server.struck(fault) == 1
        small = server.add_fault(Fault("GET", "checkpoint.json", "corrupt", times=2))
        assert verify(server, temporary)[0] == 0 and server.struck(small) == 2
        server.add_fault(Fault("GET", "checkpoint.json", "corrupt", times=None))
        assert verify(server, temporary)[0] == 2, "nothing is said of what can't be fetched"
        server.clear_faults()
        sound = server.commits(REPO)[0].oid
        server.add_files(REPO, {one: (place.folder / other).read_bytes(), other: b""})
        code, lines = verify(server, temporary)
        assert code == 1 and lines[0].startswith(f"{one}: SHA-256 is ")
        assert f"{other}: is empty, 0 bytes" in lines
        assert verify(server, temporary, "--revision", sound, "--no-source")[0] == 0
    assert [path.name for path in temporary.iterdir() if path.name.startswith("teacher-logits")] == []
