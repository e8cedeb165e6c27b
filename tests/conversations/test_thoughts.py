"""Thoughts that are left out: from tag through tag, whichever these are."""

from pathlib import Path
from typing import Any

import pytest

from teacher_logits.conversations import Unusable
from teacher_logits.conversations.doubts import thoughts_not_found
from teacher_logits.conversations.thoughts import OF_FAMILIES, THINK, named, opens_thoughts, tags_named, think_tags
from teacher_logits.records import Conversation
from tests.conversations.test_masks import marked, rendered, renderer
from tests.tiny import CHATML, TURN_END, UNMARKED, messages

THINKING = CHATML.replace("{% generation %}", "<think>\n{% generation %}")
"""Opens the thoughts in the prompt's part, as some templates of reasoning models do."""
OPENING_PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"


class TestThinking:
    @pytest.mark.parametrize(
        ("answer", "kept"),
        [
            ("<think>hm, so</think>the answer", "the answer<|im_end|>"),
            ("the <think>hm</think>answer", ["the ", "answer<|im_end|>"]),
            ("<think>a</think>x<think>b</think>y", ["x", "y<|im_end|>"]),
            ("<think>never closed", None),
            ("closed only</think>", "closed only</think><|im_end|>"),
            ("<think></think>the answer", "the answer<|im_end|>"),
            ("no thoughts", "no thoughts<|im_end|>"),
        ],
    )
    def test_from_tag_through_tag(self, answer: str, kept: str | list[str] | None) -> None:
        said = messages("<think>not the assistant's", answer)
        if kept is None:
            (reason,) = renderer(think_tags=(THINK,)).render([Conversation(0, said)])
            assert isinstance(reason, Unusable) and str(reason) == "no assistant tokens"
        else:
            assert marked(said, think_tags=(THINK,)) == ([kept] if isinstance(kept, str) else kept)

    def test_opened_by_the_template(self) -> None:
        said = messages("why", "hm, so\n</think>the answer", "how", "x</think>the bridge")
        assert marked(said, THINKING, think_tags=(THINK,)) == ["the answer<|im_end|>", "the bridge<|im_end|>"]
        assert marked(said, THINKING) == ["hm, so\n</think>the answer<|im_end|>", "x</think>the bridge<|im_end|>"]

    def test_opened_by_the_template_and_never_closed(self) -> None:
        (reason,) = renderer(THINKING, think_tags=(THINK,)).render([Conversation(0, messages("why", "hm"))])
        assert isinstance(reason, Unusable)

    @pytest.mark.parametrize("method", ["prefix", "sentinel"])
    def test_opened_by_a_template_without_marks(self, method: str) -> None:
        template = UNMARKED.replace("message['content'] }}", "'<think>\n' + message['content'] }}", 1) + OPENING_PROMPT
        said = messages("why", "hm, so\n</think>the answer", "how", "x</think>the bridge")
        kept = marked(said, template, mask_method=method, think_tags=(THINK,))
        assert kept == ["the answer<|im_end|>", "the bridge<|im_end|>"]

    @pytest.mark.parametrize("method", ["template", "sentinel"])
    def test_opened_by_the_prompt_and_not_printed_again(self, method: str) -> None:
        """The model began behind the tag of the prompt, and the template prints what it said alone."""
        template = (CHATML if method == "template" else UNMARKED) + OPENING_PROMPT
        said = messages("why", "hm, so\n</think>the answer", "how", "no thoughts", "x", "<think>a</think>b</think>c")
        options: dict[str, Any] = {"mask_method": method, "think_tags": (THINK,)}
        kept = ["the answer<|im_end|>", "no thoughts<|im_end|>", "b</think>c<|im_end|>"]
        assert marked(said, template, **options) == kept
        kept[0] = "hm, so\n</think>the answer<|im_end|>"
        assert marked(said, template.replace("<think>", ""), **options) == kept, "a tag that nothing opens"

    def test_each_turn_for_itself(self) -> None:
        """A turn that never closes its thoughts doesn't swallow the next one."""
        said = messages("a", "<think>hm", "b", "the answer")
        assert marked(said, think_tags=(THINK,)) == ["the answer<|im_end|>"]

    def test_a_token_that_is_partly_a_tag_is_left_out(self) -> None:
        """No token of the thoughts remains, even if a tag and a neighbour share one."""
        said = messages("a", "<think>\n\nhm\n</think>\n\nthe answer")
        (text,) = marked(said, think_tags=(THINK,))
        assert "think" not in text and ">" not in text.replace(TURN_END, "") and text.endswith("the answer<|im_end|>")

    def test_only_marks_change(self) -> None:
        said = messages("a", "<think>hm</think>b")
        with_thoughts, without = rendered(said), rendered(said, think_tags=(THINK,))
        assert with_thoughts.input_ids.tolist() == without.input_ids.tolist()
        assert set(without.positions) < set(with_thoughts.positions)


