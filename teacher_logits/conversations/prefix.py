"""Masks by strict prefixes, for templates without marks.

What a template prints for the messages before an answer, with the prompt that begins one, is the beginning of what it
prints with the answer, and that is the beginning of the whole: then the difference is the turn, and what the model
would have to write.
"""

from teacher_logits.conversations.masks import Unmarkable
from teacher_logits.conversations.template import ChatTemplate, Messages, Tools
from teacher_logits.conversations.turns import Turn, TurnEnds, as_printed, assistant_text, require_nothing_beside

_SHOWN = 40
"""Characters that are shown of what departs."""


def prefix_turns(template: ChatTemplate, ends: TurnEnds, messages: Messages, tools: Tools, text: str) -> list[Turn]:
    """The turns of a conversation whose rendering is `text`. Raises Unmarkable where they can't be told."""
    turns = []
    require_nothing_beside(template, messages, tools, text)
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
        turns.append(_turn(ends, content, upto[first:past], first, text, place == len(messages) - 1))
    return turns


def _turn(ends: TurnEnds, content: str, printed: str, first: int, text: str, is_last: bool) -> Turn:
    """The turn that is `printed` from the character `first` of the text on."""
    found = _place_of(content, printed)
    if found is not None:
        turn = ends.close(text, first + found[0], first + found[1], is_last)
        behind = printed[turn.past - first :]
        # An end token further on shows that something stands between, though it may look like the answer's beginning.
        cut_short = turn.end is None and any(end in behind for end in ends.ids)
        if not cut_short and not ends.said_more(behind):
            return turn
    raise Unmarkable("the template prints other text in an answer than the message's", repr(printed.strip()[:_SHOWN]))


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
