"""Tools, their calls and results, content as parts, and turns: read, and rendered by templates that print them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conversations.reading import found, of_rows, opened
from tests.conversations.test_rendering_shapes import (
    AS_IT_IS,
    AS_JSON,
    PLAIN,
    SAID,
    SAID_SHAREGPT,
    TOOL,
    rendered,
)
from tests.tiny import messages


def calling(arguments: Any, **more: Any) -> list[dict[str, Any]]:
    """A conversation with a call of a tool, its result and an answer."""
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [call], **more},
        {"role": "tool", "content": "1", "tool_call_id": "abcdefghi"},
        {"role": "assistant", "content": "b"},
    ]


CALLED = 'user=a\nassistant=[[f {"x": 1}]]\ntool=1\nassistant=[[b]]\n'


class TestTools:
    def test_nulls_that_arrow_fills_in_are_not_rendered(self, tmp_path: Path) -> None:
        """One struct type holds the keys of all arguments and of all tools."""
        other = {
            "type": "function",
            "function": {"name": "g", "strict": True, "parameters": {"properties": {"y": {"type": "string"}}}},
        }
        rows = [
            {"messages": calling({"x": 1}), "tools": [TOOL]},
            {"messages": calling({"y": {"deep": 2}}), "tools": [other]},
            {"messages": SAID, "tools": []},
        ]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
        first, second, last = rendered(opened(tmp_path / "rows.parquet"))
        assert json.loads(first.splitlines()[0]) == [TOOL]
        assert first.split("\n", 1)[1] == CALLED
        assert json.loads(second.splitlines()[0]) == [other] and 'f {"y": {"deep": 2}}' in second
        assert "null" not in first + second
        assert last == PLAIN

    @pytest.mark.parametrize(
        "tools", [[TOOL], json.dumps([TOOL]), [json.dumps(TOOL)], json.dumps(TOOL), json.dumps([json.dumps(TOOL)])]
    )
    def test_however_they_are_written(self, tools: Any, tmp_path: Path) -> None:
        source = of_rows(tmp_path, [{"messages": SAID, "tools": tools}, {"messages": SAID, "tools": None}])
        assert rendered(source) == [json.dumps([TOOL]) + "\n" + PLAIN, PLAIN]
        assert source.columns.names() == {"messages": "messages"}, "as in runs that were begun before"
        assert "tools from `tools`" in source.describe()

    def test_from_another_column(self, tmp_path: Path) -> None:
        source = of_rows(tmp_path, [{"messages": SAID, "functions": json.dumps([TOOL])}], tools_col="functions")
        assert rendered(source) == [json.dumps([TOOL]) + "\n" + PLAIN]
        assert source.columns.names() == {"messages": "messages", "tools": "functions"}

    @pytest.mark.parametrize(
        ("tools", "reason"),
        [
            ("[{", "tools holds JSON that can't be read"),
            ("5", "tools is not a list but int"),
            ("[5]", "tools holds int where a mapping is expected"),
            ([["f"]], "tools holds list where a mapping is expected"),
            (5, "tools is not a list but int"),
        ],
    )
    def test_what_are_no_tools(self, tools: Any, reason: str, tmp_path: Path) -> None:
        assert rendered(of_rows(tmp_path, [{"messages": SAID, "tools": tools}])) == [reason]

    def test_arguments_in_json_text_become_what_the_template_prints_rightly(self, tmp_path: Path) -> None:
        source = of_rows(tmp_path, [{"messages": calling('{"x": 1}')}, {"messages": calling("{}")}])
        assert rendered(source, AS_JSON)[0] == rendered(source, AS_IT_IS)[0] == CALLED
        spaced = of_rows(tmp_path, [{"messages": calling('{"x":1}')}])
        assert rendered(spaced, AS_IT_IS) == [CALLED.replace('{"x": 1}', '{"x":1}')], "left as it is where that will do"
        refusing = AS_JSON.replace("c.function.arguments | tojson", "c.function.arguments.items() | list | tojson")
        assert "[[f [[" in rendered(source, refusing)[0]

    def test_mappings_become_text_where_a_template_takes_only_that(self, tmp_path: Path) -> None:
        source = of_rows(tmp_path, [{"messages": calling({"x": 1})}, {"messages": calling('{"x": 1}')}])
        glued = AS_JSON.replace("c.function.arguments | tojson", "'' + c.function.arguments")
        assert rendered(source, glued) == [CALLED, CALLED]

    @pytest.mark.parametrize(
        ("printed", "taken"),
        [
            ("{{ m.content if m.content else 'nothing' }}", "nothing"),
            ("{{ m.content if 'content' in m else 'no key' }}", "no key"),
            ("{{ 'null' if m['content'] is none else '' + m['content'] }}", "null"),
            ("{% if m.content is not none %}{{ m.content }}{% set m = {} %}{% endif %}", ""),
            ("{{ m.content ~ '' if 'content' in m else 1 / 0 }}", ""),
            ("{{ '' + m.content }}", ""),
            ("{{ '(' + m.content | string + ')' if m['content'] + '' or true }}", "()"),
            ("{{ m['content'] + '' if m['content'] is defined and m.content is not none else 1 / 0 }}", ""),
        ],
        ids=[
            "falsy",
            "absent",
            "null",
            "calls where null",
            "null in words",
            "text",
            "never None",
            "neither absent nor null",
        ],
    )
    def test_answers_that_only_call_have_the_content_that_the_template_takes(
        self, printed: str, taken: str, tmp_path: Path
    ) -> None:
        template = AS_JSON.replace("{{ m.content or '' }}", printed)
        for arguments in ({"x": 1}, '{"x": 1}'):
            said = [calling(arguments), calling(arguments)]
            del said[1][1]["content"]
            null, absent = rendered(of_rows(tmp_path, [{"messages": each} for each in said]), template)
            assert null == absent and f"assistant=[[{taken}f {{" in null and "b" in null

    def test_arguments_that_are_no_json(self, tmp_path: Path) -> None:
        source = of_rows(tmp_path, [{"messages": calling("x = 1")}, {"messages": calling('{"x": 1}')}])
        assert rendered(source, AS_JSON) == [CALLED.replace('{"x": 1}', '"x = 1"'), CALLED]

    def test_calls_in_json_text(self, tmp_path: Path) -> None:
        said = calling({"x": 1})
        said[1]["tool_calls"] = json.dumps(said[1]["tool_calls"])
        assert rendered(of_rows(tmp_path, [{"messages": said}])) == [CALLED]

    @pytest.mark.parametrize(
        ("calls", "reason"),
        [
            (5, "tool_calls is not a list but int"),
            ([5], "tool_calls holds int where a mapping is expected"),
            ("f()", "tool_calls holds JSON that can't be read"),
            ([], "empty assistant content"),
        ],
    )
    def test_what_are_no_calls(self, calls: Any, reason: str, tmp_path: Path) -> None:
        said = calling({})
        said[1]["tool_calls"] = calls
        assert rendered(of_rows(tmp_path, [{"messages": said}])) == [reason]

    def test_reasoning_is_passed_on(self, tmp_path: Path) -> None:
        thought = {"role": "assistant", "content": "b", "reasoning_content": "hm"}
        rows = [{"messages": [SAID[0], thought]}, {"messages": SAID}]
        assert rendered(of_rows(tmp_path, rows)) == ["user=a\nassistant=[[(hm) b]]\n", PLAIN]


def test_a_template_that_takes_parts_gets_them(tmp_path: Path) -> None:
    each = "{% for part in m.content %}{{ part.text }}{% endfor %}"
    parted = AS_JSON.replace("{{ m.content or '' }}", each).replace("{{ m.content }}", each)
    source = of_rows(tmp_path, [{"messages": SAID}])
    assert rendered(source, parted) == rendered(source, parted.replace("part.text", "part['text']")) == [PLAIN]


@pytest.mark.parametrize("arguments", ['{"x": 1}', {"x": 1}])
def test_calls_as_they_were_once_written(arguments: Any, tmp_path: Path) -> None:
    """The key function_call, of which OpenAI's messages had one before tool_calls."""
    said = calling(arguments)
    del said[1]["tool_calls"]
    said[1]["function_call"] = {"name": "f", "arguments": arguments}
    assert rendered(of_rows(tmp_path, [{"messages": said}]))[0] == CALLED
    empty = [SAID[0], {**SAID[1], "function_call": {"name": None, "arguments": None}}]
    assert rendered(of_rows(tmp_path, [{"messages": json.dumps(empty)}])) == [PLAIN]


