"""What the tests of derived masks share: renderers of templates without marks, what they mark, and nasty texts."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from teacher_logits.conversations import ChatRenderer, RendererSpec, Unusable
from teacher_logits.records import Conversation, Example
from tests.conversations.unmarked import KINDS, without_marks
from tests.tiny import END_OF_TEXT, TURN_END, TURN_START, tiny_tokenizer

TOKENIZERS = {nfc: tiny_tokenizer(nfc=nfc) for nfc in (False, True)}
METHODS = ("prefix", "sentinel")
CHATML = without_marks(KINDS["prefix"])


def renderer(template: str, method: str, nfc: bool = False, **options: Any) -> ChatRenderer:
    spec = RendererSpec("a model", None, False, template, None, mask_method=method, **options)
    return ChatRenderer(spec, TOKENIZERS[nfc])


def result(made: ChatRenderer, said: list[dict[str, Any]], tools: Any = None) -> Example | Unusable:
    (found,) = made.render([Conversation(0, said, tools)])
    return found


def marked(template: str, method: str, said: list[dict[str, Any]], **options: Any) -> list[str] | str:
    """The text of each run of marked tokens, or why there is none."""
    found = result(renderer(template, method, **options), said)
    if isinstance(found, Unusable):
        return str(found)
    runs = np.split(found.positions, np.flatnonzero(np.diff(found.positions) > 1) + 1)
    return [TOKENIZERS[False].decode(found.input_ids[run], skip_special_tokens=False) for run in runs]


def by_both(template: str, said: list[dict[str, Any]]) -> list[str] | str:
    prefix, sentinel = (marked(template, method, said) for method in METHODS)
    assert prefix == sentinel
    return prefix


NASTY = st.sampled_from(
    [
        "a", " ", "\n", "é", "e\u0301", "日本", "🙂", TURN_END, f"{TURN_END}\n{TURN_START}assistant\n", END_OF_TEXT,
        "<think>\nhm\n</think>\n\n", "the answer", "the answer", "{{ x }}", "qzx0v1w", "assistant\n", "\u0301",
    ]
)  # fmt: skip
SAID = st.lists(NASTY, max_size=4).map("".join)
