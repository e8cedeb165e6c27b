"""Masks of templates without marks: answers with thoughts of their own or tool calls, which only prefixes tell."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teacher_logits.conversations import ChatRenderer, RendererSpec
from teacher_logits.records import Example
from tests.conversations.deriving import CHATML, METHODS, SAID, TOKENIZERS, by_both, marked, renderer, result
from tests.conversations.unmarked import CALLING, DONE, FOR, HEADER, PROMPT, USER, without_marks
from tests.tiny import messages


def called(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": {}}}


def calling(content: str | None = "") -> list[dict[str, Any]]:
    """A conversation with a call, its result, and an answer."""
    call = {"role": "assistant", "content": content, "tool_calls": [called("the town")]}
    return [*messages("a"), call, {"role": "tool", "content": "x"}, {"role": "assistant", "content": "the end"}]


class TestMoreThanContent:
    TEMPLATE = without_marks(CALLING)

    def test_thoughts_of_their_own(self) -> None:
        said = messages("a", "b", "c", "d")
        said[1]["reasoning_content"] = "hm"
        found = ["<think>\nhm\n</think>\n\nb<|im_end|>", "d<|im_end|>"]
        assert marked(self.TEMPLATE, "prefix", said) == found
        assert marked(self.TEMPLATE, "prefix", said, turns="last") == found[1:]
        assert "more than its content" in marked(self.TEMPLATE, "sentinel", said)
        assert by_both(CHATML, said) == ["b<|im_end|>", "d<|im_end|>"], "a template that doesn't print them"

    @given(said=st.lists(SAID, min_size=6, max_size=6), follows=st.sampled_from(["tool", "user"]))
    @settings(max_examples=100, deadline=None)
    def test_against_marks(self, said: list[str], follows: str) -> None:
        """With nasty texts in every place."""
        thought, name, *texts = said
        call = {"role": "assistant", "content": texts[1], "tool_calls": [called(name)], "reasoning_content": thought}
        turns = [*messages(texts[0]), call, {"role": follows, "content": texts[2]}]
        turns += [{"role": "assistant", "content": texts[3]}]
        truth = result(ChatRenderer(RendererSpec("m", None, False, CALLING, None), TOKENIZERS[False]), turns)
        found = result(renderer(self.TEMPLATE, "prefix"), turns)
        if isinstance(found, Example):
            assert isinstance(truth, Example) and found.input_ids.tolist() == truth.input_ids.tolist()
            ids, positions = found.input_ids.tolist(), set(found.positions.tolist())
            extra = [TOKENIZERS[False].decode(ids[at]) for at in sorted(set(truth.positions.tolist()) ^ positions)]
            assert not "".join(extra).strip(), extra

    def test_thoughts_that_the_prompt_opens(self) -> None:
        """What the prompt has said already, the model doesn't have to say."""
        header, prompt = (
            each.replace("nt\n", "nt\n<think>\n").replace("nt\\n", "nt\\n<think>\\n") for each in (HEADER, PROMPT)
        )
        template = FOR + USER + header + "{{ m.reasoning_content }}</think>{{ m.content }}<|im_end|>" + DONE + prompt
        said = messages("a", "b")
        said[1]["reasoning_content"] = "hm"
        assert marked(template, "prefix", said) == ["hm</think>b<|im_end|>"]

    @pytest.mark.parametrize("content", ["", "b", None])
    def test_tool_calls(self, content: str | None) -> None:
        said = calling(content)
        template = self.TEMPLATE.replace("{{ m.content }}{% for", "{{ m.content or '' }}{% for")
        found = [(content or "") + "<tool>the town{}</tool><|im_end|>", "the end<|im_end|>"]
        assert marked(template, "prefix", said) == found
        assert marked(template, "prefix", said, turns="last") == found[1:]
        assert marked(template, "sentinel", said, turns="last") == found[1:]
        assert "more than its content" in marked(template, "sentinel", said), "whatever the content is"
        for method in METHODS:
            assert "doesn't print an answer's tool calls" in marked(CHATML, method, said)

    def test_a_template_that_refuses_results_without_calls(self) -> None:
        refusing = "{% if m.role == 'tool' and not messages[1].tool_calls %}{{ raise_exception('no call') }}{% endif %}"
        template = self.TEMPLATE.replace(FOR, FOR + refusing)
        assert marked(template, "prefix", calling()) == ["<tool>the town{}</tool><|im_end|>", "the end<|im_end|>"]
        assert "more than its content" in marked(template, "sentinel", calling())

    def test_thoughts_with_calls_where_only_calls_are_printed(self) -> None:
        template = self.TEMPLATE.replace("{% if m.reasoning_content %}", "{% if false %}")
        said = calling("b")
        said[1]["reasoning_content"] = "hm"
        assert marked(template, "prefix", said)[0] == "b<tool>the town{}</tool><|im_end|>"

    @pytest.mark.parametrize(
        ("before", "after", "why"),
        [
            ("{{ m.content }}{% for", "{{ m.content if not m.tool_calls }}{% for", "leaves out a part"),
            ("{{ call.function.name }}", "{{ messages[0].content }}{{ call.function.name }}", "for what others say"),
            ("{{ m.content }}{% for", "{{ m.content }}{{ m.mood }}{% for", "more than its content, thoughts"),
            ("<|im_end|>{{ '\\n' }}", "{{ '<|endoftext|>' if m.tool_calls else '<|im_end|>' }}", "ends an answer with"),
            (
                "{% for call in m.tool_calls or [] %}",
                "{% for call in (m.tool_calls if loop.last else (m.tool_calls or [])[::-1]) or [] %}",
                "differently when more follows",
            ),
        ],
    )
    def test_what_can_not_be_told(self, before: str, after: str, why: str) -> None:
        template = self.TEMPLATE.replace(before, after)
        assert template != self.TEMPLATE
        said = calling("b")
        said[1] |= {"mood": "good", "tool_calls": [*said[1]["tool_calls"], called("the river")]}
        assert why in marked(template, "prefix", said)

    @pytest.mark.parametrize("content", ["the town", "{", "b"])
    def test_what_only_seems_to_be_printed(self, content: str) -> None:
        """The text beside a call that stands in the call, too."""
        template = self.TEMPLATE.replace("{{ m.content }}{% for", "{{ m.content if not m.tool_calls }}{% for")
        assert "leaves out a part" in marked(template, "prefix", calling(content)[:2])

    @pytest.mark.parametrize("prompt", ["", PROMPT.replace("assistant\n", "")])
    def test_a_header_is_no_part_of_a_turn(self, prompt: str) -> None:
        """Where the generation prompt is none, or not all of it."""
        template = self.TEMPLATE.replace(PROMPT, prompt)
        assert "not all that stands before an answer" in marked(template, "prefix", calling("b")[:2])

    def test_a_header_that_stands_before_some_answers(self) -> None:
        """As DeepSeek V3's, which calls have behind results, too, where other answers, and the prompt, have none."""
        behind = "loop.first or loop.previtem.role != 'tool'"
        template = self.TEMPLATE.replace(HEADER, "{% if m.tool_calls or " + behind + " %}" + HEADER + "{% endif %}")
        template = template.replace("add_generation_prompt", "add_generation_prompt and messages[-1].role != 'tool'")
        said = [*calling()[:3], *calling()[1:]]
        assert "not all that stands before an answer" in marked(template, "prefix", said)
        assert marked(template, "prefix", calling()) == ["<tool>the town{}</tool><|im_end|>", "the end<|im_end|>"]

    @pytest.mark.parametrize("arguments", [{"x": "the river"}, '{"x": "the river"}'])
    def test_arguments_however_they_are_written(self, arguments: Any) -> None:
        """Some templates take mappings alone, and print nothing in place of a text."""
        template = self.TEMPLATE.replace("call.function.arguments |", "(call.function.arguments if mapping else {}) |")
        template = template.replace("mapping", "call.function.arguments is mapping")
        said = calling()
        said[1]["tool_calls"][0]["function"]["arguments"] = arguments
        assert marked(template, "prefix", said)[0] == '<tool>the town{"x": "the river"}</tool><|im_end|>'

    @pytest.mark.parametrize("arguments", [["the river"], "the river", '["the river"]'])
    def test_arguments_that_vanish(self, arguments: Any) -> None:
        template = self.TEMPLATE.replace("call.function.arguments |", "(call.function.arguments if mapping else {}) |")
        template = template.replace("mapping", "call.function.arguments is mapping")
        said = calling()
        said[1]["tool_calls"][0]["function"]["arguments"] = arguments
        assert "doesn't print an answer's tool calls" in marked(template, "prefix", said)
        assert isinstance(marked(self.TEMPLATE, "prefix", said), list)

    def test_without_a_header_no_prompt_is_needed(self) -> None:
        """As Mistral's, whose answers stand right behind the question."""
        template = FOR + "{% if m.role == 'user' %}<|im_start|>{{ m.content }}<|im_start|>{% else %}{{ m.content }}"
        template += "{% for call in m.tool_calls or [] %}<tool>{{ call.function.name }}</tool>{% endfor %}<|im_end|>"
        template += "{% endif %}{% endfor %}"
        found = marked(template, "prefix", calling("b"))
        assert found == ["b<tool>the town</tool><|im_end|>", "the end<|im_end|>"]

    def test_calls_that_are_none(self) -> None:
        """An empty list is no reason to look away from what else a template prints."""
        said = messages("a", "b")
        said[1]["tool_calls"] = []
        assert by_both(CHATML, said) == ["b<|im_end|>"]
        more = FOR + USER + HEADER + "to all\n{{ m.content }}<|im_end|>" + DONE + PROMPT
        assert "other text in an answer" in marked(more, "prefix", said)

    def test_content_that_looks_like_what_the_template_prints(self) -> None:
        opening = FOR + USER + HEADER + "<|im_start|>{{ m.content }}<|im_end|>" + DONE + PROMPT
        assert "other text in an answer" in marked(opening, "prefix", messages("a", "<|im_start|>"))
        assert "other text in an answer" in marked(opening, "prefix", messages("a", "b"))
        assert marked(opening, "sentinel", messages("a", "b")) == ["b<|im_end|>"]

    def test_names_and_weights_say_nothing(self) -> None:
        said = messages("a", "b")
        said[1] |= {"name": "x", "weight": 1}
        assert by_both(CHATML, said) == ["b<|im_end|>"]
