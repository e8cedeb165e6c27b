"""Which tokens of a rendered conversation are the assistant's.

Templates mark them with `{% generation %}` blocks, which give spans of characters; offsets of the tokenizer turn
these into tokens. transformers' own mask is not used, because it marks everything to the end where a span ends on
the first token or on a character without a token. For templates without marks, `prefix` and `sentinel` derive spans.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from teacher_logits.errors import ChatTemplateError
from teacher_logits.records import Int64

Spans = Sequence[tuple[int, int]]

_GENERATION_BLOCK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_BLOCK_OPENS = re.compile(r"(\{%[-+]?\s*generation\s*(?:-%\}\s*|\+%\}|%\}\n?))")
_BLOCK_CLOSES = re.compile(r"(?:\s*(\{%-)|(?:(?<=\n)[ \t]+)?(\{%\+?))(\s*endgeneration\b)")
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_BRACKETS = re.compile(f"([{_OPEN}{_CLOSE}])")
_NEVER = np.iinfo(np.int64).max


NO_ASSISTANT_TOKENS = "no assistant tokens"


MARK_IT = (
    "Copy the template to a file, put {% generation %} ... {% endgeneration %} round the assistant's content and its "
    "end-of-turn token, and pass it with --chat-template FILE."
)
"""What to do where no mask can be derived."""
PASS_ANOTHER = "Pass the model's own with --chat-template FILE."
"""What to do where marks would be of no help."""


class Unusable(Exception):
    """A conversation that can't be used; its text is the reason, as it stands in skipped.jsonl."""


class Unmarkable(Unusable):
    """A conversation whose assistant tokens the run's method can't tell. `detail` shows where, in the template's own
    words; it is no part of the reason, which many conversations share."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


def has_marks(template: str) -> bool:
    """Whether a template has a `{% generation %}` block."""
    return _GENERATION_BLOCK.search(template) is not None


def require_marks(template: str) -> None:
    """Raise ChatTemplateError where a template has no `{% generation %}` block, and so marks no assistant tokens."""
    if not has_marks(template):
        raise ChatTemplateError(
            "0 assistant tokens: the chat template has no {% generation %} markers, and --mask-source template takes "
            f"nothing else. Leave that option out, or mark the answers yourself. {MARK_IT}"
        )


def bracketed(template: str) -> str:
    """The template with a character printed at both ends of each generation block, for `spans_in_brackets`.

    White space that Jinja drops beside the block's tags is dropped here, since the character would protect it.
    """
    template = _BLOCK_OPENS.sub(rf"\1{_OPEN}", template)
    return _BLOCK_CLOSES.sub(lambda tag: f"{_CLOSE}{tag[1] or tag[2]}{tag[3]}", template)


def spans_in_brackets(bracketed_text: str, text: str) -> list[tuple[int, int]]:
    """The spans of `text` that a rendering of the `bracketed` template shows.

    transformers counts the characters before a block when it is reached, which is wrong where a template puts a
    block in a macro or a `{% set %}` and prints it afterwards. Raises Unusable where the brackets changed the text.
    """
    spans: list[tuple[int, int]] = []
    plain, length, first = [], 0, None
    for piece in _BRACKETS.split(bracketed_text):
        if piece == _OPEN and first is None:
            first = length
        elif piece == _CLOSE and first is not None:
            spans.append((first, length))
            first = None
        else:
            plain.append(piece)
            length += len(piece)
    if first is not None or "".join(plain) != text:
        raise Unusable("the chat template changes what it has marked, so the marks can't be followed")
    return spans


def tokens_of_others(offsets: Int64, text: str, spans: Spans) -> NDArray[np.bool_]:
    """Which tokens lie across the edge of a span and have letters, but none of them in any span.

    offsets: [T, 2], first and past-the-last character of each token.
    """
    found, own = np.zeros((2, len(offsets)), np.bool_)
    starts, stops = offsets.T
    for first, past in spans:
        across = (starts < past) & (stops > first) & ((starts < first) | (stops > past))
        for place in np.flatnonzero(across).tolist():
            start, stop = offsets[place].tolist()
            inside = bool(text[max(start, first) : min(stop, past)].strip())
            own[place] |= inside
            found[place] |= not inside and bool(text[start:stop].strip())
    return found & ~own


def marked_tokens(offsets: Int64, spans: Spans) -> NDArray[np.bool_]:
    """Which tokens lie in the spans, wholly or in part.

    offsets: [T, 2], first and past-the-last character of each token.   spans: characters, likewise; ascending, none
    over another.
    """
    if not spans:
        return np.zeros(len(offsets), np.bool_)
    firsts, pasts = zip(*spans, strict=True)
    # Of the spans that end after a token's start, the next one begins first: it has the token, or none has.
    following = np.searchsorted(pasts, offsets[:, 0], side="right")
    return np.array([*firsts, _NEVER])[following] < offsets[:, 1]
