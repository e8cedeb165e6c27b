"""How soon a conversation's page is there, and how soon it answers to the pointer and the keys.

    python -m benchmarks.conversation_page OUTPUT --tokens 200 4000

OUTPUT is a logits dataset with its tokens; its first conversation is repeated to the number of stored tokens asked for.
Needs Chromium and the extra `browser`. Milliseconds: `made` by Python, `loaded` to the page's load event, and from an
event's own time to the end of the frame that shows what it changed, of which up to 17 are waiting for that frame.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from benchmarks.measuring import machine_line, print_table, spread
from teacher_logits.exploring import conversation_view, get_sample, load_logit_dataset

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
KEYS = ["ArrowRight"] * 30 + ["ArrowDown"] * 20 + ["PageDown"] * 5 + ["Shift+ArrowRight"] * 5
LISTEN = """() => {
    window.taken = {};
    const listen = ({ type, timeStamp }) => requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => (window.taken[type] ??= []).push(performance.now() - timeStamp);
        port2.postMessage(null);
    });
    for (const kind of ["pointerover", "keydown"]) document.addEventListener(kind, listen, true);
}"""
VISIBLE = """() => {
    const tokens = [...document.querySelectorAll(".t")];
    tokens[tokens.length >> 1].scrollIntoView({ block: "center" });
    return tokens.map((token) => token.getBoundingClientRect())
        .filter(({ top, bottom }) => top > 200 && bottom < innerHeight - 20)
        .map(({ left, top, width, height }) => [left + width / 2, top + height / 2]);
}"""


@dataclass(frozen=True)
class Options:
    """Measure the page of a conversation in Chromium."""

    output: Annotated[str, tyro.conf.Positional]
    """A logits dataset, a folder or on the Hub."""
    tokens: tuple[int, ...] = (200, 4000)
    """Numbers of stored tokens."""


def repeated(sample: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    """The sample again and again as one conversation of `tokens` stored tokens."""
    times = -(-tokens // sample["num_tokens"])
    length = len(sample["input_ids"])
    made = dict(sample, num_tokens=tokens, input_ids=np.tile(sample["input_ids"], times))
    for name, values in sample.items():
        if isinstance(values, list):
            made[name] = (values * times)[:tokens]
        elif isinstance(values, np.ndarray) and name not in ("input_ids", "positions"):
            made[name] = np.tile(values, times)[:tokens]
    made["positions"] = np.concatenate([sample["positions"] + length * time for time in range(times)])[:tokens]
    return made


def rows(options: Options, browser: Any) -> Iterator[Sequence[object]]:
    sample = get_sample(load_logit_dataset(options.output), 0)
    conversation_view(sample)  # loads the tokenizer
    for tokens in options.tokens:
        began = time.perf_counter()
        view = conversation_view(repeated(sample, tokens))
        made = (time.perf_counter() - began) * 1000
        with tempfile.TemporaryDirectory() as folder, browser.new_page(viewport={"width": 1360, "height": 900}) as page:
            page.goto(view.save(Path(folder) / "page.html").as_uri())
            loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
            page.evaluate(LISTEN)
            places = page.evaluate(VISIBLE)
            for place in places:
                page.mouse.move(*place)
                page.wait_for_timeout(20)
            page.mouse.click(*places[0])
            for key in KEYS:
                page.keyboard.press(key)
                page.wait_for_timeout(20)
            taken = page.evaluate("taken")
        hover, keys = (spread(sorted(taken[kind])) for kind in ("pointerover", "keydown"))
        yield f"{tokens:,}", f"{len(view.page) / 1000:,.0f}", f"{made:,.0f}", f"{loaded:,.0f}", hover, keys


def main() -> None:
    options = tyro.cli(Options)
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        print("no Chromium: nothing measured")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        print(f"{machine_line('playwright')}, Chromium {browser.version}\n")
        header = ("stored tokens", "kB", "made, ms", "loaded, ms", "pointer, ms", "keys, ms")
        print_table(header, rows(options, browser))
        browser.close()


if __name__ == "__main__":
    main()
