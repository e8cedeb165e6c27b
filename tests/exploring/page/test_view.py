"""The page as text: whole, safe, and with nothing in it that would be fetched."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from explore_logits import get_sample, load_logit_dataset, visualize_conversation_probabilities
from teacher_logits.exploring import ConversationView, conversation_page, conversation_view
from teacher_logits.exploring.page.content import page_content
from tests.exploring.made import TEXTS, Made
from tests.exploring.page.samples import text_sample
from tests.exploring.parsing import Page, assert_named, assert_sealed

HOSTILE = [
    ("</main><script>alert('prompt')</script><!-- ", False),
    ("<script>alert(1)</script></span><img src=x onerror=alert(2)>", True),
    ('&lt;b&gt; "\' style="x" {{ 7 * 7 }} {% raw %} ]]> <style>*{display:none}</style>', False),
    ("</script><script>alert(3)</script> <!--<script> \u2028 \x00\x1b[31m\u202e", True),
]


@pytest.fixture(scope="module")
def hostile(made: Made) -> str:
    return conversation_page(text_sample(made.tokenizer, HOSTILE), made.tokenizer)


@pytest.mark.parametrize("index", TEXTS)
def test_page_holds_the_conversation_and_its_figures(made: Made, index: int):
    sample = get_sample(load_logit_dataset(made.folder), index=index)
    page, content = Page(conversation_page(sample)), page_content(sample)
    assert page.texts["t"] == [cell.text for turn in content.turns for cell in turn.cells]
    assert [text for text in page.texts["text"] if text] == [turn.text for turn in content.turns if turn.text]
    data, _ = page.texts["script"]
    assert json.loads(data) == content.entries
    assert page.texts["title"] == [content.title]
    classes = [
        attributes["class"].split()[1] for tag, attributes in page.elements if attributes.get("class", "")[:2] == "t "
    ]
    assert "".join(name.removeprefix("b") for name in classes) == content.bands


def test_text_stays_text(hostile: str, made: Made):
    page = Page(hostile)
    assert [tag for tag, _ in page.elements].count("script") == 2, "the data and the page's own"
    assert not {"img", "b"} & {tag for tag, _ in page.elements}
    assert [tag for tag, _ in page.elements].count("style") == 1
    assert "".join(page.texts["t"]).startswith("<script>alert(1)</script></span><img src=x onerror=alert(2)>")
    assert page.texts["text"][0] == HOSTILE[0][0] and HOSTILE[2][0] in page.texts["text"]
    assert "\\u2028 \\x00\\x1b[31m\\u202e" in "".join(page.texts["t"])
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]", hostile)
    data = hostile.split('id="data">')[1].split("</script>")[0]
    assert "<" not in data and "49" not in page.texts["text"][2]


def test_nothing_but_its_own_runs_and_nothing_is_fetched(hostile: str):
    assert_sealed(Page(hostile))


def test_page_is_named_and_ids_are_unique(hostile: str):
    page = Page(hostile)
    assert page.elements[0] == ("html", {"lang": "en"}) and hostile.startswith("<!DOCTYPE html>\n")
    assert_named(page)
    assert "aside" in {tag for tag, _ in page.elements}


def test_long_text_without_stored_tokens(made: Made):
    page = conversation_page(text_sample(made.tokenizer, [("x" * 100_000, False), ("Yes", True)]), made.tokenizer)
    assert Page(page).texts["text"][0] == "x" * 100_000
    assert len(page) < 160_000


def test_without_the_tokens_the_page_says_why(tokenless: Made):
    page = Page(conversation_page(get_sample(load_logit_dataset(tokenless.folder), 0), tokenless.tokenizer))
    assert "--no-store-tokens" in page.texts["notice"][0]
    assert len(page.texts["t"]) == len(tokenless.tokens(17))


def test_saved_and_shown_in_notebooks(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    dataset = load_logit_dataset(made.folder)
    view = visualize_conversation_probabilities(dataset, index=123, tokenizer=made.tokenizer, html=True)
    assert isinstance(view, ConversationView) and capsys.readouterr().out == ""
    assert view == conversation_view(get_sample(dataset, index=123), tokenizer=made.tokenizer)
    assert view != conversation_view(dataset, tokenizer=made.tokenizer)
    assert view.save(tmp_path / "page.html").read_bytes() == view.page.encode()
    frame = HTMLFrame(view._repr_html_())
    assert frame.attributes["srcdoc"] == view.page and frame.attributes["sandbox"] == "allow-scripts"
    assert len(repr(view)) < 200


class HTMLFrame(HTMLParser):
    """The attributes of a single iframe."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.attributes: dict[str, str | None] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag == "iframe" and not self.attributes
        self.attributes = dict(attrs)


def test_needs_neither_torch_nor_matplotlib(made: Made, tmp_path: Path):
    code = (
        "import sys; sys.modules.update(torch=None, matplotlib=None, termcolor=None, seaborn=None)\n"
        "from explore_logits import *\n"
        "from teacher_logits.exploring import open_source, read_sample\n"
        "sample = read_sample(open_source(sys.argv[1]), place=0)\n"
        "visualize_conversation_probabilities(sample, html=True).save(sys.argv[2])\n"
    )
    page = tmp_path / "page.html"
    subprocess.run([sys.executable, "-c", code, made.folder, page], check=True, timeout=120)
    assert page.read_text(encoding="utf-8") == conversation_page(get_sample(load_logit_dataset(made.folder), 0))
