"""The page in a real browser: looked at, pointed at, typed at, and offline."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.conversation_page import repeated
from teacher_logits.exploring import analyze_token_probabilities, conversation_page, conversation_view
from teacher_logits.exploring.page.cells import shown
from teacher_logits.exploring.page.palette import BANDS
from tests.exploring.browsing import Visit
from tests.exploring.made import SMILE, Made
from tests.exploring.page.samples import text_sample
from tests.exploring.page.test_view import HOSTILE

pytestmark = pytest.mark.browser

TEXTS = [
    ("<|user|>Say it.<|end|><|assistant|>", False),
    (f"The answer is\n\n   42 {SMILE} and so on. <|end|>", True),
    ("<|user|>Go on.<|end|><|assistant|>", False),
    ("hello there, goodbye <|end|>", True),
]
Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def sample(made: Made) -> dict[str, Any]:
    return text_sample(made.tokenizer, TEXTS)


@pytest.fixture(scope="module")
def html(made: Made, sample: dict[str, Any]) -> str:
    return conversation_page(sample, made.tokenizer)


@pytest.fixture(scope="module")
def records(made: Made, sample: dict[str, Any]) -> list[Any]:
    return analyze_token_probabilities(sample, tokenizer=made.tokenizer, alternatives=8)


def assert_shows(seen: Visit, record: Any) -> None:
    """The panel against the analysis."""
    panel = seen.panel()
    assert panel["place"].split(" · ")[1:] == [f"position {record.position}", f"id {record.id}"]
    assert panel["surprise"] == f"{record.surprise_bits:.2f} bits"
    if record.probability >= 5e-5:
        assert float(panel["probability"].removesuffix(" %")) == pytest.approx(record.probability * 100, abs=0.0051)
    assert panel["rank"].startswith(f"{record.rank} of " if record.rank else "beyond ")
    assert panel["where"] == record.where
    rows = [row for row in seen.choices() if row[0] != "–" and row[1] != "all others"]
    assert [int(row[0]) for row in rows] == list(range(1, len(record.alternatives) + 1))
    assert [row[1] for row in rows] == [shown(choice.token) for choice in record.alternatives]
    percents = [float(row[3].removesuffix(" %")) for row in rows]
    np.testing.assert_allclose(percents, [c.probability * 100 for c in record.alternatives], atol=0.006)


def test_reads_as_the_conversation(visit: Open, html: str):
    seen = visit(html)
    assert [part.evaluate("node => node.textContent") for part in seen.page.locator(".text").all()] == [
        t for t, _ in TEXTS
    ]
    assert seen.page.locator(".stored h3").all_inner_texts()[0].startswith("Assistant 1 of 2")
    assert seen.page.title().startswith("some/teacher · Conversation 7")
    assert seen.panel()["place"].startswith("1 of ")


def test_hovering_shows_the_token_and_leaving_the_selected_one(visit: Open, html: str, records: list[Any]):
    seen = visit(html)
    cells = seen.page.locator(".t")
    for record in (records[1], records[-3], records[5]):
        cells.nth(record.entry).hover()
        assert_shows(seen, record)
        assert seen.current() == 0
    seen.page.locator("h1").hover()
    assert_shows(seen, records[0])
    cells.nth(4).click()
    seen.page.locator("h1").hover()
    assert_shows(seen, records[4])
    assert seen.current() == seen.focused() == 4


def test_bars_are_as_long_as_the_probabilities(visit: Open, html: str, records: list[Any]):
    seen = visit(html)
    seen.page.locator(".t").nth(6).hover()
    length = "node => node.getBoundingClientRect().width / node.parentNode.getBoundingClientRect().width"
    bars = [bar.evaluate(length) for bar in seen.page.locator(".bar span:visible").all()]
    wanted = [choice.probability for choice in records[6].alternatives]
    np.testing.assert_allclose(bars[: len(wanted)], wanted, atol=0.01)


def test_pointing_moves_nothing(visit: Open, html: str, sample: dict[str, Any]):
    seen = visit(html, viewport={"width": 1280, "height": 1200})
    places = """() => ["#panel", "#choices", "#entropy", "main", "#chart"].map(
        (name) => JSON.stringify(document.querySelector(name).getBoundingClientRect()))"""
    before = seen.page.evaluate(places)
    assert len(set(sample["top_counts"])) > 1, "the panel must have more and less to show"
    for entry in range(sample["num_tokens"]):
        seen.page.locator(".t").nth(entry).hover()
        assert seen.page.evaluate(places) == before


def test_keys_move_from_token_to_token(visit: Open, html: str, records: list[Any]):
    seen = visit(html)
    last, second_turn = len(records) - 1, seen.page.locator(".stored").first.locator(".t").count()
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.textContent") == "Skip to the conversation"
    while seen.focused() < 0:
        seen.page.keyboard.press("Tab")
    assert seen.focused() == 0
    for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", last), ("ArrowRight", last)):
        seen.page.keyboard.press(key)
        assert seen.focused() == seen.current() == place
        assert_shows(seen, records[place])
    for key, place in (
        ("PageUp", second_turn),
        ("PageUp", 0),
        ("PageDown", second_turn),
        ("Home", 0),
        ("ArrowLeft", 0),
    ):
        seen.page.keyboard.press(key)
        assert seen.focused() == place
    seen.page.keyboard.press("ArrowDown")
    tops = "() => [...document.querySelectorAll('.t')].map(t => t.getBoundingClientRect().top)"
    below = seen.page.evaluate(tops)
    assert below[seen.focused()] > below[0] and not any(below[0] < top - 5 < below[seen.focused()] - 9 for top in below)
    seen.page.keyboard.press("ArrowUp")
    assert seen.focused() == 0
    assert seen.page.locator("[tabindex='0'].t").count() == 1, "the tokens are one stop of the Tab key"
    seen.page.keyboard.press("Tab")
    assert seen.focused() == -1


def test_keys_lead_into_the_text_while_it_is_in_sight(visit: Open, html: str):
    """Nobody has to click first; but whoever scrolls sideways elsewhere stays there."""
    seen = visit(html)
    seen.page.keyboard.press("ArrowDown")
    assert seen.focused() == -1
    seen.page.keyboard.press("ArrowRight")
    assert seen.focused() == seen.current() == 1
    seen.page.evaluate("document.activeElement.blur()")
    seen.page.evaluate("document.body.style.paddingTop = '300vh'")
    seen.page.keyboard.press("ArrowRight")
    assert seen.focused() == -1


def test_the_chart_fits_on_paper(visit: Open, html: str):
    """Which is narrower than the window that it was drawn for."""
    seen = visit(html)
    seen.page.emulate_media(media="print")
    shown, drawn = "document.getElementById('plot').getBBox()", "document.getElementById('plot').viewBox.baseVal.width"
    assert seen.page.evaluate(f"{shown}.x + {shown}.width") <= seen.page.evaluate(drawn)
    seen.page.evaluate("document.getElementById('chart').style.width = '300px'")
    rights = "[...document.querySelectorAll('#plot text')].map((each) => each.getBoundingClientRect().right)"
    assert (
        max(seen.page.evaluate(rights))
        <= seen.page.evaluate("document.getElementById('chart').getBoundingClientRect().right") + 1
    )


def test_keys_and_buttons_lead_to_peaks(visit: Open, html: str, records: list[Any]):
    seen = visit(html)
    surprising = sorted(records, key=lambda record: -record.surprise_bits)[:20]
    peaks = sorted(record.entry for record in surprising if record.surprise_bits >= 1)
    seen.page.locator(".t").first.click()
    following = [peak for peak in peaks if peak > 0]
    seen.page.keyboard.press("Shift+ArrowRight")
    assert seen.focused() == following[0]
    seen.page.get_by_role("button", name="Next surprise").click()
    assert seen.current() == following[1]
    status = seen.page.get_by_role("status").inner_text()
    assert status.startswith(f"{seen.panel()['token']}: probability {seen.panel()['probability']}, surprise ")
    seen.page.get_by_role("button", name="Previous surprise").click()
    seen.page.get_by_role("button", name="Next token").click()
    assert seen.current() == following[0] + 1
    seen.page.get_by_role("button", name="Previous token").click()
    assert seen.current() == following[0]


def test_chart_leads_to_tokens(visit: Open, html: str, records: list[Any]):
    seen = visit(html)
    chart = seen.page.get_by_role("slider", name="Surprise, in bits")
    box = chart.bounding_box()
    assert box is not None
    across = box["width"] - 26 - 6
    x = box["x"] + 26 + across * (9 + 0.5) / len(records)
    seen.page.mouse.move(x, box["y"] + 30)
    assert_shows(seen, records[9])
    assert seen.page.locator(".t.hovered").count() == 1 and seen.current() == 0
    seen.page.mouse.click(x, box["y"] + 30)
    assert seen.current() == 9
    chart.focus()
    seen.page.keyboard.press("ArrowRight")
    assert seen.current() == 10 and chart.get_attribute("aria-valuenow") == "11"
    assert records[10].token.strip() in str(chart.get_attribute("aria-valuetext"))
    bars = re.findall(r"M\S+ (\S+)V(\S+)h", str(seen.page.locator(".bars").get_attribute("d")))
    heights = np.array([float(bottom) - float(top) for bottom, top in bars])
    bits = np.array([record.surprise_bits for record in records])
    np.testing.assert_allclose(heights, bits * heights.max() / bits.max(), atol=0.02)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_themes(visit: Open, html: str, scheme: str):
    seen = visit(html, color_scheme=scheme)
    other = {"light": "dark", "dark": "light"}[scheme]
    for theme in (scheme, other):
        for number, band in enumerate(BANDS):
            paint = getattr(band, theme)
            assert seen.colours(f".swatch.b{number}")[0] == paint.fill
            if seen.page.locator(f".t.b{number}").count():
                assert seen.colours(f".t.b{number}") == (paint.fill, paint.ink)
        seen.page.get_by_role("button", name=f"{other if theme == scheme else scheme} theme").click()
    assert seen.colours(".swatch.b0")[0] == getattr(BANDS[0], scheme).fill


def test_not_stored_looks_different(visit: Open, html: str):
    seen = visit(html)
    text = "node => getComputedStyle(node).color"
    context = seen.page.locator(".context .text").first.evaluate(text)
    assert context != seen.page.locator("h1").evaluate(text)
    assert seen.page.locator(".context .t").count() == 0


def test_impossible_and_unknown_tokens_have_looks_of_their_own(visit: Open, made: Made, sample: dict[str, Any]):
    logprobs = sample["token_logprob"].copy()
    logprobs[3], logprobs[5] = -np.inf, np.nan
    seen = visit(conversation_page(dict(sample, token_logprob=logprobs), made.tokenizer))
    look = "node => { const s = getComputedStyle(node); return [s.boxShadow, s.outlineStyle, s.backgroundColor]; }"
    ordinary, impossible, unknown = (seen.page.locator(".t").nth(entry).evaluate(look) for entry in (4, 3, 5))
    clear = "rgba(0, 0, 0, 0)"
    assert ordinary[:2] == ["none", "none"] and ordinary[2] != clear
    assert impossible[0] != "none" and unknown[1] == "dotted" and impossible[2] == unknown[2] == clear
    for entry, probability, surprise in ((3, "0.00 %", "infinite"), (5, "unknown", "unknown")):
        seen.page.locator(".t").nth(entry).hover()
        assert (seen.panel()["probability"], seen.panel()["surprise"]) == (probability, surprise)
    assert seen.page.locator("#plot .infinite").get_attribute("d").count("M") == 1
    assert seen.page.locator(".legend li").filter(has_text="impossible").inner_text().split()[-2:] == ["1", "tokens"]


def test_white_space_can_be_seen(visit: Open, html: str):
    seen = visit(html)
    mark = "node => getComputedStyle(node, '::before').content"
    assert seen.page.locator(".t .line-break").count() == 2
    assert seen.page.locator(".line-break").first.evaluate(mark) == '"↵"'
    assert seen.page.locator(".part").count() == 3 and seen.page.locator(".part").first.evaluate(mark) == '"◦"'
    assert "gradient" in seen.page.locator(".spaces").first.evaluate("node => getComputedStyle(node).backgroundImage")


def test_hostile_text_does_nothing(visit: Open, made: Made):
    seen = visit(conversation_page(text_sample(made.tokenizer, HOSTILE), made.tokenizer))
    assert seen.page.locator(".text").first.inner_text() == HOSTILE[0][0]
    assert "<script>alert(1)</script></span><img src=x onerror=alert(2)>" in seen.page.locator("main").inner_text()
    for entry in range(0, seen.page.locator(".t").count(), 9):
        seen.page.locator(".t").nth(entry).hover()


def test_what_the_policy_refuses(visit: Open, html: str):
    """Also that requests and complaints would have been seen."""
    seen = visit(html)
    seen.page.evaluate(
        "() => { const script = document.createElement('script'); script.textContent = 'window.ran = true';"
        "document.body.append(script); const image = new Image(); image.src = 'http://127.0.0.1:9/x.png';"
        "document.body.append(image); }"
    )
    seen.page.wait_for_timeout(200)
    assert seen.page.evaluate("window.ran") is None
    assert len(seen.complaints) == 2 and all("Content Security Policy" in text for text in seen.complaints)
    assert seen.requests[1:] == ["http://127.0.0.1:9/x.png"], "refused before it is sent, and seen all the same"
    seen.expected_requests, seen.expected_complaints = list(seen.requests[1:]), list(seen.complaints)
    seen.page.evaluate("console.log('seen')")
    seen.expected_complaints.append("seen")


def test_4000_tokens(visit: Open, made: Made, sample: dict[str, Any]):
    """That it works; how fast is measured in benchmarks."""
    seen = visit(conversation_page(repeated(sample, 4000), made.tokenizer))
    assert seen.page.locator(".t").count() == 4000
    seen.page.locator(".t").nth(3990).click()
    assert seen.panel()["place"].startswith("3,991 of 4,000 · ")
    inside = "node => { const r = node.getBoundingClientRect(); return r.top > 0 && r.bottom < innerHeight; }"
    assert seen.page.locator(".t").nth(3990).evaluate(inside)
    assert seen.page.evaluate("document.querySelectorAll('*').length") < 4000 * 2


def test_on_a_phone(visit: Open, html: str, records: list[Any]):
    seen = visit(html, viewport={"width": 375, "height": 700}, has_touch=True, is_mobile=True)
    seen.page.locator(".t").nth(7).tap()
    assert seen.current() == 7
    panel = seen.page.locator("#panel").bounding_box()
    token = seen.page.locator(".t").nth(7).bounding_box()
    assert panel is not None and token is not None
    assert panel["y"] + panel["height"] == pytest.approx(700, abs=1) and token["y"] + token["height"] < panel["y"]
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 375
    assert seen.panel()["surprise"] == f"{records[7].surprise_bits:.2f} bits"


def test_without_the_tokens(visit: Open, made: Made, sample: dict[str, Any]):
    without = {name: values for name, values in sample.items() if name not in ("input_ids", "positions")}
    seen = visit(conversation_page(without, made.tokenizer))
    assert "--no-store-tokens" in seen.page.locator(".notice").inner_text()
    seen.page.locator(".t").nth(2).hover()
    assert seen.panel()["place"].startswith("stored token 2, the last is ")
    assert seen.choices()[0][1] == seen.page.locator(".t").nth(2).inner_text()


def test_nothing_stored(visit: Open, made: Made, sample: dict[str, Any]):
    nothing = {name: values[:0] for name, values in sample.items() if isinstance(values, list | np.ndarray)}
    empty = sample | nothing | {"num_tokens": 0, "input_ids": sample["input_ids"]}
    seen = visit(conversation_page(empty, made.tokenizer))
    assert "No token of this conversation is stored." in seen.page.locator("main").inner_text()


def test_in_a_notebook(visit: Open, made: Made, sample: dict[str, Any], records: list[Any]):
    """The frame keeps the page's style and script from the notebook, and the notebook's from the page."""
    frame = conversation_view(sample, tokenizer=made.tokenizer)._repr_html_()
    notebook = f"<!DOCTYPE html><title>notebook</title><style>.t {{ display: none }}</style><h1>cell</h1>{frame}"
    seen = visit(notebook)
    inner = seen.page.frame_locator("iframe")
    inner.locator(".t").nth(3).hover()
    assert inner.locator("#surprise").inner_text() == f"{records[3].surprise_bits:.2f} bits"
    assert seen.page.evaluate("document.documentElement.dataset.theme") is None
    assert seen.page.locator("iframe").bounding_box()["height"] > 700
