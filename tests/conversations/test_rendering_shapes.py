"""Each shape of chat data, from its file through reading and through a template that prints all there is."""

import json
from pathlib import Path
from typing import Any

import pytest

from teacher_logits.conversations import ChatRenderer, RendererSpec, Source, Unusable
from tests.conversations.reading import of_rows
from tests.tiny import messages, tiny_tokenizer

HEAD = "{% if tools %}{{ tools | tojson }}\n{% endif %}{% for m in messages %}{{ m.role }}="
BEFORE = (
    "{% if m.role == 'assistant' %}{% generation %}{% if m.reasoning_content %}({{ m.reasoning_content }}) {% endif %}"
)
CALLS = "{% for c in m.tool_calls or [] %}{{ c.function.name }} {{ ARGUMENTS }}{% endfor %}"
AFTER = "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{{ '\n' }}{% endfor %}"
WRITTEN = HEAD + BEFORE + "{{ m.content or '' }}" + CALLS + AFTER
AS_JSON = WRITTEN.replace("ARGUMENTS", "c.function.arguments | tojson")
AS_IT_IS = WRITTEN.replace(
    "ARGUMENTS", "c.function.arguments if c.function.arguments is string else c.function.arguments | tojson"
)
PLAIN = "user=a\nassistant=[[b]]\n"
WITH_SYSTEM = "system=s\n" + PLAIN

SAID = messages("a", "b")
SAID_SHAREGPT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}},
}


def rendered(source: Source, template: str = AS_JSON, **options: Any) -> list[str]:
    """Its conversations as the teacher sees them; in place of one that can't be used, the reason."""
    renderer = ChatRenderer(RendererSpec("a model", None, False, template, None, **options), tiny_tokenizer())
    conversations = list(source.conversations(source.rows))
    return [
        str(example) if isinstance(example, Unusable) else renderer.show(conversation)  # type: ignore[arg-type]
        for conversation, example in zip(conversations, renderer.render(conversations), strict=True)
    ]


SHAPES: list[tuple[dict[str, Any], dict[str, str], str, str]] = [
    ({"messages": SAID}, {"messages": "messages"}, "`messages` as messages (role, content)", PLAIN),
    (
        {"conversations": SAID_SHAREGPT},
        {"messages": "conversations"},
        "`conversations` as ShareGPT (from, value)",
        PLAIN,
    ),
    ({"conversation": SAID}, {"messages": "conversation"}, "`conversation` as messages (role, content)", PLAIN),
    (
        {"conversations": json.dumps(SAID_SHAREGPT)},
        {"messages": "conversations"},
        "`conversations` as messages in JSON text",
        PLAIN,
    ),
    (
        {"messages": json.dumps({"messages": SAID, "tools": [TOOL]})},
        {"messages": "messages"},
        "`messages` as messages in JSON text",
        json.dumps([TOOL]) + "\n" + PLAIN,
    ),
    (
        {"question": "a", "answer": "b"},
        {"user": "question", "assistant": "answer"},
        "`question` and `answer` as user and assistant text",
        PLAIN,
    ),
    (
        {"instruction": "a", "input": "i", "output": "b"},
        {"user": "instruction", "input": "input", "assistant": "output"},
        "`instruction`, `input` and `output` as Alpaca",
        "user=a\n\ni\nassistant=[[b]]\n",
    ),
    (
        {"instruction": "a", "output": "b"},
        {"user": "instruction", "assistant": "output"},
        "`instruction` and `output` as Alpaca",
        PLAIN,
    ),
    (
        {"instruction": "a", "context": "i", "response": "b"},
        {"user": "instruction", "input": "context", "assistant": "response"},
        "`instruction`, `context` and `response` as instruction and response",
        "user=a\n\ni\nassistant=[[b]]\n",
    ),
    (
        {"prompt": "a", "completion": "b"},
        {"user": "prompt", "assistant": "completion"},
        "`prompt` and `completion` as prompt and completion",
        PLAIN,
    ),
    (
        {"prompt": SAID[:1], "completion": SAID[1:]},
        {"user": "prompt", "assistant": "completion"},
        "`prompt` and `completion` as prompt and completion",
        PLAIN,
    ),
    (
        {"prompt": "a", "response": "b"},
        {"user": "prompt", "assistant": "response"},
        "`prompt` and `response` as prompt and response",
        PLAIN,
    ),
    (
        {"query": "a", "response": "b"},
        {"user": "query", "assistant": "response"},
        "`query` and `response` as query and response",
        PLAIN,
    ),
]
SHAPES += [
    (
        {"problem": "a", "solution": "b"},
        {"user": "problem", "assistant": "solution"},
        "`problem` and `solution` as problem and solution",
        PLAIN,
    ),
    *(
        (
            {name: "a", "chosen": "b", "rejected": "c"},
            {"user": name, "assistant": "chosen"},
            f"`{name}` and `chosen` as preference data (the chosen conversation)",
            PLAIN,
        )
        for name in ("question", "input")
    ),
]
CHOSEN = "`prompt` and `chosen` as preference data (the chosen conversation)"
PREFERENCES: list[dict[str, Any]] = [
    {"prompt": "a", "chosen": "b", "rejected": "c"},
    {"prompt": "a", "chosen": SAID, "rejected": messages("a", "c")},
    {"prompt": "a", "chosen": SAID[1:], "rejected": messages("a", "c")[1:]},
    {"prompt": "a", "chosen": SAID[1], "rejected": {"role": "assistant", "content": "c"}},
    {"prompt": SAID[:1], "chosen": SAID[1:], "rejected": messages("a", "c")[1:]},
    {"prompt": json.dumps(SAID[:1]), "chosen": json.dumps(SAID[1:]), "rejected": "c"},
    {"prompt": "a", "chosen": json.dumps(SAID), "rejected": "c"},
    {"prompt": "a", "chosen": SAID_SHAREGPT[1:], "rejected": SAID_SHAREGPT[1:]},
]


