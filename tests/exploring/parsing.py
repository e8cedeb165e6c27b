"""Pages as their elements, attributes and texts."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise

VOID = {"meta", "link", "col", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """What a page consists of. Fails where an element is not closed in its turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        """Text by the element it stands in, in which a token or a turn's text is 't' and 'text'."""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))
        if tag not in VOID and tag != "i":
            self.texts.setdefault(self.place, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.place][-1] += data

    @property
    def place(self) -> str:
        inner = [element for element in self.open if element[0] != "i"]
        tag, attributes = inner[-1]
        return (attributes.get("class") or tag).split()[0]

    @property
    def attributes(self) -> list[tuple[str, str | None]]:
        return [pair for _, attributes in self.elements for pair in attributes.items()]


class Tables(HTMLParser):
    """The cells of a page's tables, row by row."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self._in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.tables[-1][-1][-1] += data


def assert_sealed(page: Page) -> None:
    """The policy allows the page's own style and script alone, and nothing in it would be fetched."""
    (policy,) = [a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy
    hashes = {kind: re.findall(rf"{kind}-src 'sha256-([^']+)'", policy) for kind in ("style", "script")}
    (style,), script = page.texts["style"], page.texts["script"][-1]
    for kind, text in (("style", style), ("script", script)):
        assert hashes[kind] == [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()]
    # Such attributes would be refused by the policy.
    assert not [name for name, _ in page.attributes if name == "style" or name.startswith("on")]
    addresses = [value for name, value in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert addresses and all(str(value).startswith(("#", "data:")) for value in addresses)
    assert not re.search(r"url\(|@import|@font-face", style)
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|WebSocket|sendBeacon|innerHTML|eval\(", script)


def assert_named(page: Page) -> None:
    """Ids are unique, and labels and links within the page lead to them; headings leave out no level."""
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    named = [name for key, value in page.attributes if key == "aria-labelledby" for name in str(value).split()]
    assert named and set(named) <= set(ids)
    links = {str(value)[1:] for name, value in page.attributes if name == "href" and str(value).startswith("#")}
    assert links and links <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    tags = [tag for tag, _ in page.elements]
    assert {"header", "main", "footer"} <= set(tags) and tags.count("main") == 1
