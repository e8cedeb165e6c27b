"""Tools and their calls, as templates take them; JSON that stands in a column as text."""

import json
from collections.abc import Callable, Mapping
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


def has_calls(messages: Messages) -> bool:
    """Whether any tool is called."""
    return any(message.get("tool_calls") for message in messages)


def wanted_arguments(render: Callable[[Messages], str]) -> type | None:
    """How a template takes the arguments of tool calls: dict or str, or None where it takes them as they are.

    Published templates print JSON text as it is, or turn mappings into JSON, or do both. One that takes only mappings
    refuses text, or prints it in quotation marks, with those inside escaped; one that takes only text refuses mappings.
    """
    as_mapping, as_text = (_tried(render, arguments) for arguments in ({"a": "b"}, '{"a": "b"}'))
    if as_mapping is None:
        return None if as_text is None else str
    return dict if as_text is None or (r"\"a\"" in as_text and r"\"a\"" not in as_mapping) else None


def with_arguments(messages: Messages, wanted: type) -> Messages:
    """The messages with the arguments of tool calls as mappings (dict) or as JSON text (str), where they can be."""
    return [
        {**message, "tool_calls": [_with_arguments(call, wanted) for call in message["tool_calls"]]}
        if isinstance(message.get("tool_calls"), list)
        else message
        for message in messages
    ]


def _tried(render: Callable[[Messages], str], arguments: Any) -> str | None:
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": arguments}}
    try:
        return render(
            [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "name": "f", "tool_call_id": "abcdefghi", "content": "c"},
                {"role": "assistant", "content": "d"},
            ]
        )
    except Unusable:
        return None


def _function(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call.get("function")
    return function if isinstance(function, Mapping) else call


def _with_arguments(call: Any, wanted: type) -> Any:
    if not isinstance(call, Mapping):
        return call
    arguments = _function(call).get("arguments")
    if wanted is str and isinstance(arguments, Mapping):
        arguments = json.dumps(arguments, ensure_ascii=False, default=str)
    elif wanted is dict and isinstance(arguments, str):
        try:
            arguments = from_json(arguments, "arguments")
        except Unusable:  # the template is to say what it makes of that
            return call
    if not isinstance(arguments, wanted):
        return call
    function = {**_function(call), "arguments": arguments}
    return function if _function(call) is call else {**call, "function": function}