@pytest.mark.parametrize(("row", "columns", "words", "text"), SHAPES, ids=[",".join(shape[0]) for shape in SHAPES])
def test_found_by_itself_said_and_rendered(
    row: dict[str, Any], columns: dict[str, str], words: str, text: str, tmp_path: Path
) -> None:
    source = of_rows(tmp_path, [row | {"id": 5}])
    assert source.columns.names() == columns
    assert source.describe() == f"{words}, from rows.jsonl"
    assert rendered(source) == [text]


@pytest.mark.parametrize("row", PREFERENCES, ids=range(len(PREFERENCES)))
def test_preferences(row: dict[str, Any], tmp_path: Path) -> None:
    source = of_rows(tmp_path, [row])
    assert source.columns.names() == {"user": "prompt", "assistant": "chosen"}
    assert source.describe() == f"{CHOSEN}, from rows.jsonl"
    assert rendered(source) == [PLAIN]


def test_preferences_without_a_prompt(tmp_path: Path) -> None:
    assert rendered(of_rows(tmp_path, [{"chosen": SAID, "rejected": SAID}])) == [PLAIN]
    reason = "column 'chosen' is not a list of messages, and no column has the prompt"
    assert rendered(of_rows(tmp_path, [{"chosen": "b", "rejected": "c"}])) == [reason]
    transcript = "\n\nHuman: a\n\nAssistant: b"
    reason = "column 'chosen' is a transcript (Human: ... Assistant: ...): split it into messages"
    assert rendered(of_rows(tmp_path, [{"chosen": transcript, "rejected": "c"}]))[0].startswith(reason)


class TestPrecedence:
    """Fixed, whatever the order of the columns."""

    ORDER = ("messages", "conversations", "question+answer", "conversation", "prompt+chosen", "prompt+completion")
    ORDER += ("instruction+output", "input+output")

    @pytest.mark.parametrize("last", range(len(ORDER)))
    def test_the_first_there_is(self, last: int, tmp_path: Path) -> None:
        there = [name for names in self.ORDER[last:] for name in names.split("+")]
        for names in (there, there[::-1]):
            source = of_rows(tmp_path, [dict.fromkeys(names, SAID)])
            read = self.ORDER[last].split("+")
            more = ["input"] if read[0] == "instruction" and "input" in names else []
            assert sorted(source.columns.names().values()) == sorted(read + more)

    def test_options_win(self, tmp_path: Path) -> None:
        row = {"messages": SAID, "prompt": "p", "more": "m", "completion": "c", "other": messages("x", "y")}
        named = {"user_col": "prompt", "assistant_col": "completion"}
        assert rendered(of_rows(tmp_path, [row], **named)) == ["user=p\nassistant=[[c]]\n"]
        assert rendered(of_rows(tmp_path, [row], **named, input_col="more")) == ["user=p\n\nm\nassistant=[[c]]\n"]
        assert rendered(of_rows(tmp_path, [row], messages_col="other")) == ["user=x\nassistant=[[y]]\n"]

    def test_named_columns_hold_what_they_say(self, tmp_path: Path) -> None:
        """Runs of these shapes that were begun before keep their meaning: no input, and JSON is a text."""
        row = {"instruction": json.dumps(SAID), "input": "i", "output": "b"}
        source = of_rows(tmp_path, [row], user_col="instruction", assistant_col="output")
        assert source.columns.names() == {"user": "instruction", "assistant": "output"}
        assert rendered(source) == [f"user={json.dumps(SAID)}\nassistant=[[b]]\n"]


