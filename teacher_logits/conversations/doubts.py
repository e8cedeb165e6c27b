"""What looks wrong about a chat template: tried on the first conversations, and on made-up ones of their shapes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from teacher_logits.conversations.chat import ChatRenderer
from teacher_logits.conversations.masks import Unusable
from teacher_logits.conversations.template import PROBE_TOOLS
from teacher_logits.conversations.thoughts import tags_in_words
from teacher_logits.conversations.turns import (
    Turn,
    first_special,
    no_tokens_in,
    require_end_is_token,
    special_tokens,
    turn_ends,
)
from teacher_logits.conversations.unprinted import unprinted
from teacher_logits.errors import ChatTemplateError
from teacher_logits.records import Conversation

NO_END = (
    "the chat template ends the assistant's turns with no special token: no end token is extracted, and a student "
    "won't learn when to stop"
)
_PLAIN_SHAPES = (("user", "assistant"), ("user", "assistant", "user", "assistant"))
_LOOK = "--verify-mask shows what is marked"


class _Message(NamedTuple):
    """Where a made-up conversation's text has a message."""

    role: str
    first: int
    past: int


class _Marked(NamedTuple):
    """A made-up conversation by the template's own marks."""

    text: str
    inside: NDArray[np.bool_]
    """[characters] whether marked"""
    messages: list[_Message]
    """Those that are printed once, as they are."""

    def holds(self, message: _Message) -> bool:
        """Whether the whole message is marked."""
        return bool(self.inside[message.first : message.past].all())

    def behind(self, message: _Message) -> str:
        """What is marked behind a marked message, without a gap."""
        rest = self.inside[message.past :]
        return self.text[message.past :][: len(rest) if rest.all() else int(rest.argmin())]


def things_unprinted(renderer: ChatRenderer, first: Sequence[Conversation | Unusable]) -> Iterator[str]:
    """One sentence for each kind of thing that conversations hold and the template doesn't print."""
    counts: Counter[str] = Counter()
    for conversation in first:
        if isinstance(conversation, Conversation):
            with suppress(Unusable):
                counts.update(unprinted(renderer.text, conversation))
    for what, count in counts.items():
        outcome = "these are skipped" if what == "`tool_calls`" else "what it marks is without them"
        yield (
            f"the chat template doesn't print {what}, which {count:,} of the first {len(first):,} conversations have: "
            f"{outcome}; a template that prints them can be passed with --chat-template FILE"
        )


def thoughts_not_found(renderer: ChatRenderer, first: Sequence[Conversation | Unusable]) -> Iterator[str]:
    """One sentence where thoughts are to be left out and none of the conversations has any."""
    tried = False
    for conversation in first:
        if isinstance(conversation, Conversation):
            with suppress(Unusable):
                tried = True
                if any(renderer.thoughts(conversation, *renderer.turns(conversation))):
                    return
    if tried and renderer.spec.think_tags:
        yield (
            f"--exclude-think-tokens: none of the first {len(first):,} conversations has thoughts "
            f"{tags_in_words(renderer.spec.think_tags)}; if they stand between other tags, name these with --think-tags"
        )


def ends_missing(renderer: ChatRenderer, first: Sequence[Conversation | Unusable]) -> Iterator[str]:
    """One sentence where some answers of the conversations are followed by no end token, though others are."""
    if renderer.ends is None or not renderer.ends.ids:
        return
    turns: list[Turn] = []
    for conversation in first:
        if isinstance(conversation, Conversation):
            with suppress(Unusable):
                turns += renderer.turns(conversation)[1]
    without = sum(turn.end is None for turn in turns)
    if without:
        yield (
            f"the chat template prints no end token behind {without:,} of the {len(turns):,} answers in the first "
            f"{len(first):,} conversations, so none is extracted there, and a student learns less well when to stop"
        )


