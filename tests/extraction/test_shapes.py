"""Chat data of each shape through a whole run: what is stored decodes to the texts that are expected."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from tests.conversations.test_rendering_shapes import AS_JSON, CHOSEN, PLAIN, PREFERENCES, SHAPES, TOOL
from tests.conversations.test_rendering_tools import CALLED, calling
from tests.conversations.unmarked import KINDS, without_marks
from tests.extraction.runs import Place, stored_rows
from tests.tiny import messages, write_jsonl

TALK = messages("What is it?", "the river", "why", "the old 🙂 bridge", "é", "It is\n\nblue.")
TOLD = (
    "user=What is it?\nassistant=[[the river]]\nuser=why\nassistant=[[the old 🙂 bridge]]\n"
    "user=é\nassistant=[[It is\n\nblue.]]\n"
)
SHAREGPT = [{"from": {"user": "human", "assistant": "gpt"}[m["role"]], "value": m["content"]} for m in TALK]
PARTS = [{**m, "content": [{"type": "text", "text": t} for t in (m["content"][:1], m["content"][1:])]} for m in TALK]
THOUGHTS = [TALK[0], {"role": "assistant", "content": "b", "reasoning_content": "hm, so"}]
TOOLS = json.dumps([TOOL]) + "\n"
CALL = json.dumps({"name": "f", "arguments": {"x": 1}})
CALLS = [("human", "a"), ("function_call", CALL), ("observation", "1"), ("gpt", "b")]
PAIR, PAIR_COLUMNS = {"question": "a", "answer": "b"}, {"user": "question", "assistant": "answer"}

Case = tuple[dict[str, Any], dict[str, Any], dict[str, str], str]
LONGER: dict[str, Case] = {
    "messages": ({"messages": TALK}, {}, {"messages": "messages"}, TOLD),
    "messages as JSON": ({"messages": json.dumps(TALK)}, {}, {"messages": "messages"}, TOLD),
    "ShareGPT": ({"conversations": SHAREGPT}, {}, {"messages": "conversations"}, TOLD),
    "ShareGPT as JSON": ({"conversations": json.dumps(SHAREGPT)}, {}, {"messages": "conversations"}, TOLD),
    "parts": ({"messages": PARTS}, {}, {"messages": "messages"}, TOLD),
    "parts as JSON": ({"messages": json.dumps(PARTS)}, {}, {"messages": "messages"}, TOLD),
    "a prompt of several turns": (
        {"prompt": TALK[:-1], "completion": TALK[-1:]},
        {},
        {"user": "prompt", "assistant": "completion"},
        TOLD,
    ),
    "a chosen conversation": ({"chosen": TALK, "rejected": TALK[:2]}, {}, {"assistant": "chosen"}, TOLD),
    "the last turn": (
        {"messages": TALK},
        {"turns": "last"},
        {"messages": "messages"},
        TOLD.replace("[[the river]]", "the river").replace("[[the old 🙂 bridge]]", "the old 🙂 bridge"),
    ),
    "thoughts": (
        {"messages": THOUGHTS},
        {},
        {"messages": "messages"},
        "user=What is it?\nassistant=[[(hm, so) b]]\n",
    ),
    "calls": ({"messages": calling({"x": 1}), "tools": [TOOL]}, {}, {"messages": "messages"}, TOOLS + CALLED),
    "calls as JSON": (
        {"messages": json.dumps(calling('{"x": 1}')), "tools": json.dumps([TOOL])},
        {},
        {"messages": "messages"},
        TOOLS + CALLED,
    ),
    "calls in ShareGPT": (
        {"conversations": [{"from": speaker, "value": text} for speaker, text in CALLS]},
        {},
        {"messages": "conversations"},
        CALLED,
    ),
    "tools of another name": (
        {"messages": calling({"x": 1}), "functions": [TOOL]},
        {"tools_col": "functions"},
        {"messages": "messages", "tools": "functions"},
        TOOLS + CALLED,
    ),
    "a system prompt": (PAIR, {"system_prompt": "Be kind."}, PAIR_COLUMNS, "system=Be kind.\n" + PLAIN),
    "a system column": (
        PAIR | {"about": "the town"},
        {"system_col": "about", "system_prompt": "Be kind."},
        PAIR_COLUMNS | {"system": "about"},
        "system=the town\n" + PLAIN,
    ),
    "named columns": (
        {"q": "a", "more": "i", "a": "b"},
        {"user_col": "q", "input_col": "more", "assistant_col": "a"},
        {"user": "q", "input": "more", "assistant": "a"},
        "user=a\n\ni\nassistant=[[b]]\n",
    ),
}
"""A row, options, the columns in the metadata, and the text as stored, tokens that have entries between [[ and ]]."""

UNASKED = [*SHAPES, *((row, {"user": "prompt", "assistant": "chosen"}, CHOSEN, PLAIN) for row in PREFERENCES)]


@pytest.fixture
def there(place: Place, save_tiny_teacher: Callable[..., Path], tmp_path: Path) -> Place:
    """A teacher whose template prints all there is in a conversation, and a dataset that is yet to be written."""
    return dataclasses.replace(place, teacher=save_tiny_teacher(template=AS_JSON), data=tmp_path / "chat.jsonl")


def run_over(place: Place, row: dict[str, Any], **options: Any) -> dict[str, Any]:
    """A run over such rows, between which stands one that can't be used. Returns its metadata."""
    write_jsonl(place.data, [row, dict.fromkeys(row), row])
    place.run(**options)
    assert stored_rows(place.folder)["index"].to_pylist() == [0, 2] and list(place.skipped) == [1]
    return place.checkpoint["metadata"]


