"""The report in a real browser: nothing is fetched, nothing complains, both themes, wide and narrow."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from teacher_logits.exploring import open_source
from teacher_logits.exploring.page.content import page_content
from teacher_logits.exploring.report.content import report_content
from teacher_logits.exploring.report.page import report_html
from tests.exploring.browsing import Visit
from tests.exploring.made import Made
from tests.exploring.page.samples import text_sample
from tests.extraction.runs import Place

pytestmark = pytest.mark.browser

Open = Callable[..., Visit]
WIDTHS = {"wide": 1600, "middle": 1000, "tablet": 740, "phone": 360}
SEEN = "image => image.checkVisibility() && image.complete && image.naturalWidth > 0"


def images(seen: Visit) -> dict[str, list[bool]]:
    """Of each theme, which of its pictures are there to be seen."""
    return {
        theme: [image.evaluate(SEEN) for image in seen.page.locator(f"img.{theme}").all()]
        for theme in ("light", "dark")
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_follow_the_theme(visit: Open, html: str, scheme: str):
    seen = visit(html, color_scheme=scheme)
    other = {"light": "dark", "dark": "light"}[scheme]
    assert images(seen) == {scheme: [True] * 9, other: [False] * 9}
    ground = seen.colours(".picture")[0]
    seen.page.get_by_role("button", name=f"{other} theme").click()
    assert images(seen) == {other: [True] * 9, scheme: [False] * 9}
    assert seen.colours(".picture")[0] != ground
    seen.page.emulate_media(media="print")
    assert images(seen) == {"light": [True] * 9, "dark": [False] * 9}, "on paper"


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_nothing_is_wider_than_the_window(visit: Open, compared_html: str, width: int):
    seen = visit(compared_html, viewport={"width": width, "height": 800}, has_touch=width < 500, is_mobile=width < 500)
    height = seen.page.evaluate("document.documentElement.scrollHeight")
    for top in range(0, height, 700):
        seen.page.evaluate(f"scrollTo(0, {top})")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


def test_on_paper(visit: Open, compared_html: str):
    seen = visit(compared_html, viewport={"width": 700, "height": 900}, color_scheme="dark")
    seen.page.emulate_media(media="print", color_scheme="dark")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 700
    assert not any(seen.page.locator(name).is_visible() for name in ("nav", "#panel", "#chart", "#theme"))
    assert seen.page.locator("footer").is_visible() and seen.page.locator("#conversation").is_visible()
    assert seen.page.pdf().startswith(b"%PDF")


def test_passages_lead_to_the_token(visit: Open, html: str):
    seen = visit(html)
    passage = seen.page.locator(".passages > li:has(a)").first
    link = passage.locator("a")
    token = str(link.get_attribute("href")).removeprefix("#turn-token-")
    link.click()
    assert seen.current() >= 0
    shown = seen.page.locator(f"#turn-token-{token}")
    assert shown.evaluate("node => node === document.activeElement && node.matches('.current')")
    inside = "node => { const r = node.getBoundingClientRect(); return r.top > 0 && r.bottom < innerHeight; }"
    assert shown.evaluate(inside)
    bits = passage.locator("strong").inner_text().removesuffix(" bits")
    assert float(seen.panel()["surprise"].removesuffix(" bits")) == pytest.approx(float(bits), abs=0.051)


def test_the_panel_is_not_pushed_under_the_chart(visit: Open, extracted: Place, made: Made):
    """At the end of a long conversation with much below it: where a link or a button leads, both can be seen."""
    report = report_content(open_source(extracted.folder), verify=False)
    texts = [("<|user|>Go on.<|end|>", False), ("hello there, goodbye <|end|>" * 3, True)] * 20
    view = page_content(text_sample(made.tokenizer, texts), made.tokenizer)
    last = len(view.bands) - 1
    found = replace(report.examples.passages[0], index=7, entry=last)
    examples = replace(report.examples, view=view, passages=(found,))
    seen = visit(report_html(replace(report, examples=examples)), viewport={"width": 1280, "height": 900})
    seen.page.locator(".where a").click()
    seen.page.wait_for_function("document.querySelector('.t.current').getBoundingClientRect().bottom < innerHeight")
    places = "['#chart', '#panel', '.t.current'].map(name => document.querySelector(name).getBoundingClientRect())"
    seen.page.wait_for_timeout(100)
    chart, panel, token = seen.page.evaluate(places)
    assert seen.page.locator(f"#turn-token-{last}.current").count() == 1
    assert chart["bottom"] < panel["top"] and token["bottom"] < 900
    assert token["top"] > chart["bottom"]


def test_the_token_view_works(visit: Open, html: str):
    seen = visit(html)
    cells = seen.page.locator("#conversation .t")
    cells.nth(1).hover()
    assert seen.panel()["place"].startswith("2 of ")
    cells.first.click()
    seen.page.keyboard.press("ArrowRight")
    assert cells.nth(1).evaluate("node => node === document.activeElement")
    before = seen.panel()
    seen.page.locator(".excerpt .t").first.click()
    assert seen.panel() == before, "the others are text alone"


def test_the_panel_stays_with_its_conversation_on_a_phone(visit: Open, html: str):
    seen = visit(html, viewport={"width": 375, "height": 700}, has_touch=True, is_mobile=True)
    panel = seen.page.locator("#panel")

    def in_window() -> bool:
        box: dict[str, Any] | None = panel.bounding_box()
        return box is not None and box["y"] < 700 and box["y"] + box["height"] > 0

    assert not in_window()
    seen.page.locator("#conversation .t").first.tap()
    assert in_window() and seen.panel()["place"].startswith("1 of ")
    seen.page.locator("footer").scroll_into_view_if_needed()
    assert not in_window()


def test_the_verdict_leads_to_the_comparison(visit: Open, compared_html: str):
    seen = visit(compared_html)
    seen.page.get_by_role("link", name="The figures", exact=True).click()
    heading = seen.page.get_by_role("heading", name="Is it what the teacher says?")
    assert abs(heading.evaluate("node => node.getBoundingClientRect().top")) < 1


def test_names_stay_beside_figures_on_a_phone(visit: Open, compared_html: str):
    seen = visit(compared_html, viewport={"width": 375, "height": 700}, has_touch=True, is_mobile=True)
    wide = seen.page.locator(".comparison .scroll").first
    name, bias = wide.locator("tbody th").first, wide.locator("thead th").last
    before = name.bounding_box()
    assert wide.evaluate("node => { node.scrollLeft = 9999; return node.scrollLeft; }") > 50
    assert name.bounding_box() == before
    box = bias.bounding_box()
    assert box is not None and box["x"] + box["width"] <= 375


def test_reads_as_a_document(visit: Open, compared_html: str):
    seen = visit(compared_html)
    for role, count in (("banner", 1), ("navigation", 1), ("main", 1), ("contentinfo", 1)):
        assert seen.page.get_by_role(role).count() == count
    for link in seen.page.get_by_role("navigation").get_by_role("link").all():
        target = seen.page.locator(str(link.get_attribute("href")))
        assert target.evaluate("node => node.tagName") == "H2"
    assert seen.page.get_by_role("img").count() == 9, "those of the other theme are hidden from readers"
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.textContent") == "Skip to the report"
