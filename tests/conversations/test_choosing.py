"""Which way of finding the assistant's tokens a run takes."""

import logging
from pathlib import Path
from typing import Any

import pytest

from teacher_logits.conversations import ChatRenderer, RendererSpec, Unusable, choose_mask, log_mask_method
from teacher_logits.conversations.choosing import with_mask_method
from teacher_logits.errors import ChatTemplateError
from teacher_logits.records import Conversation
from teacher_logits.settings import SourceOptions
from tests.conversations.reading import of_rows
from tests.conversations.unmarked import HEADER, KINDS, turn, without_marks
from tests.tiny import message_rows, messages, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
CHATS = [Conversation(0, messages("a", "b", "c", "d"))]
THOUGHTS = Conversation(1, messages("a", "<think>hm</think>b", "c", "d"))


def chosen(template: str, mask_source: str = "auto", first: Any = CHATS) -> str:
    return with_mask_method(RendererSpec("m", None, False, template, None), TOKENIZER, mask_source, first).mask_method


class TestAuto:
    @pytest.mark.parametrize("kind", KINDS)
    def test_marks_first(self, kind: str) -> None:
        assert chosen(KINDS[kind]) == "template"

    @pytest.mark.parametrize(
        ("kind", "method"),
        [
            ("prefix", "prefix"),
            ("stripped", "prefix"),
            ("no prompt", "sentinel"),
            ("another end at the end", "sentinel"),
            ("prompt opens thoughts", "sentinel"),
            ("channel", "sentinel"),
            ("parts", "prefix"),
        ],
    )
    def test_then_prefixes_then_the_sentinel(self, kind: str, method: str) -> None:
        template = without_marks(KINDS[kind])
        assert chosen(template) == chosen(template, first=[]) == method

    def test_the_one_that_more_conversations_can_be_used_with(self) -> None:
        """A template that takes thoughts apart and puts them together with other white space."""
        split = "{{ m.content.split('</think>') | join('</think>\n\n') }}<|im_end|>"
        assert chosen(without_marks(turn(HEADER, split)), first=[THOUGHTS]) == "prefix"

    def test_conversations_count_more_than_plain_ones(self) -> None:
        """A generation prompt that is another one where there is a system message."""
        opening = "{% if add_generation_prompt and messages[0].role == 'system' %}<think>{% endif %}"
        template = without_marks(KINDS["prefix"]) + opening
        assert chosen(template) == "prefix"
        assert chosen(template, first=[Conversation(0, messages("a", "b", system="s"))]) == "sentinel"

    def test_ones_that_cant_be_read_decide_nothing(self) -> None:
        assert chosen(without_marks(KINDS["prefix"]), first=[Unusable("empty")] * 3) == "prefix"

    def test_the_first_of_the_split_decide_whatever_is_selected(self, tmp_path: Path) -> None:
        source = of_rows(tmp_path, message_rows(30), split="train[25:]")
        spec = RendererSpec("m", None, False, without_marks(KINDS["no prompt"]), None)
        assert choose_mask(spec, TOKENIZER, SourceOptions(limit=1), source).mask_method == "sentinel"


class TestAsked:
    def test_what_is_asked_for_is_taken(self) -> None:
        for method in ("prefix", "sentinel"):
            assert chosen(KINDS["prefix"], method) == chosen(without_marks(KINDS["prefix"]), method) == method

    def test_marks_that_arent_there(self) -> None:
        spec = RendererSpec("m", None, False, without_marks(KINDS["prefix"]), None, mask_method="template")
        with pytest.raises(ChatTemplateError, match=r"no {% generation %} markers.*--mask-source template.*FILE"):
            ChatRenderer(spec, TOKENIZER)

    def test_prefixes_that_arent_there(self) -> None:
        with pytest.raises(ChatTemplateError, match=r"prefix: the template's generation prompt.*<think>.*FILE"):
            chosen(without_marks(KINDS["prompt opens thoughts"]), "prefix")


class TestRefused:
    @pytest.mark.parametrize(
        ("template", "reason"),
        [
            (without_marks(turn(HEADER, "{{ m.content | upper }}<|im_end|>")), "changes the assistant's text.*Copy"),
            (without_marks(turn(HEADER, "{{ m.content }}{{ m.content }}<|im_end|>")), "sentinel: .* twice"),
            (
                "{% for m in messages %}{{ functions.x }}{% endfor %}",
                r"'functions' is undefined: .*\. Pass the",
            ),
            ("{{ bos_token + messages[0].content }}", "no bos token, which the template prints.* Pass the model's own"),
            ("{{ messages[0].content }}", r"drops the assistant's text\). Pass the model's own"),
        ],
    )
    def test_with_the_reason_and_the_way_out(self, template: str, reason: str) -> None:
        with pytest.raises(ChatTemplateError, match=f"0 assistant tokens.*{reason}.*--chat-template FILE"):
            chosen(template)

    def test_one_reason_of_several_methods_once(self) -> None:
        needing = "{% if not tools %}{{ raise_exception('no tools') }}{% endif %}" + without_marks(KINDS["prefix"])
        with pytest.raises(ChatTemplateError, match=r"\(prefix and sentinel: the [\w ]+ refuses it: no tools\)"):
            chosen(needing)

    def test_a_template_that_refuses_the_data_alone_is_told_by_the_data(self) -> None:
        """Its conversations are skipped with the template's own reason."""
        template = "{% if messages | length > 2 %}{{ raise_exception('one turn') }}{% endif %}"
        assert chosen(template + without_marks(KINDS["prefix"])) == "prefix"


class TestSaid:
    def test_the_method(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        log_mask_method(ChatRenderer(RendererSpec("m", None, False, KINDS["prefix"], None), TOKENIZER))
        assert "--mask-source template" in caplog.text and "WARNING" not in caplog.text

    def test_what_the_other_way_could_use(self, caplog: pytest.LogCaptureFixture) -> None:
        """A template that prints empty thoughts before an answer without any, as Qwen3's does."""
        thoughts = (
            "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% else %}<think></think>{% endif %}"
        )
        template = without_marks(turn(HEADER + thoughts, "{{ m.content }}<|im_end|>"))
        (thinking,) = messages("a", "b")[1:]
        mixed = [*CHATS * 2, Conversation(2, [*messages("a"), {**thinking, "reasoning_content": "hm"}])]
        assert chosen(template, first=mixed) == "sentinel"
        assert (
            "1 of the first 3 conversations, which are skipped, could be used with --mask-source prefix" in caplog.text
        )
        caplog.clear()
        assert chosen(template, first=CHATS) == "sentinel" and not caplog.records

    @pytest.mark.parametrize(("kind", "header"), [("channel", "final:"), ("no prompt", ""), ("prefix", "")])
    def test_a_header_that_is_not_marked(self, kind: str, header: str, caplog: pytest.LogCaptureFixture) -> None:
        spec = RendererSpec("m", None, False, without_marks(KINDS[kind]), None, mask_method="sentinel")
        log_mask_method(ChatRenderer(spec, TOKENIZER))
        assert (f"prints {header!r}, which is not extracted" in caplog.text) == bool(header) == bool(caplog.records)

    def test_what_looks_wrong(self, caplog: pytest.LogCaptureFixture) -> None:
        template = without_marks(KINDS["no end"]).replace("<|im_start|>", "<|user|>")
        log_mask_method(ChatRenderer(RendererSpec("m", None, False, template, None, mask_method="sentinel"), TOKENIZER))
        assert "prints <|user|>, which this tokenizer cuts" in caplog.text and "no special token" in caplog.text
