"""Rows of the known shapes to the one shape chat templates take."""

from collections.abc import Mapping
from typing import Any

from teacher_logits.conversations.masks import Unusable
from teacher_logits.conversations.shapes import Columns
from teacher_logits.conversations.tools import (
    Messages,
    call_of_function,
    from_json,
    read_mappings,
    without_nulls,
)

_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant"}
"""Names that no template takes for what they mean. All others are the template's business."""
_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "function": "function",
    "observation": "tool",
    "tool_response": "tool",
    "function_response": "tool",
}
"""ShareGPT's speakers. `function` is left as it is: templates that know it mean the result of a call, too."""
_FUNCTION_CALL = "function_call"
"""ShareGPT's speaker of calls, and the key that OpenAI's messages had for one before `tool_calls`."""
_SYSTEM = ("system", "developer")
_MAY_BE_EMPTY = ("tool", "function")
_TEXT_PARTS = (None, "text", "input_text", "output_text")
_HOLDERS = ("messages", "conversations")


def read_conversation(
    row: Mapping[str, Any], columns: Columns, system_prompt: str | None = None
) -> tuple[Messages, list[dict[str, Any]] | None]:
    """The messages of a row and its tools.

    A conversation without a system message gets that of its row's system column, else `system_prompt`, else none.
    Raises Unusable where messages are empty, not text, or without an assistant's turn.
    """
    try:
        tools = row.get(columns.tools) if columns.tools is not None else None
        if columns.messages is None:
            messages = _from_pair(row, columns)
        else:
            listed, own_tools = _listed(row[columns.messages], columns.messages)
            messages, tools = [_message(message) for message in listed], tools or own_tools
        if not any(message["role"] == "assistant" for message in messages):
            raise Unusable("no assistant message")
        own = row.get(columns.system) if columns.system is not None else None
        return _with_system(messages, own, system_prompt), read_mappings(tools, "tools") or None
    except RecursionError as error:
        raise Unusable("nested too deeply") from error


def _listed(value: Any, column: str) -> tuple[list[Mapping[str, Any]], Any]:
    """The messages of a column's value, not yet read, and the tools where it holds both."""
    tools = None
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        value = from_json(value, f"column {column!r}")
    if isinstance(value, Mapping):
        holder = next((name for name in _HOLDERS if value.get(name) is not None), None)
        value, tools = (value[holder], value.get("tools")) if holder else (value, None)
    if not isinstance(value, list) or not all(isinstance(message, Mapping) for message in value):
        raise Unusable(f"column {column!r} is not a list of messages")
    if not value:
        raise Unusable("no messages")
    return value, tools


def _from_pair(row: Mapping[str, Any], columns: Columns) -> Messages:
    """User and assistant columns: texts, or messages where a prompt or an answer is a list of them."""
    assert columns.assistant is not None
    answer = _listed_or_none(row[columns.assistant], columns.json_text)
    if answer is not None and answer[0]["role"] != "assistant":
        return answer  # the whole conversation
    if columns.user is None:
        if answer is None:
            if isinstance(row[columns.assistant], str) and "\n\nAssistant:" in row[columns.assistant]:
                raise Unusable(
                    f"column {columns.assistant!r} is a transcript (Human: ... Assistant: ...): split it into messages "
                    "with role and content"
                )
            raise Unusable(f"column {columns.assistant!r} is not a list of messages, and no column has the prompt")
        return answer
    prompt = _listed_or_none(row[columns.user], columns.json_text)
    if prompt is None:
        extra = row.get(columns.input) if columns.input is not None else None
        prompt = [{"role": "user", "content": _user_text(row[columns.user], extra)}]
    return prompt + (answer or [{"role": "assistant", "content": _text(row[columns.assistant], "assistant")}])


def _listed_or_none(value: Any, json_text: bool) -> Messages | None:
    """The messages of a value that is a list of them, or one; None where it is something else."""
    if json_text and isinstance(value, str) and value.lstrip().startswith(("[{", "{")):
        try:
            value = from_json(value, "")
        except Unusable:  # an answer may well begin like that
            return None
    listed = [value] if isinstance(value, Mapping) else value
    if not isinstance(listed, list) or not listed:
        return None
    if not all(isinstance(each, Mapping) and ("role" in each or "from" in each) for each in listed):
        return None
    return [_message(each) for each in listed]


def _user_text(text: Any, extra: Any) -> str:
    """The user's text, and after an empty line the input that it is about."""
    if extra is None or not (more := _joined(extra, "user")).strip():
        return _text(text, "user")
    if text is None or not (instruction := _joined(text, "user")).strip():
        return more
    return f"{instruction}\n\n{more}"


def _with_system(messages: Messages, own: Any, general: str | None) -> Messages:
    if any(message["role"] in _SYSTEM for message in messages):
        return messages
    text = general if own is None or not _joined(own, "system").strip() else _joined(own, "system")
    return messages if text is None else [{"role": "system", "content": text}, *messages]


def _message(raw: Mapping[str, Any]) -> dict[str, Any]:
    """One message as role, content and whatever else it carries. ShareGPT's from/value is understood."""
    message = {key: value for key, value in raw.items() if value is not None}
    if "role" not in message and "from" in message:
        message = _spoken(message.pop("from"), message)
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise Unusable("a message without a role")
    role = message["role"] = _ROLES.get(role, role)
    older = without_nulls(message.pop(_FUNCTION_CALL, None))
    if older and "tool_calls" not in message:
        message["tool_calls"] = call_of_function(older)
    elif "tool_calls" in message:
        message["tool_calls"] = read_mappings(message["tool_calls"], "tool_calls")
    content = message.get("content")
    if content is not None and role in (*_SYSTEM, *_MAY_BE_EMPTY):
        message["content"] = _joined(content, role)
    elif not message.get("tool_calls") or content:
        message["content"] = _text(content, role)
    return {key: without_nulls(value) for key, value in message.items()}


def _spoken(speaker: Any, rest: dict[str, Any]) -> dict[str, Any]:
    """A message of ShareGPT, whose speaker is a role by another name."""
    content = rest.pop("value", None)
    if speaker == _FUNCTION_CALL:
        return {"role": "assistant", "tool_calls": call_of_function(content), **rest}
    if not isinstance(speaker, str) or not speaker:
        raise Unusable("a message without a role")
    if speaker not in _SPEAKERS:
        raise Unusable(f"a message from {repr(speaker)[:60]}, which is no speaker that is known")
    return {"role": _SPEAKERS[speaker], "content": content, **rest}


def _text(content: Any, role: str) -> str:
    text = _joined(content, role)
    if not text.strip():
        raise Unusable(f"empty {role} content")
    return text


def _joined(content: Any, role: str) -> str:
    """Content as text; a list of text parts is joined."""
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS]
        parts = [text for text in texts if isinstance(text, str)]
        if len(parts) != len(content):
            kinds = {str(part.get("type")) if isinstance(part, Mapping) else type(part).__name__ for part in content}
            raise Unusable(f"{role} content has parts that are not text: {', '.join(sorted(kinds - {'text'}))}")
        return "".join(parts)
    if content is None:
        raise Unusable(f"empty {role} content")
    if not isinstance(content, str):
        raise Unusable(f"{role} content is not text but {type(content).__name__}")
    return content
