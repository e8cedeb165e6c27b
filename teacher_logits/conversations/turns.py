"""How a template ends the assistant's turns, and what every derived mask must hold to.

A derived mask marks of each turn the message's text and the turn's own end token, with the white space between them.
Which special token ends a turn, and is not the beginning of the next one's header, is found out once for a template
from a few renderings of its own (`turn_ends`).
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from teacher_logits.conversations.masks import MARK_IT, PASS_ANOTHER, Unmarkable, Unusable
from teacher_logits.conversations.template import PROBE_TOOLS, ChatTemplate, Messages, Tools
from teacher_logits.errors import ChatTemplateError
from teacher_logits.records import Int32, Int64

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_USER, _ANSWER, _USER_2, _ANSWER_2 = "prqone", "prqtwo", "prqthree", "prqfour"
_LOOKS_SPECIAL = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>\s]{1,40}｜>|\[\|\w{1,40}\|\]|</?s>|\[/?[A-Z_]{3,40}\]|<(?:start|end)_of_\w+>"
)
_SPACE = re.compile(r"\s*")
SHOWN = 40
"""Characters that are shown of what departs from what it should be."""
_STRIPPED_OF = (None, "\n")
"""What templates take off both or one of the ends of a text: white space, or line ends."""


class Turn(NamedTuple):
    """The marked characters of one turn."""

    first: int
    past: int
    end: str | None = None
    """The special token that `past` stands behind; None where the turn has none."""


@dataclass(frozen=True)
class TurnEnds:
    """The special tokens that end the assistant's turns."""

    last: str | None
    """Behind an answer that nothing follows."""
    between: str | None
    """Behind an answer that a user's message follows."""
    stop: str | None
    """The end-of-text token, where it is printed right behind `last`: a turn ends with both."""
    tail: str
    """All that is printed behind an answer that nothing follows."""
    prompt: str
    """What begins an answer to a question."""
    header: str
    """What stands between that and the answer, without white space around it."""
    ids: Mapping[str, int]
    """Of these tokens."""
    not_tokens: tuple[str, ...] = ()
    """What looks like a special token in the template's own text, but is several tokens of this tokenizer."""

    def close(self, text: str, first: int, past: int, is_last: bool) -> Turn:
        """The turn whose message stands at `first` to `past`, with its end token where one follows."""
        allowed = (self.last, self.between) if is_last or self.between is not None else ()
        place = _SPACE.match(text, past)
        assert place is not None
        for end in allowed:
            if end is not None and text.startswith(end, place.end()):
                behind = place.end() + len(end)
                if self.stop is not None and text.startswith(self.stop, behind):
                    return Turn(first, behind + len(self.stop), self.stop)
                return Turn(first, behind, end)
        return Turn(first, past)

    def said_more(self, behind: str) -> bool:
        """Whether what is printed behind a turn is more than white space and special tokens."""
        return _says_something(behind, self.ids)


def turn_ends(template: ChatTemplate, tokenizer: "PreTrainedTokenizerFast") -> TurnEnds:
    """How the template ends turns. Raises ChatTemplateError where it renders nothing that would show it, or ends them
    with something that looks like a special token and isn't one here."""
    user, answer = {"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}
    two = [user, answer, {**user, "content": _USER_2}, {**answer, "content": _ANSWER_2}]
    once, tools = _rendered_somehow(template, two[:2])
    ids = special_tokens(tokenizer)
    before, _, tail = once.rpartition(_ANSWER)
    require_end_is_token(tail, tokenizer)
    not_tokens = no_tokens_in(once.replace(_USER, " ").replace(_ANSWER, " "), tokenizer)
    eos = tokenizer.eos_token
    last = first_special(tail, ids)
    opening = max(((before.rfind(token), len(token), token) for token in ids if token in before), default=None)
    never = {tokenizer.bos_token} - {last}
    if last is not None and opening is not None and last == opening[2] and last != eos:
        # A header that the template prints behind everything; with a name in it, none that ends questions either.
        if _says_something(tail.lstrip()[len(last) :], ids):
            never |= {last}
        last = None
    between = _between(template, two, tools, ids, {last, eos}, never)
    stops = last is not None and eos in ids and tail.lstrip()[len(last) :].startswith(eos)
    stop = eos if stops else None
    own = {token: ids[token] for token in (last, between, stop) if token is not None}
    return TurnEnds(last, between, stop, tail, *_prompt(template, user, tools, before), own, tuple(not_tokens))


def _prompt(template: ChatTemplate, question: dict[str, Any], tools: Tools, before: str) -> tuple[str, str]:
    """What the template prints behind a question to begin an answer, and what follows that `before` the answer; '' each
    where it prints nothing, or refuses that."""
    with suppress(Unusable):
        asked, prompted = (template.render([question], tools, prompt=prompt) for prompt in (False, True))
        prompt = prompted[len(asked) :] if prompted.startswith(asked) else ""
        if prompt:
            return prompt, before[len(prompted) :].strip() if before.startswith(prompted) else ""
    return "", ""


def require_end_is_token(behind: str, tokenizer: "PreTrainedTokenizerFast") -> None:
    """Raise ChatTemplateError where what is printed behind an answer begins with something that looks like a special
    token and isn't one here."""
    looks = _LOOKS_SPECIAL.match(behind.lstrip())
    if looks and no_tokens_in(looks[0], tokenizer):
        raise ChatTemplateError(
            f"0 assistant tokens: the chat template ends the assistant's turns with {looks[0]}, which is not a token "
            f"of this tokenizer, so the template was made for another one. {PASS_ANOTHER}"
        )


def _rendered_somehow(template: ChatTemplate, messages: Messages) -> tuple[str, Tools]:
    """A rendering that shows the answer, and the tools it took."""
    other = [*messages[:-1], {**messages[-1], "content": _ANSWER_2}]
    reason, advice = "", ""
    for tools in (None, PROBE_TOOLS):
        try:
            text = template.render(messages, tools)
            if _ANSWER in text:
                return text, tools
            drops = template.render(other, tools) == text
            reason = "it drops the assistant's text" if drops else "it changes the assistant's text"
            advice = PASS_ANOTHER if drops else MARK_IT
        except Unusable as refusal:
            reason = reason or str(refusal)
            # A template that needs what nobody gives it renders nothing with marks either.
            advice = advice or (PASS_ANOTHER if "is undefined" in reason else MARK_IT)
    raise ChatTemplateError(
        f"0 assistant tokens: the chat template has no {{% generation %}} markers, and can't be tried on a question "
        f"and an answer ({reason}). {advice}"
    )


def _between(
    template: ChatTemplate,
    messages: Messages,
    tools: Tools,
    ids: Mapping[str, int],
    ends: set[str | None],
    never: set[str | None],
) -> str | None:
    """The token that ends an answer which a user's message follows; None where the first special token behind it
    belongs to the next turn's header. ends: tokens that are known to end something.   never: that end nothing."""
    try:
        before, _, behind = template.render(messages, tools).partition(_ANSWER)
    except Unusable:
        return None
    found = first_special(behind.partition(_USER_2)[0], ids)
    if found is None or found in never:
        return None
    if found not in before:  # in which a user's header has stood already
        return found
    with suppress(Unusable):
        # Where a turn's end depends on what follows, the user's turns show what ends turns.
        ends = ends | {first_special(template.render(messages[:1], tools).rpartition(_USER)[2], ids)}
    return found if found in ends else None


def special_tokens(tokenizer: "PreTrainedTokenizerFast") -> dict[str, int]:
    """The special tokens of a tokenizer, by their text; also those that only look it, as some end turns."""
    added = {
        token.content: number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special or _LOOKS_SPECIAL.fullmatch(token.content)
    }
    return {**dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)), **added}


