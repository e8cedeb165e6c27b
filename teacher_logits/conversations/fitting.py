"""What a template takes otherwise than most do, found by rendering the same messages both ways.

render: renders messages with the template, and raises Unusable where it refuses them.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from teacher_logits.conversations.masks import Unusable
from teacher_logits.conversations.tools import Messages, from_json

Render = Callable[[Messages], str]
_NAME, _KEY, _VALUE = "prqcall", "prqkey", "prqvalue"
_EITHER_WAY = ({_KEY: _VALUE}, f'{{"{_KEY}": "{_VALUE}"}}')
"""Arguments of a call."""


def has_calls(messages: Messages) -> bool:
    """Whether any tool is called."""
    return any(message.get("tool_calls") for message in messages)


def content_of_calls(render: Render) -> dict[str, Any]:
    """The content, as a part of the message, with which a template prints an answer that only calls tools: none at
    all, else null, as OpenAI writes it, else (also where no call is printed) an empty text."""
    for content in ({}, {"content": None}, {"content": ""}):
        for arguments in _EITHER_WAY:
            text = _tried(render, _calling(arguments, content))
            if text is not None and _NAME in text and not (content and "None" in text):
                return content
    return {"content": ""}


def wanted_arguments(render: Render, content: Mapping[str, Any]) -> type | None:
    """How a template takes the arguments of tool calls: dict or str, or None where it takes them as they are.

    content: as of `content_of_calls`.

    Published templates print JSON text as it is, or turn mappings into JSON, or do both. One that takes only mappings
    refuses text, drops it, or prints it in quotation marks, with those inside escaped; one that takes only text refuses
    mappings.
    """
    as_mapping, as_text = (_tried(render, _calling(arguments, content)) for arguments in _EITHER_WAY)
    if as_mapping is None:
        return None if as_text is None else str
    if as_text is None or (_VALUE in as_mapping and _VALUE not in as_text):
        return dict
    escaped = rf"\"{_KEY}\""
    return dict if escaped in as_text and escaped not in as_mapping else None


def with_arguments(messages: Messages, wanted: type) -> Messages:
    """The messages with the arguments of tool calls as mappings (dict) or as JSON text (str), where they can be."""
    return [
        {**message, "tool_calls": [_with_arguments(call, wanted) for call in message["tool_calls"]]}
        if isinstance(message.get("tool_calls"), list)
        else message
        for message in messages
    ]


def with_content(messages: Messages, content: Mapping[str, Any]) -> Messages:
    """The messages, those that only call tools with this for their content."""
    return [{**content, **message} if message.get("tool_calls") else message for message in messages]


def with_function(call: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """A call of a tool with another name or other arguments."""
    function = {**_function(call), **changes}
    return function if _function(call) is call else {**call, "function": function}


def arguments_of(call: Mapping[str, Any]) -> Any:
    """The arguments of a call of a tool, in whatever form they are."""
    return _function(call).get("arguments")


def names_called(message: Mapping[str, Any]) -> list[str]:
    """The names of the tools that a message calls."""
    calls = [call for call in message.get("tool_calls") or [] if isinstance(call, Mapping)]
    return [name for call in calls if isinstance(name := _function(call).get("name"), str)]


def _tried(render: Render, messages: Messages) -> str | None:
    try:
        return render(messages)
    except Unusable:
        return None


def _calling(arguments: Any, content: Mapping[str, Any]) -> Messages:
    call = {"id": "abcdefghi", "type": "function", "function": {"name": _NAME, "arguments": arguments}}
    return [
        {"role": "user", "content": "a"},
        {"role": "assistant", **content, "tool_calls": [call]},
        {"role": "tool", "name": "f", "tool_call_id": "abcdefghi", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]


def _function(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call.get("function")
    return function if isinstance(function, Mapping) else call


def _with_arguments(call: Any, wanted: type) -> Any:
    if not isinstance(call, Mapping):
        return call
    arguments = arguments_of(call)
    if wanted is str and isinstance(arguments, Mapping):
        arguments = json.dumps(arguments, ensure_ascii=False, default=str)
    elif wanted is dict and isinstance(arguments, str):
        try:
            arguments = from_json(arguments, "arguments")
        except Unusable:  # the template is to say what it makes of that
            return call
    return with_function(call, arguments=arguments) if isinstance(arguments, wanted) else call
