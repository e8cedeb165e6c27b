"""docs/exploring.ipynb runs from top to bottom, and shows what a user can do: with public names alone."""

import ast
import base64
import builtins
import importlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

from explore_logits import analyze_token_probabilities, compute_dataset_stats, load_logit_dataset
from tests.exploring.made import Made

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "exploring.ipynb"
MOST_BYTES = 20_000


@pytest.fixture(scope="module")
def written() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def ran(made: Made, written: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The notebook after it ran on the made dataset, in a folder of its own."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.from_dict(written)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HOME", "IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(folder / name))
        patch.setenv("LOGITS_DATASET", str(made.folder))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("NO_COLOR", "1")
        resources = {"metadata": {"path": str(folder)}}
        yield nbclient.NotebookClient(notebook, kernel_name="python3", timeout=120, resources=resources).execute()


def outputs(notebook: Any, mark: str) -> list[Any]:
    """Of the first code cell that has `mark` in its source."""
    return next(cell.outputs for cell in notebook.cells if cell.cell_type == "code" and mark in cell.source)


def text_of(notebook: Any, mark: str) -> str:
    return "".join(output.get("text", "") for output in outputs(notebook, mark))


def test_no_cell_fails_or_warns(ran: Any):
    code = [cell for cell in ran.cells if cell.cell_type == "code"]
    found = [output for cell in code for output in cell.outputs]
    assert len(code) > 10 and not [output for output in found if output.output_type == "error"]
    assert not [output.text for output in found if output.output_type == "stream" and "Warning" in output.text]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


def test_it_shows_what_the_dataset_holds(ran: Any, made: Made):
    records = analyze_token_probabilities(load_logit_dataset(made.folder), 0)
    least = max(records, key=lambda record: record.surprise_bits)
    first_row = outputs(ran, "sort_values")[0].data["text/plain"].splitlines()[1]
    assert first_row.split()[1] == str(least.position)
    stats = compute_dataset_stats(made.folder)
    assert f"entries        {stats.entries}" in text_of(ran, "print_dataset_stats")
    assert f"mean {stats.nucleus.mean:.2f}, median {stats.nucleus.median:g}" in text_of(ran, "analyze_nucleus_sizes")
    assert "conversation 17: " in text_of(ran, "visualize_conversation_probabilities(dataset, 0)")
    page = outputs(ran, "html=True")[0].data["text/html"]
    assert page.startswith("<iframe srcdoc=") and "Conversation 17" in page


def test_plots_are_pictures(ran: Any):
    drawn = 0
    for cell in ran.cells:
        if cell.cell_type == "code" and "plot_" in cell.source and "import" not in cell.source:
            (png,) = [output.data["image/png"] for output in cell.outputs if "data" in output]
            image = Image.open(io.BytesIO(base64.b64decode(png)))
            assert image.width > 500 and np.ptp(np.asarray(image.convert("L"))) > 100
            drawn += 1
    assert drawn == 5


def test_it_is_kept_without_outputs(written: Any):
    nbformat.validate(written)
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    for cell in written.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
    assert {"kernelspec", "language_info"} == set(written.metadata), "nothing of the machine it was written on"


def test_its_names_are_public(written: Any):
    source = "\n".join(cell.source for cell in written.cells if cell.cell_type == "code")
    tree = ast.parse(source)
    known = set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            names = module.__all__ if node.names[0].name == "*" else [alias.name for alias in node.names]
            assert set(names) <= set(module.__all__), node.module
            known |= set(names)
        elif isinstance(node, ast.Import):
            known |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            known.add(node.id)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert used <= known
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not [name for name in attributes if name.startswith("_")]