def marks_in_doubt(renderer: ChatRenderer, first: Sequence[Conversation | Unusable]) -> Iterator[str]:
    """Sentences about marks that are hardly meant so. renderer: of the mask method that takes the template's own."""
    shapes = dict.fromkeys(filter(None, map(_plain_shape, first))) or _PLAIN_SHAPES
    seen = [marked for shape in shapes if (marked := _marked(renderer, shape)) is not None and marked.inside.any()]
    said = [(marked, message) for marked in seen for message in marked.messages]
    others = dict.fromkeys(m.role for marked, m in said if m.role != "assistant" and marked.holds(m))
    if others:
        yield (
            f"the template's {{% generation %}} marks hold messages of role {' and '.join(map(repr, others))}, which a "
            f"student would learn to say: put them round the assistant's text and end token alone ({_LOOK})"
        )
    answers = [(marked, message) for marked, message in said if message.role == "assistant"]
    if not all(marked.holds(message) for marked, message in answers):
        yield (
            "the template's {% generation %} marks leave out what the assistant says in some of its turns: put them "
            f"round the assistant's text in all that a student is to learn ({_LOOK})"
        )
    held = [(marked, message) for marked, message in answers if marked.holds(message)]
    specials = special_tokens(renderer.tokenizer)
    if not held or any(first_special(marked.behind(message), specials) for marked, message in held):
        return
    with suppress(ChatTemplateError):  # ends that are no tokens, which is said elsewhere
        ends = turn_ends(renderer.template, renderer.tokenizer).ids
        printed = {first_special(marked.text[message.past :], ends) for marked, message in held} - {None}
        yield (
            f"the template's {{% generation %}} marks leave out the token that ends the assistant's turns "
            f"({' or '.join(sorted(map(str, printed)))}), and a student won't learn when to stop: put "
            f"{{% endgeneration %}} behind it ({_LOOK})"
            if printed
            else NO_END
        )


def require_marked_ends_are_tokens(renderer: ChatRenderer) -> None:
    """Raise ChatTemplateError where the template marks behind an answer what looks like a special token and isn't one
    of this tokenizer."""
    marked = _marked(renderer, _PLAIN_SHAPES[0])
    for message in marked.messages if marked is not None else []:
        if message.role == "assistant" and marked is not None and marked.holds(message):
            require_end_is_token(marked.behind(message), renderer.tokenizer)


def no_tokens_printed(renderer: ChatRenderer) -> Sequence[str]:
    """What looks like special tokens in the template's own text, and is several tokens of this tokenizer."""
    if renderer.ends is not None:
        return renderer.ends.not_tokens
    marked = _marked(renderer, _PLAIN_SHAPES[0])
    return [] if marked is None else no_tokens_in(marked.text, renderer.tokenizer)


def _plain_shape(conversation: Conversation | Unusable) -> tuple[str, ...]:
    """The roles of a conversation of nothing but texts; nothing for others."""
    if isinstance(conversation, Unusable) or conversation.tools:
        return ()
    if any(set(message) != {"role", "content"} for message in conversation.messages):
        return ()
    return tuple(message["role"] for message in conversation.messages)


def _marked(renderer: ChatRenderer, roles: Sequence[str]) -> _Marked | None:
    """What the template marks of a conversation whose every message is a word of its own; None where it refuses it."""
    words = [f"prq{place}word" for place in range(len(roles))]
    messages = [{"role": role, "content": word} for role, word in zip(roles, words, strict=True)]
    for tools in (None, PROBE_TOOLS):
        try:
            text, turns = renderer.marked(Conversation(0, messages, tools))
        except Unusable:
            continue
        inside = np.zeros(len(text), np.bool_)
        for turn in turns:
            inside[turn.first : turn.past] = True
        found = [
            _Message(role, text.index(word), text.index(word) + len(word))
            for role, word in zip(roles, words, strict=True)
            if text.count(word) == 1
        ]
        return _Marked(text, inside, found)
    return None
