"""What a conversation holds and the chat template doesn't print: the teacher never sees it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from teacher_logits.conversations.fitting import Render, arguments_of, has_calls, with_function
from teacher_logits.conversations.masks import Unusable
from teacher_logits.conversations.tools import Messages
from teacher_logits.records import Conversation

CALLS_UNPRINTED = "the chat template doesn't print an answer's tool calls"
"""Why a conversation is skipped: without its calls an answer isn't what the assistant said, nor where it stopped."""
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""What messages hold thoughts in, beside their content."""
_WORD = "prqword"


def calls_vanish(render: Render, messages: Messages) -> bool:
    """Whether a call in these messages isn't printed, or its arguments: each is given a name and arguments that stand
    nowhere else, which are looked for."""
    words: list[str] = []

    def word() -> str:
        words.append(f"{_WORD}{len(words)}w")
        return words[-1]

    def renamed(call: Any) -> Any:
        if not isinstance(call, Mapping):
            return call
        changes: dict[str, Any] = {"name": word()}
        match arguments_of(call):
            case {**some} if some:
                changes["arguments"] = {"name": word()}
            case [_, *_]:
                changes["arguments"] = [word()]
            case str(text) if text.strip():
                changes["arguments"] = word()
        return with_function(call, **changes)

    calling = [
        {**message, "tool_calls": [renamed(call) for call in message["tool_calls"]]}
        if isinstance(message.get("tool_calls"), list)
        else message
        for message in messages
    ]
    try:
        text = render(calling)
    except Unusable:  # a template that looks at the names prints them
        return False
    return not all(each in text for each in words)


def unprinted(render: Callable[[Conversation], str], conversation: Conversation) -> Iterator[str]:
    """What of a conversation makes no difference to the text that `render` gives, in words.

    Each is told by a rendering without it, or with another in its place. What the template doesn't do without
    is printed. Raises Unusable where the conversation can't be rendered.
    """
    text, messages = render(conversation), conversation.messages

    def is_the_same(other: Conversation) -> bool:
        try:
            return render(other) == text
        except Unusable:
            return False

    if conversation.tools and is_the_same(replace(conversation, tools=None)):
        yield "`tools`"
    if has_calls(messages) and calls_vanish(lambda said: render(replace(conversation, messages=said)), messages):
        yield "`tool_calls`"
    thoughts = [key for key in THOUGHTS if any(message.get(key) for message in messages)]
    if thoughts:  # together, since transformers fills in one from the other
        without = [{key: value for key, value in message.items() if key not in THOUGHTS} for message in messages]
        if is_the_same(replace(conversation, messages=without)):
            yield " and ".join(f"`{key}`" for key in thoughts)
    spoken = [message for message in messages if message.get("content")]
    for role in dict.fromkeys(str(message.get("role")) for message in spoken):
        others = [
            {**message, "content": _WORD} if message.get("role") == role and message.get("content") else message
            for message in messages
        ]
        if is_the_same(replace(conversation, messages=others)):
            yield f"messages of role {role!r}"
