"""Masks by a verified sentinel, for templates without marks.

A word that stands nowhere else takes the place of each answer, and the conversation is rendered once more. What stands
between the words is the template's and the other roles'. Where these pieces, with the answers (as they are, or
stripped) between them, make the real rendering to the letter, each answer's place in it is known.
"""

from itertools import count

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


def sentinel_turns(
    template: ChatTemplate, ends: TurnEnds, messages: Messages, tools: Tools, text: str, last_alone: bool
) -> list[Turn]:
    """The turns of a conversation whose rendering is `text`, or the last of them alone. Raises Unmarkable where they
    can't be told."""
    places = answers_in(messages, last_alone)
    if not prints_nothing_beside(template, messages, tools, text, places):
        raise Unmarkable("an answer has more than its content, such as tool calls or thoughts of their own")
    answers = {place: assistant_text(messages[place]) for place in places}
    said = str(messages)
    word = next(each for number in count() if (each := f"qzx{number}v") not in text and each not in said)
    replaced = [
        {**message, "content": f"{word}{place}w"} if place in answers else message
        for place, message in enumerate(messages)
    ]
    rest = template.render(replaced, tools)
    pieces = []
    for place in answers:
        piece, found, rest = rest.partition(f"{word}{place}w")
        if not found:
            raise Unmarkable("the template prints an answer twice, changed, out of order or not at all")
        pieces.append(piece)
    if word in "".join(pieces) + rest:
        raise Unmarkable("the template prints an answer twice, changed, out of order or not at all")
    spans = _places(text, [*pieces, rest], list(answers.values()))
    return [
        ends.close(text, *span, is_last=place == len(messages) - 1) for place, span in zip(answers, spans, strict=True)
    ]


def _places(text: str, pieces: list[str], answers: list[str]) -> list[tuple[int, int]]:
    """Where the answers stand in the text that pieces and answers make in turn. Raises Unmarkable if they don't."""
    spans, place = [], len(pieces[0])
    if not text.startswith(pieces[0]):
        raise _departure(text, pieces[0], 0)
    for number, (answer, piece) in enumerate(zip(answers, pieces[1:], strict=True)):
        is_last = number == len(answers) - 1
        for printed in as_printed(answer):
            past = place + len(printed)
            if text.startswith(printed, place) and (text[past:] == piece if is_last else text.startswith(piece, past)):
                spans.append((place, past))
                place = past + len(piece)
                break
        else:
            raise _departure(text, answer + piece, place)
    return spans


def _departure(text: str, expected: str, place: int) -> Unmarkable:
    """What to raise where the text from `place` on isn't what was expected."""
    found = text[place : place + len(expected) + SHOWN]
    at = departs_at(found, expected)
    return Unmarkable(
        "the template prints an answer, or what stands round it, differently for what it says",
        f"expected {expected[at : at + SHOWN]!r}, printed {found[at : at + SHOWN]!r}",
    )
