"""The dataset of `made`, built once; and a real browser, where one is installed."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import termcolor

from benchmarks.conversation_page import NAMES
from tests.exploring.browsing import Visit
from tests.exploring.made import Made, made_dataset

OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, headless, with an empty profile of its own. One a module: its driver holds the thread's event loop."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, headless=True, args=OPTIONS)
        yield running
        running.close()


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Visit]]:
    """`visit(html, **context options)`: the page in a window of its own. In the end nothing may have been asked for or
    complained of."""
    visits: list[Visit] = []

    def open_page(html: str, **options: Any) -> Visit:
        path = tmp_path / f"page-{len(visits)}.html"
        path.write_text(html, encoding="utf-8")
        visits.append(Visit(browser.new_context(**options), path))
        return visits[-1]

    yield open_page
    for seen in visits:
        seen.context.close()
        assert seen.requests == [seen.path.as_uri(), *seen.expected_requests]
        assert seen.complaints == seen.expected_complaints
