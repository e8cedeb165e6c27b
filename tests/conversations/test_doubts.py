"""What is said at the start of a run about templates that look wrong, and which of them are refused."""

import logging
from pathlib import Path
from typing import Any

import pytest

from teacher_logits.conversations import ChatRenderer, RendererSpec, Unusable, choose_mask, log_mask_method
from teacher_logits.conversations.choosing import with_mask_method
from teacher_logits.conversations.doubts import ends_missing, marks_in_doubt, things_unprinted
from teacher_logits.conversations.thoughts import THINK
from teacher_logits.conversations.unprinted import CALLS_UNPRINTED
from teacher_logits.errors import ChatTemplateError
from teacher_logits.records import Conversation
from teacher_logits.settings import SourceOptions
from tests.conversations.reading import of_rows
from tests.conversations.unmarked import FOR, HEADER, KINDS, turn, without_marks
from tests.tiny import CHATML, message_rows, messages, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
CHATS = [Conversation(0, messages("a", "b", "c", "d")), Conversation(1, messages("a", "b", system="s"))]
START, END, CLOSED = "<|im_start|>{{ m.role }}\n", "<|im_end|>{{ '\\n' }}", "{% endfor %}"
MARKED = "{% generation %}{{ m.content }}{% endgeneration %}"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


def only(role: str) -> str:
    """A template that marks the contents of one role."""
    choice = f"{{% if m.role == '{role}' %}}{MARKED}{{% else %}}{{{{ m.content }}}}{{% endif %}}"
    return FOR + START + choice + END + CLOSED


def renderer(template: str, **options: Any) -> ChatRenderer:
    return ChatRenderer(RendererSpec("m", None, False, template, None, **options), TOKENIZER)


def doubts(template: str, first: Any = CHATS, **options: Any) -> list[str]:
    return list(marks_in_doubt(renderer(template, **options), first))


class TestMarks:
    @pytest.mark.parametrize("kind", set(KINDS) - {"no end", "end when more follows"})
    def test_those_that_are_right(self, kind: str) -> None:
        assert doubts(KINDS[kind]) == doubts(KINDS[kind], []) == []

    def test_what_is_left_out_on_purpose_is_no_doubt(self) -> None:
        assert doubts(CHATML, turns="last", think_tags=(THINK,), end_ids=(0, 2)) == []

    def test_a_header_or_a_line_end_is_no_doubt(self) -> None:
        wide = FOR + "{% generation %}" + START + "{{ m.content }}" + END + "{% endgeneration %}" + CLOSED
        assert doubts(wide, [Conversation(0, messages("a", "b")[1:])]) == []

    def test_the_users_text_alone(self) -> None:
        others, left_out = doubts(only("user"))
        assert "marks hold messages of role 'user'," in others and "--verify-mask" in others
        assert "leave out what the assistant says" in left_out and "--verify-mask" in left_out

    def test_every_role(self) -> None:
        everyone = FOR + START + "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n\n" + CLOSED
        (others,) = doubts(everyone)
        assert "messages of role 'user' and 'system', which a student would learn to say" in others
        assert "role 'user'," in doubts(everyone, CHATS[:1])[0], "by the roles that there are"

    def test_no_end_token(self) -> None:
        (said,) = doubts(only("assistant"))
        assert "leave out the token that ends the assistant's turns (<|im_end|>)" in said and "when to stop" in said

    def test_an_end_token_behind_some_answers_is_enough(self) -> None:
        assert doubts(KINDS["end when more follows"]) == []
        (said,) = doubts(KINDS["end when more follows"], CHATS[1:])
        assert "with no special token: no end token is extracted" in said

    def test_a_template_that_prints_none(self) -> None:
        (said,) = doubts(KINDS["no end"])
        assert "with no special token: no end token is extracted" in said

    def test_some_answers(self) -> None:
        last = turn(HEADER, "{{ m.content }}<|im_end|>").replace("{% else %}", "{% elif loop.last %}", 1)
        last = last.replace("{% endif %}{% endfor %}", "{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}")
        assert doubts(last, CHATS[1:]) == []
        (said,) = doubts(last)
        assert "in some of its turns" in said

    def test_contents_are_not_looked_at(self) -> None:
        """An answer that stands in the header as well, or is said twice, is none that is marked wrongly."""
        assert doubts(CHATML, [Conversation(0, messages("assistant", "user", "user", "user", system="im"))]) == []

    def test_nothing_is_said_of_marks_that_cant_be_tried_or_hold_nothing(self) -> None:
        refusing = "{% if messages[0].content != 'x' %}{{ raise_exception('x') }}{% endif %}" + only("user")
        assert doubts(refusing) == []
        assert doubts(FOR + "{{ m.content }}{% generation %}{% endgeneration %}" + CLOSED) == []

    def test_messages_that_are_printed_twice_or_not_at_all_are_not_judged(self) -> None:
        once = CHATML.replace("in messages %", "in messages[-2:] %")
        assert doubts(once) == []
        assert doubts("{{ messages[-1].content }}" + CHATML) == []

    def test_templates_that_need_tools(self) -> None:
        assert len(doubts("{{ tools[0].function.name }}" + only("user"))) == 2


