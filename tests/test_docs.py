"""The documentation says what the code does: the generated table is up to date, and what is named exists."""

import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from teacher_logits.extraction.compute_lengths import LengthsConfig
from teacher_logits.settings import ExtractionConfig, option_name

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
KNOWN = {option_name(each.name) for config in (ExtractionConfig, LengthsConfig) for each in fields(config)}
ELSEWHERE = {"--help", "--index", "--extra", "--json", "--source"}
ELSEWHERE |= {"--conversations", "--rows", "--repeats", "--entries", "--threads", "--tokens"}
ELSEWHERE |= {"--shards", "--large-tokens", "--signal"}
ELSEWHERE |= {"--templates", "--tokenizer", "--show", "--retokenize"}
ELSEWHERE |= {"--position", "--theme", "--verify"}
ELSEWHERE |= {"--kills", "--only", "--random", "--times"}
"""Options of other commands that the pages name."""


def test_the_options_table_is_up_to_date():
    done = subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "--check"], timeout=60)
    assert done.returncode == 0, "run: python docs/generate.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_that_are_named_exist(page: Path):
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8")))
    assert {name.replace("--no-", "--") for name in named} - KNOWN - ELSEWHERE == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_room_is_in_the_guide():
    guide = (ROOT / "docs" / "AGENTS.md").read_text(encoding="utf-8")
    rooms = {path.stem for path in (ROOT / "teacher_logits").iterdir() if not path.name.startswith(("_", "py."))}
    assert {room for room in rooms - {"version"} if f"`{room}`" not in guide} == set()


def test_scripts_and_constraints_fit_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for entry in project["scripts"].values():
        module, function = entry.split(":")
        assert f"def {function}(" in (ROOT / (module.replace(".", "/") + ".py")).read_text()
    constraints = (ROOT / "constraints.txt").read_text()
    assert "torch==2.13.0" in constraints
    assert not re.search(r"://|@", constraints), "names and versions only"
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in constraints.splitlines() if "==" in line}
    for requirement in project["dependencies"]:
        name = re.match(r"[\w-]+", requirement)
        assert name and name[0].lower().replace("_", "-") in pinned
