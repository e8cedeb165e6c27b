"""The page's HTML: one file that fetches nothing and runs no script but its own."""

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from teacher_logits.exploring.page.content import Content
from teacher_logits.exploring.page.palette import BANDS, IMPOSSIBLE, UNKNOWN

_LINE_BREAK = Markup('<i class="line-break"></i>\n')
_TAB = Markup('<i class="tab"></i>\t')


def page_html(content: Content) -> str:
    """The whole page as HTML5 text, ready to be written as UTF-8.

    Its Content-Security-Policy forbids all loading, and every style and script but the page's two own, by their hash.
    Everything of the data stands in it as escaped text, or as JSON in which no `<` is left.
    """
    style, script = _style(), _source("page.js")
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
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            content=content,
            # As it stands in the file, since the hash is of these very letters.
            style=Markup(style),
            script=Markup(script),
            policy=policy,
            legend=[(number, band, content.bands.count(str(number))) for number, band in enumerate(BANDS)],
            impossible=content.bands.count(IMPOSSIBLE),
            unknown=content.bands.count(UNKNOWN),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("teacher_logits.exploring.page", "files"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters["marked"] = _marked
    return environment


def _marked(text: str) -> Markup:
    """Line breaks and tabs with something before them that can be seen."""
    return escape(text).replace("\n", _LINE_BREAK).replace("\t", _TAB)


@cache
def _style() -> str:
    """The style sheet with the scale's colours."""
    rules = [
        f".b{number} {{ background-color: light-dark({band.light.fill}, {band.dark.fill}); "
        f"color: light-dark({band.light.ink}, {band.dark.ink}); }}"
        for number, band in enumerate(BANDS)
    ]
    return _source("page.css") + "\n".join(rules) + "\n"


def _source(name: str) -> str:
    """A file with line breaks as browsers read them, whatever a checkout made of them: the hash is of these."""
    return files("teacher_logits.exploring.page").joinpath("files", name).read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
