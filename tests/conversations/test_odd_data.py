"""Data that nobody meant to write: a reason for each conversation, or an error that says what to do; no traceback."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher_logits.conversations import ChatRenderer, RendererSpec
from teacher_logits.errors import DatasetError
from teacher_logits.records import Example
from tests.conversations.reading import contents, of_rows, opened
from tests.tiny import CHATML, messages, tiny_tokenizer

GOOD = messages("a", "b")
ODD: list[Any] = [
    *(None, "", " ", "text", 0, 1.5, True, [], {}, [[]], [None], [{}], [[GOOD]], [GOOD[0], None], {"role": "user"}),
    *([{"role": "user", "content": {}}], [{"role": {"a": 1}, "content": "a"}], [{"from": 1, "value": 2}]),
    *([GOOD[0], {"role": "assistant", "content": [None]}], [GOOD[0], {"role": "assistant", "content": [["b"]]}]),
    *([GOOD[0], {"role": "assistant", "tool_calls": {"function": "f"}}], {"messages": 5}, {"messages": [[]]}),
    *('[{"role": "user"', '"quoted"', "[" * 100_000, '{"a":' * 100_000, "[1e999]", "9" * 5000, "NaN", "null"),
    *('{"messages": null}', json.dumps([GOOD[0], {"role": "assistant", "content": "\ud800"}])),
]
SHAPES = ["messages", "conversations", "question+answer", "prompt+chosen", "instruction+input+output", "chosen"]


@pytest.mark.parametrize("shape", SHAPES)
def test_each_oddity_gives_a_reason_or_a_conversation_that_can_be_rendered(shape: str, tmp_path: Path) -> None:
    renderer = ChatRenderer(RendererSpec("a model", None, False, CHATML, None), tiny_tokenizer())
    names = shape.split("+")
    for place, odd in enumerate(ODD):
        folder = tmp_path / str(place)
        folder.mkdir()
        for name in names:
            row: dict[str, Any] = dict.fromkeys(names, "text" if len(names) > 1 else GOOD) | {"n": 1}
            try:
                source = of_rows(folder, [row, row | {name: odd}, row], system_prompt="s")
            except DatasetError:
                continue
            first, between, last = renderer.render(source.conversations([0, 1, 2]))
            usable = isinstance(first, Example) or "no column has the prompt" in str(first)
            assert usable and type(last) is type(first)
            assert isinstance(between, Example) or str(between)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "column 'messages' holds JSON that can't be read"),
        ('[{"role":', "column 'messages' holds JSON that can't be read"),
        ("[1, 2]", "column 'messages' is not a list of messages"),
        ("[]", "no messages"),
        ("hello", "column 'messages' is not a list of messages"),
        (json.dumps([GOOD[0]]), "no assistant message"),
        (json.dumps(messages("a", "\ud83d")), "column 'messages' holds JSON that can't be read"),
    ],
)
def test_json_text(text: str, reason: str, tmp_path: Path) -> None:
    rows = [{"messages": json.dumps(GOOD)}, {"messages": text}, {"messages": json.dumps(messages("\U0001f600", "b"))}]
    assert contents(of_rows(tmp_path, rows)) == [["a", "b"], reason, ["\U0001f600", "b"]]


@pytest.mark.parametrize("kind", ["image", "audio", "video", "input_audio", "image_url"])
def test_parts_that_are_no_text_are_named(kind: str, tmp_path: Path) -> None:
    said = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": kind, kind: "x"}]}, GOOD[1]]
    assert contents(of_rows(tmp_path, [{"messages": said}])) == [f"user content has parts that are not text: {kind}"]


def test_other_types_of_columns(tmp_path: Path) -> None:
    columns = [pa.array([b"a"]), pa.array([5]), pa.array([None]), pa.array([[1.5]]), pa.array([0], pa.timestamp("s"))]
    for place, column in enumerate(columns):
        path = tmp_path / f"{place}.parquet"
        pq.write_table(pa.table({"question": column, "answer": ["b"]}), path)
        (said,) = contents(opened(path))
        assert isinstance(said, str) and said.startswith(("user content", "empty user content"))
        pq.write_table(pa.table({"messages": column}), path)
        assert contents(opened(path)) == ["column 'messages' is not a list of messages"]


def test_a_file_that_is_nested_too_deeply(tmp_path: Path) -> None:
    nested = "[" * 1000 + "]" * 1000
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": ' + nested + "}\n")
    with pytest.raises(DatasetError, match=r"rows\.jsonl.*nested too deeply|rows\.jsonl.*depth"):
        opened(tmp_path / "rows.jsonl")