class TestAnotherTokenizers:
    FAMILY = CHATML.replace("<|im_end|>", "<|eot_id|>")

    def method(self, template: str, mask_source: str = "auto") -> str:
        return with_mask_method(
            RendererSpec("m", None, False, template, None), TOKENIZER, mask_source, CHATS
        ).mask_method

    @pytest.mark.parametrize("mask_source", ["auto", "template"])
    def test_marked_ends_that_are_no_tokens(self, mask_source: str) -> None:
        with pytest.raises(ChatTemplateError, match=r"<\|eot_id\|>, which is not a token.*--chat-template FILE"):
            self.method(self.FAMILY, mask_source)

    @pytest.mark.parametrize("template", [only("assistant"), only("user")])
    def test_others_are_warned_of(self, template: str, caplog: pytest.LogCaptureFixture) -> None:
        template = template.replace("<|im_end|>", "<|eot_id|>").replace("<|im_start|>", "<|start_of_role|>")
        assert self.method(template) == "template"
        log_mask_method(renderer(template))
        assert "prints <|start_of_role|>, <|eot_id|>, which this tokenizer cuts into several tokens" in caplog.text

    def test_what_only_conversations_say_is_not_the_templates(self, caplog: pytest.LogCaptureFixture) -> None:
        echo = CHATML + "{% if '<|eot_id|>' in messages[0].content %}{{ messages[0].content }}{% endif %}"
        assert self.method(echo) == "template"
        log_mask_method(renderer(echo))
        assert not caplog.records


class TestEnds:
    def test_where_only_some_answers_have_one(self) -> None:
        made = renderer(without_marks(KINDS["end when more follows"]), mask_method="prefix")
        (doubt,) = ends_missing(made, [Conversation(0, messages("a", "b", "c", "d")), Unusable("empty")])
        assert "no end token behind 1 of the 2 answers in the first 2 conversations" in doubt

    def test_where_all_have_one_or_none(self) -> None:
        for kind in ("prefix", "no end"):
            made = renderer(without_marks(KINDS[kind]), mask_method="sentinel")
            assert not list(ends_missing(made, CHATS))
        assert not list(ends_missing(renderer(CHATML), CHATS))


