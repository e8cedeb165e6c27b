"""Thoughts in what the assistant says: from an opening tag through the closing one."""

from collections.abc import Collection, Iterable, Sequence

from teacher_logits.conversations.masks import Spans

ThinkTags = tuple[str, str]
"""What opens thoughts, and what closes them."""

THINK: ThinkTags = ("<think>", "</think>")
"""The common ones, taken for tags wherever they stand."""
OF_FAMILIES: Sequence[ThinkTags] = (
    ("<thinking>", "</thinking>"),  # Apriel 1.5
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("[THINK]", "[/THINK]"),  # Magistral, Ministral
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command
    ("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<|channel|>analysis<|message|>", "<|end|>"),  # gpt-oss
)
"""Taken for tags where the chat template prints the opening one."""
_EXCLUDED = "think_tokens"
_ROOM = 100
"""White space between an opening tag and what is marked, in characters: more than any template prints."""


def opens_thoughts(text: str) -> bool:
    """Whether a text holds an opening tag of any kind that is known."""
    return any(opening in text for opening, _ in (THINK, *OF_FAMILIES))


def think_tags(given: str | None, template: str) -> tuple[ThinkTags, ...]:
    """The tags of a run. given: --think-tags, the two with white space between.   template: the chat template."""
    if given is not None:
        opening, closing = given.split()
        return ((opening, closing),)
    return (THINK, *(tags for tags in OF_FAMILIES if tags[0] in template))


def named(tags: Iterable[ThinkTags]) -> list[str]:
    """How the metadata's `exclusions` name the tags; `tags_named` reads it. The common ones have no addition, as
    before there were others."""
    return [_EXCLUDED if each == THINK else " ".join((_EXCLUDED, *each)) for each in tags]


def tags_named(exclusions: Collection[str]) -> tuple[ThinkTags, ...]:
    """The tags in the metadata's `exclusions`. Raises ValueError where one is not as `named` writes it."""
    found: list[ThinkTags] = []
    for name in exclusions:
        kind, *tags = name.split(" ")
        if kind == _EXCLUDED:
            opening, closing = tags or THINK
            found.append((opening, closing))
    return tuple(found)


def tags_in_words(tags: Iterable[ThinkTags]) -> str:
    """The tags for people to read."""
    return " or ".join(f"from {opening} through {closing}" for opening, closing in tags)


def think_spans(
    text: str, spans: Spans, tags: ThinkTags, prompt_opens: bool = False, said_by_others: bool = False
) -> list[tuple[int, int]]:
    """The parts of the assistant's spans from an opening tag through the closing one, tags included.

    A span whose opening tag stands right before it (where the template opens it) counts from its beginning; one
    that is never closed, to its end. prompt_opens: whether the template's generation prompt ends with the opening tag;
    then a span that closes what it doesn't open counts from its beginning, too, though no opening tag is printed.
    said_by_others: whether the tag before a span may be somebody else's, who ends a message with it; then it counts
    only where it is closed.
    """
    opening, closing = tags
    found: list[tuple[int, int]] = []
    for first, past in spans:
        before = text[max(0, first - len(opening) - _ROOM) : first].rstrip().endswith(opening)
        opened = before and not said_by_others
        opened = opened or ((before or prompt_opens) and _closes_first(text, first, past, tags))
        place = first
        while True:
            start = place if opened else text.find(opening, place, past)
            if start < 0:
                break
            close = text.find(closing, start if opened else start + len(opening), past)
            place = past if close < 0 else close + len(closing)
            found.append((start, place))
            opened = False
    return found


def _closes_first(text: str, first: int, past: int, tags: ThinkTags) -> bool:
    """Whether the first of the tags in a span is a closing one."""
    opening, closing = tags
    close = text.find(closing, first, past)
    return close >= 0 and text.find(opening, first, close) < 0
