"""Which columns of a dataset hold its conversations, and as what: found by their names, or as the options say.

The first of these that a dataset has is taken, where no option names columns:

1. `messages` or `conversations`, lists of messages
2. the default columns of --user-col and --assistant-col
3. `conversation`, a list of messages
4. the pairs of `_PAIRS`, from top to bottom
5. a user's column of one pair and an assistant's of another, where there is only one of each
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from teacher_logits.errors import DatasetError
from teacher_logits.settings import SourceOptions

TOOLS = "tools"
"""A column of this name is read as the tools, unless another is named."""
_MESSAGE_COLUMNS = ("messages", "conversations")
_LATER_MESSAGE_COLUMN = "conversation"
_ADVICE = "Name them with --user-col and --assistant-col, or a column of message lists with --messages-col."


class _Pair(NamedTuple):
    user: str | None
    assistant: str
    input: str | None
    words: str


_PREFERENCES = "preference data (the chosen conversation)"
_PAIRS = (
    _Pair("prompt", "chosen", None, _PREFERENCES),
    _Pair("question", "chosen", None, _PREFERENCES),
    _Pair("input", "chosen", None, _PREFERENCES),
    _Pair("prompt", "completion", None, "prompt and completion"),
    _Pair("prompt", "response", None, "prompt and response"),
    _Pair("instruction", "output", "input", "Alpaca"),
    _Pair("instruction", "response", "context", "instruction and response"),
    _Pair("question", "response", None, "question and response"),
    _Pair("query", "response", None, "query and response"),
    _Pair("input", "output", None, "input and output"),
    _Pair("problem", "solution", None, "problem and solution"),
    _Pair(None, "chosen", None, _PREFERENCES),
)


@dataclass(frozen=True)
class Columns:
    """The columns a conversation is read from: one of messages, or one each for user and assistant."""

    messages: str | None
    user: str | None
    assistant: str | None
    input: str | None = None
    """What goes behind the user's text, after an empty line."""
    system: str | None = None
    tools: str | None = None
    words: str = "user and assistant text"
    """What user and assistant columns are, as a user calls them."""
    json_text: bool = False
    """Whether a text in the user's and the assistant's column may be JSON of messages. Where options name the columns,
    or they are the default ones, a text is a text."""

    def describe(self, row: Mapping[str, Any]) -> str:
        """What is read, in words; `row` is one of those that are read."""
        if self.messages is not None:
            text = f"`{self.messages}` as {_form(row.get(self.messages))}"
        else:
            names = [f"`{name}`" for name in (self.user, self.input, self.assistant) if name is not None]
            *most, last = names
            text = f"{', '.join(most)} and {last} as {self.words}" if most else f"{last} as {self.words}"
        also = {"tools": self.tools, "system prompts": self.system}
        return text + "".join(f", {what} from `{name}`" for what, name in also.items() if name is not None)

    def names(self) -> dict[str, str]:
        """The columns by what they hold, as the metadata keeps them; that of the tools if it isn't called `tools`."""
        held = {
            "messages": self.messages,
            "user": self.user,
            "input": self.input,
            "assistant": self.assistant,
            "system": self.system,
            "tools": None if self.tools == TOOLS else self.tools,
        }
        return {kind: name for kind, name in held.items() if name is not None}

    def read(self) -> list[str]:
        """All columns that are read."""
        held = (self.messages, self.user, self.input, self.assistant, self.system, self.tools)
        return list(dict.fromkeys(name for name in held if name is not None))


