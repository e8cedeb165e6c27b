"""Masks by strict prefixes, for templates without marks.

What a template prints for the messages before an answer, with the prompt that begins one, is the beginning of what it
prints with the answer, and that is the beginning of the whole: then the difference is the turn, and what the model
would have to write.
"""

from typing import Any

from teacher_logits.conversations.masks import Unmarkable
from teacher_logits.conversations.template import ChatTemplate, Messages, Tools
from teacher_logits.conversations.turns import Turn, TurnEnds, as_printed, assistant_text

_SPEAKING = {"tool_calls", "function_call", "reasoning_content", "reasoning", "thinking"}
"""What an assistant's message can say besides its content."""
_SHOWN = 40
"""Characters that are shown of what departs."""


def prefix_turns(template: ChatTemplate, ends: TurnEnds, messages: Messages, tools: Tools, text: str) -> list[Turn]:
    """The turns of a conversation whose rendering is `text`. Raises Unmarkable where they can't be told."""
    turns = []
    for place, message in enumerate(messages):
        if message.get("role") != "assistant":
            continue
        content = assistant_text(message)
        before = template.render(messages[:place], tools, prompt=True)
        upto = text if place == len(messages) - 1 else template.render(messages[: place + 1], tools)
        if not upto.startswith(before):
            raise Unmarkable(
                "the template's generation prompt is not how it begins an answer",
                _departure(before, upto, "prompt", "answer"),
            )
        if not text.startswith(upto):
            raise Unmarkable(
                "the template prints an answer differently when more follows",
                _departure(upto, text, "last", "followed"),
            )
        first, past = len(before), len(upto)
        turns.append(_turn(ends, message, content, upto[first:past], first, text, place == len(messages) - 1))
    return turns


def _turn(
    ends: TurnEnds, message: dict[str, Any], content: str, printed: str, first: int, text: str, is_last: bool
) -> Turn:
    """The turn that is `printed` from the character `first` of the text on."""
    found = _place_of(content, printed) if content else None
    if found is not None:
        turn = ends.close(text, first + found[0], first + found[1], is_last)
        if not ends.said_more(printed[turn.past - first :]):
            return turn
    if not message.keys() & _SPEAKING:
        raise Unmarkable(
            "the template prints other text in an answer than the message's", repr(printed.strip()[:_SHOWN])
        )
    # Thoughts of their own, tool calls: nothing but this message is printed here, and all of it is the model's to say.
    body = printed.rstrip()
    if content and not any(each and each in body for each in as_printed(content)):
        raise Unmarkable("the template leaves out the text of an answer", repr(body[:_SHOWN]))
    first += len(printed) - len(printed.lstrip())
    past = first + len(body.lstrip())
    end = next((each for each in (ends.last, ends.between) if each is not None and body.endswith(each)), None)
    if end is None and any(each in body.replace(content, "") for each in ends.ids):
        raise Unmarkable("the template prints text behind the token that ends an answer", repr(body[-_SHOWN:]))
    return Turn(first, past, end) if end else ends.close(text, first, past, is_last)


def _place_of(content: str, printed: str) -> tuple[int, int] | None:
    """Where `printed` has the content, if nothing but white space stands before it; None where it hasn't.

    The content may be printed with other white space, as templates do that take thoughts apart and put them together.
    """
    lead = len(printed) - len(printed.lstrip())
    for variant in as_printed(content):
        start = lead - (len(variant) - len(variant.lstrip()))
        if start >= 0 and printed.startswith(variant, start):
            return start, start + len(variant)
    letters = [place for place, letter in enumerate(printed) if not letter.isspace()]
    wanted = "".join(content.split())
    if "".join(printed.split()).startswith(wanted):
        return lead, letters[len(wanted) - 1] + 1
    return None


def _departure(short: str, long: str, one: str, other: str) -> str:
    """Where two texts differ, in a few characters of each."""
    place = next((at for at, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), min(len(short), len(long)))
    start = max(0, place - _SHOWN // 2)
    return f"{one} {short[start : place + _SHOWN]!r}, {other} {long[start : place + _SHOWN]!r}"
