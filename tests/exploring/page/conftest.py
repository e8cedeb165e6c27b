"""A real browser, where one is installed."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.conversation_page import NAMES
from tests.exploring.page.browsing import Visit

OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


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
