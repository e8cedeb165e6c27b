"""Masks by strict prefixes, for templates without marks.

What a template prints for the messages before an answer, with the prompt that begins one, is the beginning of what it
prints with the answer, and that is the beginning of the whole: then the difference is the turn, and what the model
would have to write.

Where the answer is its content alone, the turn has to be that. Where thoughts of their own or tool calls are printed,
too, it has to hold all of them, whatever the template prints between.
"""

from collections.abc import Collection, Mapping
from typing import Any

from teacher_logits.conversations.fitting import names_called
from teacher_logits.conversations.masks import Unmarkable
from teacher_logits.conversations.template import ChatTemplate, Messages, Tools
from teacher_logits.conversations.turns import Turn, TurnEnds, as_printed, assistant_text, prints_nothing_beside
from teacher_logits.conversations.unprinted import THOUGHTS

_SHOWN = 40
"""Characters that are shown of what departs."""
_BESIDE = ((), ("tool_calls",), (*THOUGHTS, "tool_calls"))
"""The keys whose values an answer may print beside its content. The first that are all there is count."""
_WORD = "prqword"


def prefix_turns(template: ChatTemplate, ends: TurnEnds, messages: Messages, tools: Tools, text: str) -> list[Turn]:
    """The turns of a conversation whose rendering is `text`. Raises Unmarkable where they can't be told."""
    beside = next((keys for keys in _BESIDE if prints_nothing_beside(template, messages, tools, text, keys)), None)
    if beside is None:
        raise Unmarkable("an answer has more than its content, thoughts of its own and tool calls")
    turns = []
    for place, message in enumerate(messages):
        if message.get("role") != "assistant":
            continue
        is_last = place == len(messages) - 1
        before = template.render(messages[:place], tools, prompt=True)
        upto = text if is_last else template.render(messages[: place + 1], tools)
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
        printed = upto[len(before) :]
        said: tuple[int, int] | None
        if any(message.get(key) for key in beside):
            said = _everything_in(message, beside, printed, ends)
            _require_own(template, messages[: place + 1], tools, before, printed)
        else:
            said = _content_in(assistant_text(message), printed)
        turns.append(_closed(ends, printed, said, len(before), text, is_last))
    return turns


def _closed(ends: TurnEnds, printed: str, said: tuple[int, int] | None, first: int, text: str, is_last: bool) -> Turn:
    """The turn that is `printed` from the character `first` of the text on, in which the answer stands at `said`."""
    if said is not None:
        turn = ends.close(text, first + said[0], first + said[1], is_last)
        behind = printed[turn.past - first :]
        # An end token further on shows that something stands between, though it may look like the answer's beginning.
        cut_short = turn.end is None and any(end in behind for end in ends.ids)
        if not cut_short and not ends.said_more(behind):
            return turn
    raise Unmarkable("the template prints other text in an answer than the message's", repr(printed.strip()[:_SHOWN]))


def _content_in(content: str, printed: str) -> tuple[int, int] | None:
    """Where `printed` has the content, if nothing but white space stands before it; None where it hasn't.

    The content may be printed with other white space, as templates do that take thoughts apart and put them together.
    """
    lead = _lead(printed)
    for variant in as_printed(content):
        start = lead - _lead(variant)
        if start >= 0 and printed.startswith(variant, start):
            return start, start + len(variant)
    letters = [place for place, letter in enumerate(printed) if not letter.isspace()]
    wanted = _letters(content)
    if _letters(printed).startswith(wanted):
        return lead, letters[len(wanted) - 1] + 1
    return None


def _everything_in(
    message: Mapping[str, Any], beside: Collection[str], printed: str, ends: TurnEnds
) -> tuple[int, int]:
    """Where `printed` has all that an answer with thoughts or tool calls says: from its first letter to what the
    template prints behind every answer. Raises Unmarkable where something of the answer is missing."""
    if not printed.endswith(ends.tail):
        raise Unmarkable("the template ends an answer with tool calls or thoughts otherwise than others")
    past = len(printed) - len(ends.tail)
    letters = _letters(printed[:past])
    texts = [message[key] for key in ("content", *beside) if isinstance(message.get(key), str)]
    for wanted in (*texts, *names_called(message)):
        if _letters(wanted) not in letters:
            raise Unmarkable(
                "the template leaves out a part of an answer with tool calls or thoughts", repr(wanted[:_SHOWN])
            )
    return _lead(printed), past


def _require_own(template: ChatTemplate, messages: Messages, tools: Tools, before: str, printed: str) -> None:
    """Raise Unmarkable where what is `printed` behind `before` for the last message is not that message's alone: where
    it depends on what others say, or begins with a header that stands before every answer."""
    *others, message = messages
    changed = [{**each, "content": _WORD} if each.get("content") else each for each in others]
    if not template.render([*changed, message], tools).endswith(printed):
        raise Unmarkable("the template prints an answer with tool calls or thoughts differently for what others say")
    if template.render(others, tools) != before:
        return
    # Nothing begins an answer. Where there is no header either, any other answer stands right behind it.
    plain = template.render([*others, {"role": "assistant", "content": _WORD}], tools)
    if not plain.removeprefix(before).lstrip().startswith(_WORD):
        raise Unmarkable("the template has no generation prompt that would tell an answer from its header")


def _letters(text: str) -> str:
    return "".join(text.split())


def _lead(text: str) -> int:
    return len(text) - len(text.lstrip())


def _departure(short: str, long: str, one: str, other: str) -> str:
    """Where two texts differ, in a few characters of each."""
    place = next((at for at, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), min(len(short), len(long)))
    start = max(0, place - _SHOWN // 2)
    return f"{one} {short[start : place + _SHOWN]!r}, {other} {long[start : place + _SHOWN]!r}"
