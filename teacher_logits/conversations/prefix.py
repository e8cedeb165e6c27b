"""Masks by strict prefixes, for templates without marks.

What a template prints for the messages before an answer, with the prompt that begins one, is the beginning of what it
prints with the answer, and that is the beginning of the whole: then the difference is the turn, and what the model
would have to write.

Where the answer is its content alone, the turn has to be that. Where thoughts of their own or tool calls are printed,
too, it has to hold all of them, whatever the template prints between.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from teacher_logits.conversations.fitting import names_called
from teacher_logits.conversations.masks import Unmarkable
from teacher_logits.conversations.template import ChatTemplate, Messages, Tools
from teacher_logits.conversations.turns import (
    SHOWN,
    Turn,
    TurnEnds,
    answers_in,
    as_printed,
    assistant_text,
    departs_at,
    prints_nothing_beside,
)
from teacher_logits.conversations.unprinted import THOUGHTS

_BESIDE = ((), ("tool_calls",), (*THOUGHTS, "tool_calls"))
"""The keys whose values an answer may print beside its content. The first that are all there is count."""
_WORD = "prqword"


class _Whole(NamedTuple):
    """A turn that has thoughts or tool calls in it."""

    place: int
    """Of its message."""
    before: str
    """What the teacher has read before it."""
    printed: str


def prefix_turns(
    template: ChatTemplate, ends: TurnEnds, messages: Messages, tools: Tools, text: str, last_alone: bool
) -> list[Turn]:
    """The turns of a conversation whose rendering is `text`, or the last of them alone. Raises Unmarkable where they
    can't be told."""
    places = answers_in(messages, last_alone)
    beside = next(
        (keys for keys in _BESIDE if prints_nothing_beside(template, messages, tools, text, places, keys)), None
    )
    if beside is None:
        raise Unmarkable("an answer has more than its content, thoughts of its own and tool calls")
    turns: list[Turn] = []
    wholes: list[_Whole] = []
    for place in places:
        message = messages[place]
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
            wholes.append(_Whole(place, before, printed))
        else:
            said = _content_in(assistant_text(message), printed)
        turns.append(_closed(ends, printed, said, len(before), text, is_last))
    if wholes:
        _require_all_is_printed(template, messages, tools, beside, wholes)
        _require_nothing_of_others(template, messages, tools, wholes)
        _require_no_header(template, messages, tools, ends, wholes)
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
    raise Unmarkable("the template prints other text in an answer than the message's", repr(printed.strip()[:SHOWN]))


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
                "the template leaves out a part of an answer with tool calls or thoughts", repr(wanted[:SHOWN])
            )
    return _lead(printed), past


def _require_all_is_printed(
    template: ChatTemplate, messages: Messages, tools: Tools, beside: Collection[str], wholes: list[_Whole]
) -> None:
    """Raise Unmarkable where the contents and thoughts of these turns, each a word of its own, are not all printed."""
    words: list[str] = []
    changed = list(messages)
    for place, *_ in wholes:
        message = dict(messages[place])
        for kind, keys in (("content", ["content"]), ("thought", [key for key in beside if key in THOUGHTS])):
            told = [key for key in keys if isinstance(message.get(key), str) and message[key].strip()]
            if told:
                words.append(f"{_WORD}{place}{kind}")
                message |= dict.fromkeys(told, words[-1])
        changed[place] = message
    text = template.render(changed, tools)
    if not all(word in text for word in words):
        raise Unmarkable("the template leaves out a part of an answer with tool calls or thoughts")


def _require_nothing_of_others(template: ChatTemplate, messages: Messages, tools: Tools, wholes: list[_Whole]) -> None:
    """Raise Unmarkable where these turns are printed otherwise when others say something else."""
    changed = [
        {**message, "content": _WORD} if message.get("role") != "assistant" and message.get("content") else message
        for message in messages
    ]
    text, past = template.render(changed, tools), 0
    for _, _, printed in wholes:
        place = text.find(printed, past)
        if place < 0:
            raise Unmarkable(
                "the template prints an answer with tool calls or thoughts differently for what others say"
            )
        past = place + len(printed)


def _require_no_header(
    template: ChatTemplate, messages: Messages, tools: Tools, ends: TurnEnds, wholes: list[_Whole]
) -> None:
    """Raise Unmarkable where one of these turns begins with what the template prints before every answer, or with a
    generation prompt that it doesn't print here."""
    tried: set[Any] = set()
    for place, before, printed in wholes:
        prompt, begins = ends.prompt.strip(), printed.lstrip()
        has_prompt = before.endswith(ends.prompt)
        header = prompt if not has_prompt and prompt and begins.startswith(prompt) else ""
        follows = (messages[place - 1].get("role") if place else None, has_prompt)
        if not header and follows not in tried:
            tried.add(follows)
            plain = template.render([*messages[:place], {"role": "assistant", "content": _WORD}], tools)
            head, found, _ = plain.partition(_WORD)
            # A prompt that goes on where an answer without thoughts has others has said the header by then.
            departs = departs_at(before, head)
            if not found or departs < len(before) - len(ends.prompt) * has_prompt:
                raise Unmarkable("the template begins an answer with tool calls or thoughts otherwise than others")
            more = head[len(before) :].strip() if departs == len(before) else ""
            header = more if more and begins.startswith(more) else ""
        if header:
            raise Unmarkable("the template's generation prompt is not all that stands before an answer", repr(header))


def _letters(text: str) -> str:
    return "".join(text.split())


def _lead(text: str) -> int:
    return len(text) - len(text.lstrip())


def _departure(short: str, long: str, one: str, other: str) -> str:
    """Where two texts differ, in a few characters of each."""
    place = departs_at(short, long)
    start = max(0, place - SHOWN // 2)
    return f"{one} {short[start : place + SHOWN]!r}, {other} {long[start : place + SHOWN]!r}"
