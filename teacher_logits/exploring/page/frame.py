"""What every HTML page shares: a frame that fetches nothing and runs no script but its own.

Templates and style sheets of other pages lie in the folder `files` of their own packages.
"""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup, escape

from teacher_logits.errors import OutputError
from teacher_logits.exploring.page.content import Content
from teacher_logits.exploring.page.palette import BANDS, IMPOSSIBLE, UNKNOWN
from teacher_logits.files import PUBLIC_FILE, write_bytes

_PACKAGE = "teacher_logits.exploring.page"
GENERATOR = "teacher-logits"
_MARK = f'<meta name="generator" content="{GENERATOR}">'
_MARK_WITHIN = 4096
"""Bytes of a page within which its mark stands."""
_LINE_BREAK = Markup('<i class="line-break"></i>\n')
_TAB = Markup('<i class="tab"></i>\t')


def framed(template: str, package: str = _PACKAGE, style: str = "", **values: Any) -> str:
    """A whole page as HTML5 text, ready to be written as UTF-8.

    template: one that extends frame.html.jinja, in `package`.   style: rules to come after those all pages have.
    values: what the template is filled from, `title` among them.
    The page's Content-Security-Policy forbids all loading, and every style and script but the page's two own, by their
    hash. Values stand in it as escaped text, or as JSON in which no `<` is left.
    """
    style = _common_style() + style
    script = source("theme.js") + source("page.js")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"style-src 'sha256-{_sha256(style)}'",
            f"script-src 'sha256-{_sha256(script)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    # Style and script as they stand in the file, since the hashes are of these very letters.
    shared = {"style": Markup(style), "script": Markup(script), "policy": policy, "generator": GENERATOR}
    return _environment(package).get_template(template).render(**shared, **values)


def save_page(path: str | Path, page: str) -> Path:
    """Write a page, whole or not at all, and return where it is. Raises OutputError: see `writable_page`."""
    final = writable_page(path)
    write_bytes(final, page.encode(), PUBLIC_FILE)
    return final


def writable_page(path: str | Path) -> Path:
    """The path, if a page may be written there. Raises OutputError where that would replace anything but an earlier
    page, or there is no such folder."""
    final = Path(path).expanduser()
    if final.is_dir() or not final.parent.is_dir():
        what = "is a folder" if final.is_dir() else f"can't be written: there is no folder {final.parent}"
        raise OutputError(f"{final} {what}. Give the name of a file, such as page.html, in a folder that exists.")
    if final.exists() and not _is_page(final):
        raise OutputError(f"{final} exists and is no page of this program, so it is kept. Give another name.")
    return final


@cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(each, "files") for each in dict.fromkeys((package, _PACKAGE))]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {"marked": _marked, "legend": _legend}
    return environment


def _marked(text: str) -> Markup:
    """Line breaks and tabs with something before them that can be seen."""
    return escape(text).replace("\n", _LINE_BREAK).replace("\t", _TAB)


def _legend(content: Content) -> list[tuple[str, str, int]]:
    """Letter, label and tokens of each band; of those without a probability where there are any."""
    rows = [(str(number), band.label) for number, band in enumerate(BANDS)]
    rows += [row for row in ((IMPOSSIBLE, "impossible"), (UNKNOWN, "unknown")) if row[0] in content.bands]
    return [(letter, label, content.bands.count(letter)) for letter, label in rows]


@cache
def _common_style() -> str:
    """The style sheet with the scale's colours."""
    rules = [
        f".b{number} {{ background-color: light-dark({band.light.fill}, {band.dark.fill}); "
        f"color: light-dark({band.light.ink}, {band.dark.ink}); }}"
        for number, band in enumerate(BANDS)
    ]
    return source("page.css") + "\n".join(rules) + "\n"


def source(name: str, package: str = _PACKAGE) -> str:
    """A file with line breaks as browsers read them, whatever a checkout made of them: the hash is of these."""
    return files(package).joinpath("files", name).read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _is_page(path: Path) -> bool:
    """Whether a page was written there before. A file that isn't one can be anything, and of any size."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return _MARK.encode() in stream.read(_MARK_WITHIN)