def find_columns(available: list[str], config: SourceOptions, rows: int | None = None) -> Columns:
    """The columns that hold the conversations: those that the options name, else the first known ones.

    rows: how many there are, for what is said where no column is known.
    Raises DatasetError, naming the columns there are.
    """
    more = Columns(
        messages=None,
        user=None,
        assistant=None,
        input=_named(config.input_col, available, "--input-col"),
        system=_named(config.system_col, available, "--system-col"),
        tools=_named(config.tools_col, available, "--tools-col") or (TOOLS if TOOLS in available else None),
    )
    defaults = SourceOptions()
    pair_asked = (config.user_col, config.assistant_col) != (defaults.user_col, defaults.assistant_col)
    messages = _named(config.messages_col, available, "--messages-col")
    if messages is None and not pair_asked:
        messages = _known_messages(available, config)
    if messages is not None:
        if config.input_col is not None:
            raise DatasetError(
                f"--input-col goes with a column of the user's text, and column {messages!r} is read, which holds "
                "whole conversations. Leave it out, or name the columns with --user-col and --assistant-col."
            )
        return replace(more, messages=messages)
    if not pair_asked and not _has_default_pair(available, config):
        known = _known_pair(available) or _only_pair(available, more.read(), rows)
        own = known.input if known.input in available else None
        columns = replace(more, user=known.user, assistant=known.assistant, input=more.input or own)
        return replace(columns, words=known.words, json_text=True)
    require_column(config.user_col, available, "--user-col")
    require_column(config.assistant_col, available, "--assistant-col")
    return replace(more, user=config.user_col, assistant=config.assistant_col)


def _known_messages(available: list[str], config: SourceOptions) -> str | None:
    """The column of messages that is taken unasked."""
    found = next((name for name in _MESSAGE_COLUMNS if name in available), None)
    if found is None and not _has_default_pair(available, config) and _LATER_MESSAGE_COLUMN in available:
        return _LATER_MESSAGE_COLUMN
    return found


def _has_default_pair(available: list[str], config: SourceOptions) -> bool:
    return config.user_col in available and config.assistant_col in available


def _known_pair(available: list[str]) -> _Pair | None:
    """The first of `_PAIRS` that is there."""
    return next((pair for pair in _PAIRS if pair.assistant in available and pair.user in (*available, None)), None)


def _only_pair(available: list[str], taken: list[str], rows: int | None) -> _Pair:
    """A user's column and an assistant's that are known from different pairs, none of them `taken` for something else.
    Raises DatasetError where there isn't exactly one of each."""
    defaults = SourceOptions()
    free = [name for name in available if name not in taken]
    users = [name for name in free if name in (defaults.user_col, *(pair.user for pair in _PAIRS))]
    assistants = [name for name in free if name in (defaults.assistant_col, *(pair.assistant for pair in _PAIRS))]
    if len(users) == len(assistants) == 1:
        return _Pair(users[0], assistants[0], None, f"{users[0]} and {assistants[0]}")
    found = "no shape of chat data that is known"
    if users and assistants:
        user, assistant = (" or ".join(map(repr, names)) for names in (users, assistants))
        found = f"{user} may be the user's, {assistant} the assistant's"
    deeper = ' If the rows lie one level deeper, as in {"data": [...]}, write that list alone into the file.'
    raise DatasetError(
        f"The dataset's columns are {', '.join(map(repr, available))}: {found}. {_ADVICE}{deeper if rows == 1 else ''}"
    )


def _named(name: str | None, available: list[str], option: str) -> str | None:
    if name is not None:
        require_column(name, available, option)
    return name


def require_column(name: str, available: list[str], option: str) -> None:
    """Raise DatasetError where a column is missing."""
    if name not in available:
        advice = f"Name one of these with {option}."
        if option in ("--user-col", "--assistant-col"):
            advice = _ADVICE
        raise DatasetError(
            f"The dataset has no column {name!r} ({option}); it has {', '.join(map(repr, available))}. {advice}"
        )


def _form(value: Any) -> str:
    """What a column of messages holds, as one of its values shows it."""
    if isinstance(value, str):
        return "messages in JSON text"
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, Mapping) and first.get("role") is None and first.get("from") is not None:
        return "ShareGPT (from, value)"
    return "messages (role, content)"