class TestTags:
    @pytest.mark.parametrize("tags", OF_FAMILIES)
    def test_of_the_templates_family(self, tags: tuple[str, str]) -> None:
        """A template that prints the opening tag has its thoughts between such tags, and may have common ones, too."""
        opening, closing = tags
        template = CHATML + "{# " + opening + " #}"
        assert think_tags(None, template) == (THINK, tags) and think_tags(None, CHATML) == (THINK,)
        said = messages(f"{opening}a{closing}", f"{opening}\nhm{closing}the answer", "b", "<think>hm</think>the bridge")
        kept = marked(said, template, think_tags=think_tags(None, template))
        assert kept == ["the answer<|im_end|>", "the bridge<|im_end|>"]
        assert opening in marked(said, template, think_tags=(THINK,))[0]
        assert opens_thoughts(said[1]["content"]) and not opens_thoughts("the answer")

    def test_of_a_family_that_the_prompt_opens(self) -> None:
        template = UNMARKED + OPENING_PROMPT.replace("<think>", "<|START_THINKING|>")
        said = messages("why", "hm, so<|END_THINKING|>the answer")
        kept = marked(said, template, mask_method="sentinel", think_tags=think_tags(None, template))
        assert kept == ["the answer<|im_end|>"]

    @pytest.mark.parametrize(
        ("tags", "answer"), [("```thinking ```", "```thinking\nhm\n```\nb"), ("**a a", "**ahm a b")]
    )
    def test_a_closing_tag_that_is_part_of_the_opening_one(self, tags: str, answer: str) -> None:
        (kept,) = marked(messages("x", answer), think_tags=think_tags(tags, CHATML))
        assert kept.strip() == "b<|im_end|>"

    def test_a_tag_that_the_user_says_last(self) -> None:
        """Where the marks begin right behind it, nobody can tell whose it is; an answer that closes none has none."""
        template = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}<|im_start|>{{ m.content }}"
        template += "<|im_end|>{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
        said = messages("Think. <think>", "b", "c", "d")
        assert marked(said, template, think_tags=(THINK,)) == marked(said, template) != []
        said[1]["content"] = "hm</think>b"
        assert marked(said, template, think_tags=(THINK,))[0] == "b<|im_end|>"

    def test_tags_of_choice_alone(self) -> None:
        tags = think_tags(" <a>  </a>\n", CHATML)
        said = messages("x", "<a>hm</a>the <think>very</think> answer")
        assert tags == (("<a>", "</a>"),)
        assert marked(said, think_tags=tags) == ["the <think>very</think> answer<|im_end|>"]

    def test_the_page_names_them_all(self) -> None:
        page = (Path(__file__).resolve().parents[2] / "docs" / "chat-templates.md").read_text(encoding="utf-8")
        assert all(f"`{opening}`" in page for opening, _ in (THINK, *OF_FAMILIES))

    @pytest.mark.parametrize("tags", [(), (THINK,), (THINK, *OF_FAMILIES), (("<a>", "</a>"),)])
    def test_the_metadata_names_them(self, tags: tuple[tuple[str, str], ...]) -> None:
        assert tags_named(["end_tokens", *named(tags)]) == tags
        assert named([THINK]) == ["think_tokens"], "as in runs from before there were others"


FIRST = [Conversation(0, messages("a", "b")), Unusable("empty"), Conversation(2, messages("<think>c</think>", "d"))]


class TestNone:
    def test_is_said_with_the_tags(self) -> None:
        (doubt,) = thoughts_not_found(renderer(think_tags=(THINK, OF_FAMILIES[2])), FIRST)
        assert "first 3 conversations" in doubt and "--think-tags" in doubt
        assert "from <think> through </think> or from [THINK] through [/THINK]" in doubt

    def test_where_there_are_some_or_none_are_to_be_left_out(self) -> None:
        some = [*FIRST, Conversation(3, messages("a", "b", "c", "<think>d</think>e"))]
        assert not list(thoughts_not_found(renderer(think_tags=(THINK,)), some))
        assert not list(thoughts_not_found(renderer(), FIRST))
        assert not list(thoughts_not_found(renderer(think_tags=(THINK,)), FIRST[1:2]))
