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


def with_mappings(messages: Messages) -> Messages:
    """The messages with the arguments of tool calls as mappings where they are JSON text of one."""
    return [
        {**message, "tool_calls": [_with_mapping(call) for call in message["tool_calls"]]}
        if isinstance(message.get("tool_calls"), list)
        else message
        for message in messages
    ]


def has_text_arguments(messages: Messages) -> bool:
    """Whether any tool call has its arguments as text."""
    calls = (call for message in messages for call in message.get("tool_calls") or ())
    return any(isinstance(call, Mapping) and isinstance(_function(call).get("arguments"), str) for call in calls)


def wants_mappings(render: Callable[[Messages], str]) -> bool:
    """Whether a template prints tool calls as they should be only where arguments are mappings.

    Published templates either print JSON text as it is, or turn mappings into JSON. One of the latter that is given
    text refuses it, or prints it in quotation marks, with those inside escaped.
    """
    as_mapping, as_text = (_tried(render, arguments) for arguments in ({"a": "b"}, '{"a": "b"}'))
    return as_mapping is not None and (as_text is None or (r"\"a\"" in as_text and r"\"a\"" not in as_mapping))


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


def _with_mapping(call: Any) -> Any:
    if not isinstance(call, Mapping) or not isinstance(arguments := _function(call).get("arguments"), str):
        return call
    try:
        read = from_json(arguments, "arguments")
    except Unusable:  # the template is to say what it makes of that
        return call
    if not isinstance(read, Mapping):
        return call
    function = {**_function(call), "arguments": read}
    return function if _function(call) is call else {**call, "function": function}
