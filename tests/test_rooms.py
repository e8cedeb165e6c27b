"""The rooms of the package and their floors: who may import whom, who may print, how long a file may be."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

FLOORS = {
    9: {"command_line"},
    8: {"launching"},
    7: {"extraction"},
    6: {"hub", "exploring", "training"},
    5: {"journal"},
    4: {"batching", "shards"},
    3: {"conversations", "teacher", "sampling", "codec"},
    2: {"files", "progress"},
    1: {"records", "settings"},
    0: {"errors", "printable", "version"},
}
"""A room imports rooms of lower floors only; rooms on one floor never see each other."""
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}

WITHOUT_TORCH = {"shards", "codec", "records", "settings"}
PRINTERS = {"command_line", "exploring/printing.py"}
"""Rooms and files that may print: what a person asked to see. Everything else logs."""
MOST_LINES = 400
FACES = ("extract_logits.py", "explore_logits.py", "compute_lengths.py")
MOST_LINES_OF_A_FACE = 60

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "teacher_logits"
NAME = PACKAGE.name
FILES = sorted(PACKAGE.rglob("*.py"))
ROOM_FILES = [path for path in FILES if path != PACKAGE / "__init__.py"]


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    return place(path).split("/")[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports, at its top or inside a function, relative imports resolved."""
    package = [NAME, *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def forbidden_imports(path: Path) -> list[str]:
    """What a file imports from rooms it must not see, as 'line N: name'."""
    own = room_of(path)
    found = []
    for line, name in imported(path):
        package, _, rest = name.partition(".")
        room = rest.split(".")[0]
        if package == NAME and room != own and not FLOOR_OF.get(room, 99) < FLOOR_OF[own]:
            found.append(f"line {line}: {name}")
    return found


def prints(path: Path) -> list[int]:
    """Lines on which a file calls print."""
    calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_every_file_is_in_a_room():
    assert {room_of(path) for path in ROOM_FILES} <= set(FLOOR_OF)
    assert len(FLOOR_OF) == sum(len(rooms) for rooms in FLOORS.values()), "a room stands on one floor"


@pytest.mark.parametrize("path", ROOM_FILES, ids=place)
def test_rooms_see_lower_floors_only(path: Path):
    assert not forbidden_imports(path)


def test_package_itself_imports_its_version_alone():
    names = {name for _, name in imported(PACKAGE / "__init__.py")}
    assert names == {f"{NAME}.version.__version__"}


@pytest.mark.parametrize("path", [path for path in ROOM_FILES if room_of(path) in WITHOUT_TORCH], ids=place)
def test_rooms_without_torch_dont_import_it(path: Path):
    assert not [name for _, name in imported(path) if name.split(".")[0] in {"torch", "transformers", "datasets"}]


def test_rooms_without_torch_dont_load_it():
    """Nor does anything that they import."""
    code = "import importlib, json, sys\n[importlib.import_module(name) for name in sys.argv[1:]]\n"
    code += "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    rooms = sorted(f"{NAME}.{room}" for room in WITHOUT_TORCH)
    done = subprocess.run([sys.executable, "-c", code, *rooms], capture_output=True, check=True, timeout=60, cwd=ROOT)
    assert not {"torch", "transformers", "datasets", "huggingface_hub"} & set(json.loads(done.stdout))


@pytest.mark.parametrize("path", FILES, ids=place)
def test_only_printers_print(path: Path):
    if not {room_of(path), place(path)} & PRINTERS:
        assert not prints(path)


@pytest.mark.parametrize("path", FILES, ids=place)
def test_files_are_short(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES, "a file that long is two files"


@pytest.mark.parametrize("face", FACES)
def test_faces_are_short(face: str):
    assert len((ROOT / face).read_text(encoding="utf-8").splitlines()) <= MOST_LINES_OF_A_FACE


@pytest.mark.parametrize(
    ("file", "line", "allowed"),
    [
        ("codec/a.py", "from teacher_logits.records import Example", True),
        ("codec/a.py", "from teacher_logits import records", True),
        ("codec/a.py", "from teacher_logits.codec.indices import pack_indices", True),
        ("codec/a.py", "from .indices import pack_indices", True),
        ("codec/a.py", "from . import indices", True),
        ("codec/a.py", "from ..records import Example", True),
        ("codec/a.py", "import torch.sampling", True),
        ("codec/a.py", "from teacher_logits.sampling import sample", False),
        ("codec/a.py", "from teacher_logits import sampling", False),
        ("codec/a.py", "from ..sampling import sample", False),
        ("codec/a.py", "from .. import sampling", False),
        ("codec/a.py", "import teacher_logits.shards.reader as reader", False),
        ("codec/a.py", "def f():\n    from teacher_logits.hub import card", False),
        ("codec/a.py", "from teacher_logits.unheard_of import thing", False),
        ("codec/a.py", "import teacher_logits", False),
        ("errors.py", "from teacher_logits.version import __version__", False),
        ("extraction/a.py", "from teacher_logits.exploring import summary", True),
        ("hub/a.py", "from teacher_logits.exploring import summary", False),
    ],
)
def test_this_test_sees_what_it_should(file: str, line: str, allowed: bool, tmp_path: Path, monkeypatch):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(line + "\n")
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    assert (forbidden_imports(path) == []) == allowed


def test_this_test_sees_prints(tmp_path: Path):
    path = tmp_path / "a.py"
    path.write_text('"""print("no")"""\nlog.print("no")\n\nif True:\n    print("yes")\n')
    assert prints(path) == [5]
    assert len(list(chain.from_iterable(FLOORS.values()))) == len(FLOOR_OF)