class TestTurns:
    """--turns last marks the last turn of the assistant alone."""

    def last(self, said: list[dict[str, Any]], folder: Path, template: str = AS_JSON) -> str:
        (text,) = rendered(of_rows(folder, [{"messages": said}]), template, turns="last")
        return text

    def test_of_several(self, tmp_path: Path) -> None:
        assert self.last(messages("a", "b", "c", "d"), tmp_path) == "user=a\nassistant=b\nuser=c\nassistant=[[d]]\n"
        assert self.last(messages("a", "b", "c"), tmp_path) == "user=a\nassistant=[[b]]\nuser=c\n"
        assert self.last(SAID, tmp_path) == PLAIN
        assert self.last(SAID[1:], tmp_path) == "assistant=[[b]]\n"

    def test_after_a_call(self, tmp_path: Path) -> None:
        assert self.last(calling({"x": 1}), tmp_path) == CALLED.replace('[[f {"x": 1}]]', 'f {"x": 1}')

    def test_a_turn_of_several_spans(self, tmp_path: Path) -> None:
        thinking = "{% if m.reasoning_content %}({{ m.reasoning_content }}) {% endif %}"
        parts = AS_JSON.replace(thinking, "({{ m.reasoning_content }}){% endgeneration %}-{% generation %}")
        assert parts != AS_JSON
        thought = {"role": "assistant", "content": "b", "reasoning_content": "hm"}
        text = self.last([SAID[0], thought, SAID[0], thought], tmp_path, parts)
        assert text == "user=a\nassistant=(hm)-b\nuser=a\nassistant=[[(hm)]]-[[b]]\n"

    def test_what_ends_a_conversation_is_no_turn(self, tmp_path: Path) -> None:
        """A template that marks an end, which the conversation before the last answer has somewhere else."""
        end = "{% if messages[-1].role != 'user' %}{% generation %}END{% endgeneration %}{% endif %}"
        closing = AS_JSON + end
        said = [*messages("a", "b"), {"role": "assistant", "content": "c"}]
        assert self.last(said, tmp_path, closing) == "user=a\nassistant=b\nassistant=[[c]]\n[[END]]"
        shown = self.last(calling({"x": 1}), tmp_path, closing)
        assert shown == CALLED.replace('[[f {"x": 1}]]', 'f {"x": 1}') + "[[END]]"

    def test_where_the_last_turn_begins_in_a_mark(self, tmp_path: Path) -> None:
        """The marks take in the header, which the prompt prints, too."""
        wide = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}assistant={{ m.content }}"
        wide += "{% endgeneration %}{% else %}{{ m.role }}={{ m.content }}{% endif %}\n\n{% endfor %}"
        wide += "{% if add_generation_prompt %}assistant={% endif %}"
        text = self.last(messages("a", "b", "c", "d"), tmp_path, wide)
        assert text == "user=a\nassistant=b\nuser=c\n[[assistant=d]]\n"

    def test_a_history_that_is_rewritten(self, tmp_path: Path) -> None:
        shuffled = AS_JSON.replace(
            "for m in messages", "for m in (messages if messages | length > 2 else messages[::-1])"
        )
        said = [SAID[0], SAID[1], {"role": "assistant", "content": "c"}]
        assert "differently when an answer follows" in self.last(said, tmp_path, shuffled)

    def test_a_template_that_refuses_what_comes_before(self, tmp_path: Path) -> None:
        refusing = "{% if messages | length < 4 %}{{ raise_exception('too short') }}{% endif %}" + AS_JSON
        assert self.last(messages("a", "b", "c", "d"), tmp_path, refusing) == "the chat template refuses it: too short"


def test_the_same_conversation_however_it_is_written(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": SAID},
        {"messages": SAID_SHAREGPT},
        {"messages": json.dumps(SAID)},
        {"messages": [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in SAID]},
    ]
    first, *others = found(of_rows(tmp_path, rows))
    assert all(other.messages == first.messages == SAID for other in others)  # type: ignore[union-attr]
