"""The dataset of `made`, built once."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import termcolor

from tests.exploring.made import Made, made_dataset


@pytest.fixture(scope="session", autouse=True)
def dataset_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The datasets library keeps its copies in a folder of this session."""
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Not to be changed: see `copy`."""
    folder = tmp_path_factory.mktemp("made")
    return made_dataset(folder / "logits", folder / "teacher")


@pytest.fixture(scope="session")
def tokenless(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The same, written without its tokens."""
    folder = tmp_path_factory.mktemp("tokenless")
    return made_dataset(folder / "logits", folder / "teacher", store_tokens=False)


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Path:
    """A copy of the dataset's folder, to be damaged."""
    return Path(shutil.copytree(made.folder, tmp_path / "copy"))


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a terminal that shows colours."""
    with _wish(monkeypatch, "FORCE_COLOR"):
        yield


@pytest.fixture
def no_colours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where the user wants none."""
    with _wish(monkeypatch, "NO_COLOR"):
        yield


@contextmanager
def _wish(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    for other in ("NO_COLOR", "FORCE_COLOR", "ANSI_COLORS_DISABLED"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "1")
    _forget_terminal()
    yield
    _forget_terminal()


def _forget_terminal() -> None:
    """Newer versions of termcolor ask for colours once and remember the answer."""
    remembered = getattr(termcolor.termcolor, "can_colorize", None)
    if hasattr(remembered, "cache_clear"):
        remembered.cache_clear()