@pytest.mark.parametrize(
    ("instruction", "more", "text"),
    [("a", None, "a"), ("a", "", "a"), ("a", " \n", "a"), ("a\n", "i ", "a\n\n\ni "), ("", "i", "i"), (None, "i", "i")],
)
def test_an_input_stands_after_an_empty_line(instruction: Any, more: Any, text: str, tmp_path: Path) -> None:
    rows = [
        {"instruction": instruction, "input": more, "output": "b"},
        {"instruction": "x", "input": "y", "output": "z"},
    ]
    assert rendered(of_rows(tmp_path, rows))[0] == f"user={text}\nassistant=[[b]]\n"


class TestSystemPrompts:
    ROWS = ({"messages": SAID, "about": "s"}, {"messages": messages("a", "b", system="own"), "about": "s"})

    def test_before_conversations_that_have_none(self, tmp_path: Path) -> None:
        texts = [WITH_SYSTEM, "system=own\n" + PLAIN]
        assert rendered(of_rows(tmp_path, [*self.ROWS], system_prompt="s")) == texts
        assert rendered(of_rows(tmp_path, [*self.ROWS], system_col="about")) == texts
        assert rendered(of_rows(tmp_path, [*self.ROWS], system_col="about", system_prompt="x")) == texts

    def test_an_empty_cell_leaves_it_to_the_option(self, tmp_path: Path) -> None:
        rows = [{"messages": SAID, "about": value} for value in (None, "", " ", "s")]
        assert rendered(of_rows(tmp_path, rows, system_col="about")) == [PLAIN] * 3 + [WITH_SYSTEM]
        assert rendered(of_rows(tmp_path, rows, system_col="about", system_prompt="s")) == [WITH_SYSTEM] * 4

    def test_with_other_shapes(self, tmp_path: Path) -> None:
        rows = [{"instruction": "a", "output": "b", "system": "s"}]
        assert rendered(of_rows(tmp_path, rows)) == [PLAIN]
        source = of_rows(tmp_path, rows, system_col="system")
        assert rendered(source) == [WITH_SYSTEM]
        assert source.columns.names() == {"user": "instruction", "assistant": "output", "system": "system"}
        assert (
            source.describe() == "`instruction` and `output` as Alpaca, system prompts from `system`, from rows.jsonl"
        )

    def test_a_column_that_is_not_read_is_spoken_of(self, tmp_path: Path) -> None:
        source = of_rows(tmp_path, [{"messages": SAID, "system_prompt": "s"}])
        assert "`system_prompt` is not read; --system-col system_prompt would" in source.describe()

    def test_what_is_not_text(self, tmp_path: Path) -> None:
        rows = [{"messages": SAID, "about": 5}]
        assert rendered(of_rows(tmp_path, rows, system_col="about")) == ["system content is not text but int"]


class TestShareGpt:
    def test_speakers(self, tmp_path: Path) -> None:
        call = json.dumps({"name": "f", "arguments": {"x": 1}})
        said = [("system", "s"), ("human", "a"), ("function_call", call), ("observation", "1"), ("gpt", "b")]
        said += [("user", "c"), ("chatgpt", "d"), ("human", "e"), ("tool", ""), ("function", "f"), ("assistant", "g")]
        rows = [{"conversations": [{"from": speaker, "value": text} for speaker, text in said]}]
        assert rendered(of_rows(tmp_path, rows)) == [
            'system=s\nuser=a\nassistant=[[f {"x": 1}]]\ntool=1\nassistant=[[b]]\nuser=c\nassistant=[[d]]\n'
            "user=e\ntool=\nfunction=f\nassistant=[[g]]\n"
        ]

    @pytest.mark.parametrize(
        ("speaker", "value", "reason"),
        [
            ("narrator", "once", "a message from 'narrator', which is no speaker that is known"),
            ("function_call", "f(x)", "function_call holds JSON that can't be read"),
            ("function_call", "{}", "function_call names no function"),
            ("function_call", "[1]", "function_call holds int where a mapping is expected"),
            ("function_call", None, "function_call names no function"),
        ],
    )
    def test_what_is_not_understood(self, speaker: str, value: Any, reason: str, tmp_path: Path) -> None:
        said = [*SAID_SHAREGPT, {"from": speaker, "value": value}]
        rows = [{"conversations": said}, {"conversations": SAID_SHAREGPT}]
        assert rendered(of_rows(tmp_path, rows)) == [reason, PLAIN]


def test_names_of_roles_that_no_template_knows(tmp_path: Path) -> None:
    said = [{"role": "human", "content": "a"}, {"role": "gpt", "content": "b"}]
    assert rendered(of_rows(tmp_path, [{"messages": said}])) == [PLAIN]