def first_special(text: str, specials: Iterable[str]) -> str | None:
    """The special token that a text begins with, after white space; None where it begins with something else."""
    text = text.lstrip()
    return max((token for token in specials if token and text.startswith(token)), key=len, default=None)


def _says_something(text: str, specials: Iterable[str]) -> bool:
    """Whether a text is more than white space and special tokens."""
    for token in specials:
        text = text.replace(token, "")
    return bool(_LOOKS_SPECIAL.sub("", text).strip())


def no_tokens_in(text: str, tokenizer: "PreTrainedTokenizerFast") -> list[str]:
    """What looks like special tokens in a text, and is several tokens of the tokenizer."""
    return [
        printed
        for printed in dict.fromkeys(_LOOKS_SPECIAL.findall(text))
        if len(tokenizer.encode(printed, add_special_tokens=False)) != 1
    ]


def assistant_text(message: Mapping[str, Any]) -> str:
    """An assistant message's content. Raises Unmarkable where it has none, as where it only calls tools."""
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        raise Unmarkable("an assistant message whose content is not text")
    if not (content or "").strip():
        raise Unmarkable("an assistant message without text")
    return str(content)


def answers_in(messages: Messages, last_alone: bool) -> list[int]:
    """The places of the assistant's messages, or of the last of them alone."""
    places = [place for place, message in enumerate(messages) if message.get("role") == "assistant"]
    return places[-1:] if last_alone else places


def prints_nothing_beside(
    template: ChatTemplate,
    messages: Messages,
    tools: Tools,
    text: str,
    places: Collection[int],
    kept: Collection[str] = (),
) -> bool:
    """Whether the messages at these places print nothing but their content and what they hold under the `kept` keys."""
    bare = [_bare(message, kept) if place in places else message for place, message in enumerate(messages)]
    try:
        return bare == messages or template.render(bare, tools) == text
    except Unusable:  # it can't do without what is beside the content
        return False


def _bare(message: Mapping[str, Any], kept: Collection[str]) -> dict[str, Any]:
    held = {key: value for key, value in message.items() if key in ("role", "content", *kept)}
    return held if held.get("tool_calls") else {**held, "content": held.get("content") or ""}


def as_printed(content: str) -> list[str]:
    """A content and what templates make of it by stripping."""
    stripped = [
        strip(content, characters) for characters in _STRIPPED_OF for strip in (str.strip, str.lstrip, str.rstrip)
    ]
    return list(dict.fromkeys([content, *stripped]))


def departs_at(one: str, other: str) -> int:
    """The first character in which two texts differ."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def require_whole_tokens(
    turns: Sequence[Turn], text: str, offsets: Int64, input_ids: Int32, ids: Mapping[str, int]
) -> None:
    """Raise Unmarkable where a token lies across the edge of a turn, or a turn's end is not the token it should be.

    White space that shares a token with the turn's first or last letters is part of that token.
    """
    for first, past, end in turns:
        inside = np.flatnonzero((offsets[:, 0] < past) & (offsets[:, 1] > first))
        if not len(inside):
            raise Unmarkable("an assistant message without a token")
        start, stop = int(offsets[inside, 0].min()), int(offsets[inside, 1].max())
        if text[start:first].strip() or text[past:stop].strip():
            raise Unmarkable(
                "a token lies across the edge of the assistant's turn", repr(text[start:first] + text[past:stop])
            )
        if end is not None and input_ids[inside[-1]] != ids[end]:
            raise Unmarkable("the token that should end a turn is another one", repr(end))
