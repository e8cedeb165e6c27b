"""The advice of docs/chat-templates.md holds: its two templates print the same, and the second marks the answers."""

import re
from pathlib import Path

from teacher_logits.conversations import ChatRenderer, RendererSpec, Unusable
from teacher_logits.records import Conversation
from tests.tiny import messages, tiny_tokenizer

PAGE = Path(__file__).resolve().parents[1] / "docs" / "chat-templates.md"


def test_before_and_after():
    before, after = re.findall(r"```jinja\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    tokenizer = tiny_tokenizer()
    chat = messages("one", "two", "three", "four")
    texts = [tokenizer.apply_chat_template(chat, chat_template=each, tokenize=False) for each in (before, after)]
    assert texts[0] == texts[1]
    renderer = ChatRenderer(RendererSpec("none", None, False, after, None), tokenizer)
    (example,) = renderer.render([Conversation(0, chat)])
    assert not isinstance(example, Unusable)
    assert tokenizer.decode(example.input_ids[example.positions]) == "two<|im_end|>four<|im_end|>"