def stored_texts(place: Place) -> list[str]:
    """The text of each stored row, each run of tokens that have entries between [[ and ]]."""
    tokenizer = AutoTokenizer.from_pretrained(place.teacher)
    texts = []
    for row in stored_rows(place.folder).to_pylist():
        ids, marked = np.array(row["input_ids"]), np.zeros(len(row["input_ids"]), bool)
        marked[row["positions"]] = True
        runs = np.split(np.arange(len(ids)), np.flatnonzero(np.diff(marked)) + 1)
        texts.append("".join(("[[%s]]" if marked[run[0]] else "%s") % tokenizer.decode(ids[run]) for run in runs))
        assert row["num_tokens"] == len(row["positions"]) == len(row["logsumexp"]) == len(row["top_counts"])
    return texts


@pytest.mark.parametrize(("row", "options", "columns", "text"), LONGER.values(), ids=LONGER)
def test_longer_conversations(
    row: dict[str, Any], options: dict[str, Any], columns: dict[str, str], text: str, there: Place
):
    metadata = run_over(there, row, **options)
    assert stored_texts(there) == [text, text]
    assert (metadata["mask_method"], metadata["source_columns"]) == ("template", columns)


@pytest.mark.parametrize(("row", "options", "columns", "text"), LONGER.values(), ids=LONGER)
def test_without_marks(
    row: dict[str, Any],
    options: dict[str, Any],
    columns: dict[str, str],
    text: str,
    there: Place,
    save_tiny_teacher: Callable[..., Path],
):
    """The same is stored where the generation prompt has to tell what the assistant says."""
    template = without_marks(AS_JSON) + "{% if add_generation_prompt %}assistant={% endif %}"
    place = dataclasses.replace(there, teacher=save_tiny_teacher(template=template))
    metadata = run_over(place, row, **options)
    assert stored_texts(place) == [text, text]
    assert (metadata["mask_method"], metadata["source_columns"]) == ("prefix", columns)


@pytest.mark.parametrize(("row", "columns", "words", "text"), UNASKED, ids=range(len(UNASKED)))
def test_what_is_read_unasked(
    row: dict[str, Any],
    columns: dict[str, str],
    words: str,
    text: str,
    there: Place,
    caplog: pytest.LogCaptureFixture,
):
    """Each shape is found by its columns, which the run says at its start and keeps."""
    with caplog.at_level("INFO", "teacher_logits"):
        metadata = run_over(there, row)
    assert stored_texts(there) == [text, text]
    assert metadata["source_columns"] == columns
    assert f"reading {words}, from chat.jsonl" in caplog.messages


def test_what_arrow_fills_in_is_not_there(there: Place, tmp_path: Path):
    """In a Parquet file one struct holds the keys of all messages and calls; each row has its own alone."""
    rows = [
        {"messages": TALK, "tools": None},
        {"messages": calling({"x": 1}), "tools": [TOOL]},
        {"messages": calling({"other": {"deep": 2}}), "tools": [TOOL]},
        {"messages": THOUGHTS, "tools": []},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "chat.parquet")
    dataclasses.replace(there, data=tmp_path / "chat.parquet").run()
    other = CALLED.replace('{"x": 1}', '{"other": {"deep": 2}}')
    assert stored_texts(there) == [TOLD, TOOLS + CALLED, TOOLS + other, LONGER["thoughts"][3]]


@pytest.mark.parametrize("method", ["template", "prefix", "sentinel"])
def test_each_way_to_a_mask(
    method: str, there: Place, save_tiny_teacher: Callable[..., Path], caplog: pytest.LogCaptureFixture
):
    """A template without marks stores for several turns what the same with marks does. The run says which way."""
    template = KINDS["prefix"] if method == "template" else without_marks(KINDS["prefix"])
    place = dataclasses.replace(there, teacher=save_tiny_teacher(template=template))
    with caplog.at_level("INFO", "teacher_logits"):
        metadata = run_over(place, {"messages": TALK}, mask_source=method)
    assert [text for text in caplog.messages if f"assistant tokens (--mask-source {method}): " in text]
    forms = {"user": "<|im_start|>user\n%s<|im_end|>\n", "assistant": "<|im_start|>assistant\n[[%s<|im_end|>]]\n"}
    said = "".join(forms[message["role"]] % message["content"] for message in TALK)
    assert stored_texts(place) == [said, said]
    assert (metadata["mask_method"], metadata["turns"]) == (method, "all")
