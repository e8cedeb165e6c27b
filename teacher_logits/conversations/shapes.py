"""Rows of the known shapes to the one shape chat templates take."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from teacher_logits.conversations.masks import Unusable
from teacher_logits.errors import DatasetError
from teacher_logits.settings import SourceOptions

_MESSAGE_COLUMNS = ("messages", "conversations")
_SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_TEXT_PARTS = (None, "text", "input_text", "output_text")


@dataclass(frozen=True)
class Columns:
    """The columns a conversation is read from: one of messages, or one each for user and assistant."""

    messages: str | None
    user: str | None
    assistant: str | None

    def describe(self) -> str:
        """What is read, in words."""
        if self.messages is not None:
            return f"message lists from column {self.messages!r}"
        return f"user text from column {self.user!r} and assistant text from column {self.assistant!r}"

    def names(self) -> dict[str, str]:
        """The columns by what they hold, as the metadata keeps them."""
        held = {"messages": self.messages, "user": self.user, "assistant": self.assistant}
        return {kind: name for kind, name in held.items() if name is not None}


def find_columns(available: list[str], config: SourceOptions) -> Columns:
    """The columns that hold the conversations: those asked for, else a column of messages, else user and assistant.

    Raises DatasetError, naming the columns there are.
    """
    defaults = SourceOptions()
    asked = (config.user_col, config.assistant_col) != (defaults.user_col, defaults.assistant_col)
    if config.messages_col is not None:
        require_column(config.messages_col, available, "--messages-col")
        return Columns(config.messages_col, None, None)
    found = next((name for name in _MESSAGE_COLUMNS if name in available), None)
    if found is not None and not asked:
        return Columns(found, None, None)
    require_column(config.user_col, available, "--user-col")
    require_column(config.assistant_col, available, "--assistant-col")
    return Columns(None, config.user_col, config.assistant_col)


def require_column(name: str, available: list[str], option: str) -> None:
    """Raise DatasetError where a column is missing."""
    if name not in available:
        advice = f"Name one of these with {option}."
        if option in ("--user-col", "--assistant-col"):
            advice = "Name them with --user-col and --assistant-col, or a column of message lists with --messages-col."
        raise DatasetError(
            f"The dataset has no column {name!r} ({option}); it has {', '.join(map(repr, available))}. {advice}"
        )


def read_messages(row: Mapping[str, Any], columns: Columns) -> list[dict[str, Any]]:
    """The messages of a row. Raises Unusable where they are empty, not text, or without an assistant's turn."""
    if columns.messages is None:
        assert columns.user is not None and columns.assistant is not None
        return [
            {"role": "user", "content": _text(row[columns.user], "user")},
            {"role": "assistant", "content": _text(row[columns.assistant], "assistant")},
        ]
    messages = row[columns.messages]
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise Unusable(f"column {columns.messages!r} is not a list of messages")
    if not messages:
        raise Unusable("no messages")
    read = [_message(message) for message in messages]
    if not any(message["role"] == "assistant" for message in read):
        raise Unusable("no assistant message")
    return read


def _message(raw: Mapping[str, Any]) -> dict[str, Any]:
    """One message as role, content and whatever else it carries. ShareGPT's from/value is understood."""
    message = {key: value for key, value in raw.items() if value is not None}
    if "role" not in message and "from" in message:
        speaker = message.pop("from")
        message = {"role": speaker, "content": message.pop("value", None), **message}
        if isinstance(speaker, str):
            message["role"] = _SHAREGPT_ROLES.get(speaker, speaker)
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise Unusable("a message without a role")
    if role == "system" and message.get("content") is not None:
        message["content"] = _joined(message["content"], role)
    elif not message.get("tool_calls") or message.get("content"):
        message["content"] = _text(message.get("content"), role)
    return message


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
