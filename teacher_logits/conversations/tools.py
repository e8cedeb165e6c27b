"""Tools and their calls in a dataset, and JSON that stands in a column as text."""

import json
from collections.abc import Mapping
from typing import Any

from teacher_logits.conversations.masks import Unusable

Messages = list[dict[str, Any]]


def from_json(text: str, what: str) -> Any:
    """What a JSON text holds. Raises Unusable where it isn't JSON, or holds what is no Unicode."""
    try:
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair can't be tokenized
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{what} holds JSON that can't be read") from error
    return value


def without_nulls(value: Any) -> Any:
    """The value without mappings' keys that hold None: Arrow gives every struct the keys that any of them has."""
    if isinstance(value, Mapping):
        return {key: without_nulls(held) for key, held in value.items() if held is not None}
    if isinstance(value, list):
        return [without_nulls(held) for held in value]
    return value


def read_mappings(value: Any, what: str) -> list[dict[str, Any]]:
    """A list of tools or of calls: mappings, or JSON text of one, or JSON text of the list."""
    if isinstance(value, str):
        value = from_json(value, what) if value.strip() else None
    if value is None:
        return []
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        raise Unusable(f"{what} is not a list but {type(value).__name__}")
    read = [from_json(each, what) if isinstance(each, str) else each for each in value]
    for each in read:
        if not isinstance(each, Mapping):
            raise Unusable(f"{what} holds {type(each).__name__} where a mapping is expected")
    return without_nulls(read)


def call_of_function(text: Any) -> list[dict[str, Any]]:
    """The tool calls that ShareGPT's `function_call` turns hold: JSON of name and arguments, or of a list of these."""
    calls = read_mappings(text, "function_call")
    if not calls or not all(isinstance(call.get("name"), str) for call in calls):
        raise Unusable("function_call names no function")
    return [{"type": "function", "function": call} for call in calls]