class TestUnprinted:
    FULL = (
        "{% if tools %}{{ tools | tojson }}{% endif %}" + FOR + START + "{{ m.reasoning_content or '' }}"
        "{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}"
        "{% endfor %}" + END + CLOSED
    )
    SAID = (
        Conversation(0, messages("a", "b"), [TOOL]),
        Conversation(1, [messages("a")[0], {"role": "assistant", "content": "b", "tool_calls": [CALL]}]),
        Conversation(2, [messages("a")[0], {"role": "assistant", "content": "b", "reasoning_content": "hm"}]),
        Conversation(3, [messages("a")[0], {"role": "tool", "content": "b"}, messages("a", "b")[1]]),
        Conversation(4, messages("a", "b", system="s")),
    )

    def kinds(self, template: str, *said: Conversation) -> list[str]:
        found = things_unprinted(renderer(template, mask_method="sentinel"), said or self.SAID)
        return [each.removeprefix("the chat template doesn't print ") for each in found]

    def test_a_template_that_prints_everything(self) -> None:
        assert self.kinds(self.FULL) == []

    @pytest.mark.parametrize(
        ("dropped", "what", "outcome"),
        [
            ("{{ tools | tojson }}", "`tools`", "what it marks is without them"),
            ("{{ c.function.name }}", "`tool_calls`", "these are skipped"),
            ("{{ c.function.arguments | tojson }}", "`tool_calls`", "these are skipped"),
            ("{{ m.reasoning_content or '' }}", "`reasoning_content`", "what it marks is without them"),
        ],
    )
    def test_each_kind(self, dropped: str, what: str, outcome: str) -> None:
        (found,) = self.kinds(self.FULL.replace(dropped, ""))
        assert found.startswith(f"{what}, which 1 of the first 5 conversations have: {outcome}")

    @pytest.mark.parametrize("role", ["tool", "system"])
    def test_a_role(self, role: str) -> None:
        template = FOR.replace("messages %", f"messages if m.role != '{role}' %") + self.FULL.partition(FOR)[2]
        (found,) = self.kinds(template, *self.SAID[2:])
        assert found.startswith(f"messages of role '{role}', which 1 of the first 3 conversations have")

    @pytest.mark.parametrize("keys", [("reasoning",), ("thinking",), ("reasoning_content", "thinking")])
    def test_other_names_for_thoughts(self, keys: tuple[str, ...]) -> None:
        chat = Conversation(0, [messages("a")[0], {"role": "assistant", "content": "b", **dict.fromkeys(keys, "hm")}])
        assert self.kinds(self.FULL, chat) == [], "transformers gives thoughts the name that templates know"
        (found,) = self.kinds(CHATML, chat)
        assert found.startswith(" and ".join(f"`{key}`" for key in keys) + ", which 1 of the first 1")

    def test_thoughts_of_the_last_answer_are_enough(self) -> None:
        template = self.FULL.replace("m.reasoning_content or", "m.reasoning_content if loop.last else")
        thinking = [{**message, "reasoning_content": "hm"} for message in messages("a", "b", "c", "d")]
        assert self.kinds(template, Conversation(0, thinking)) == []

    def test_one_call_of_several_that_vanishes(self) -> None:
        template = self.FULL.replace("in m.tool_calls or []", "in (m.tool_calls or [])[:1]")
        several = {"role": "assistant", "content": "b", "tool_calls": [CALL, CALL]}
        chat = Conversation(0, [messages("a")[0], several])
        assert self.kinds(template, self.SAID[1]) == [] and len(self.kinds(template, chat)) == 1

    def test_what_a_template_cant_do_without_is_printed(self) -> None:
        needs = "{% if not tools or messages[-1].content == 'prqword' %}{{ raise_exception('x') }}{% endif %}"
        assert self.kinds(needs + self.FULL.partition(FOR)[1] + self.FULL.partition(FOR)[2], self.SAID[0]) == []

    def test_refused_conversations_decide_nothing(self) -> None:
        assert self.kinds("{% if tools %}{{ raise_exception('x') }}{% endif %}" + self.FULL, self.SAID[0]) == []

    @pytest.mark.parametrize("content", ["", None, "b"])
    @pytest.mark.parametrize("method", ["template", "prefix", "sentinel"])
    def test_conversations_whose_calls_vanish_are_skipped(self, method: str, content: str | None) -> None:
        """An answer without its call isn't what the assistant said, and its end token stands where it went on."""
        template = CHATML if method == "template" else without_marks(CHATML)
        calling = {"role": "assistant", "content": content, "tool_calls": [CALL]}
        said = [messages("a")[0], calling, {"role": "tool", "content": "c"}, messages("a", "d")[1]]
        for turns in ("all", "last"):
            (found,) = renderer(template, mask_method=method, turns=turns).render([Conversation(0, said)])
            assert str(found) == CALLS_UNPRINTED


def test_said_once_for_the_first_conversations(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    rows = [{**row, "tools": [TOOL]} for row in message_rows(30)]
    spec = RendererSpec("m", None, False, only("user"), None)
    assert choose_mask(spec, TOKENIZER, SourceOptions(limit=1), of_rows(tmp_path, rows)).mask_method == "template"
    tools, others, left_out = caplog.messages
    assert "`tools`, which 20 of the first 20 conversations have" in tools
    assert "hold messages of role 'user'" in others and "leave out" in left_out
    caplog.clear()
    spec = RendererSpec("m", None, False, CHATML, None)
    choose_mask(spec, TOKENIZER, SourceOptions(), of_rows(tmp_path, message_rows(5)))
    assert not caplog.messages
