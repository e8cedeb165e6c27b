"""Which way of finding the assistant's tokens a run takes, for all of its conversations."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from teacher_logits.conversations.chat import BY_MARKS, DERIVED, ChatRenderer, RendererSpec
from teacher_logits.conversations.doubts import (
    NO_END,
    ends_missing,
    marks_in_doubt,
    no_tokens_printed,
    require_marked_ends_are_tokens,
    things_unprinted,
    thoughts_not_found,
)
from teacher_logits.conversations.masks import MARK_IT, Unmarkable, Unusable, has_marks
from teacher_logits.conversations.source import Source
from teacher_logits.conversations.thoughts import tags_in_words
from teacher_logits.errors import ChatTemplateError
from teacher_logits.records import Conversation, Example
from teacher_logits.settings import SourceOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)

TRIED = 20
"""Conversations at the beginning of the split that decide, whichever are selected: so a run with another --limit
decides the same."""

_SAID = ("one and two", "three, four", "five and six", "seven, eight", "nine and ten", "eleven, twelve")
_PLAIN = [
    Conversation(0, [{"role": ("user", "assistant")[place % 2], "content": _SAID[place]} for place in range(turns)])
    for turns in (2, 6)
]
"""Ordinary conversations of one and three turns."""

_IN_WORDS = {
    BY_MARKS: "what the template marks with {% generation %}",
    "prefix": "what the template adds for an answer after its generation prompt",
    "sentinel": "where the template prints an answer's text, and the token that ends the turn",
}


def choose_mask(
    spec: RendererSpec, tokenizer: "PreTrainedTokenizerFast", config: SourceOptions, source: Source
) -> RendererSpec:
    """The spec with the mask method that --mask-source, the template and the first conversations lead to.

    auto takes the template's marks where it has any, else of the derived methods the one that can tell the turns of
    more conversations. Raises ChatTemplateError where there is none. What the first conversations show to be wrong
    about the template is logged.
    """
    first = list(source.conversations(np.arange(min(TRIED, len(source.dataset)))))
    spec = with_mask_method(spec, tokenizer, config.mask_source, first)
    renderer = ChatRenderer(spec, tokenizer)
    for doubt in things_unprinted(renderer, first):
        log.warning("%s", doubt)
    for doubt in (*thoughts_not_found(renderer, first), *ends_missing(renderer, first)):
        log.warning("%s", doubt)
    if spec.mask_method == BY_MARKS:
        for doubt in marks_in_doubt(renderer, first):
            log.warning("%s", doubt)
    return spec


def with_mask_method(
    spec: RendererSpec,
    tokenizer: "PreTrainedTokenizerFast",
    mask_source: str,
    first: Sequence[Conversation | Unusable],
) -> RendererSpec:
    """`choose_mask` for conversations that are read already."""
    if mask_source == BY_MARKS or (mask_source == "auto" and has_marks(spec.template)):
        spec = replace(spec, mask_method=BY_MARKS)
        require_marked_ends_are_tokens(ChatRenderer(spec, tokenizer))
        return spec
    methods = list(DERIVED) if mask_source == "auto" else [mask_source]
    trials = [_try(spec, tokenizer, method, first) for method in methods]
    best = max(trials, key=lambda trial: (len(trial.usable), trial.plain))  # the first of equals
    if best.refusals and not best.usable:
        methods_by_reason: dict[str, list[str]] = {}
        for trial in trials:
            if trial.refusals:
                methods_by_reason.setdefault(trial.why(), []).append(trial.method)
        reasons = "; ".join(f"{' and '.join(methods)}: {why}" for why, methods in methods_by_reason.items())
        raise ChatTemplateError(
            "0 assistant tokens: the chat template has no {% generation %} markers to go by, and they can't be told "
            f"from what it prints ({reasons}). {MARK_IT}"
        )
    for trial in trials:
        more = len(trial.usable - best.usable)
        if more:
            log.warning(
                "%d of the first %d conversations, which are skipped, could be used with --mask-source %s, but then "
                "others could not: a run goes one way for all. A template with {%% generation %%} marks takes both",
                more,
                len(first),
                trial.method,
            )
    return replace(spec, mask_method=best.method)


def log_mask_method(renderer: ChatRenderer) -> None:
    """Say how the assistant's tokens are found, and what looks wrong about the template."""
    method = renderer.spec.mask_method
    log.info("assistant tokens (--mask-source %s): %s", method, _IN_WORDS[method])
    if renderer.spec.think_tags:
        log.info("leaving out thoughts: %s", tags_in_words(renderer.spec.think_tags))
    not_tokens = no_tokens_printed(renderer)
    if not_tokens:
        log.warning(
            "the chat template prints %s, which this tokenizer cuts into several tokens; if it was made for another "
            "model, pass the right one with --chat-template",
            ", ".join(not_tokens),
        )
    if renderer.ends is not None and not renderer.ends.ids:
        log.warning(NO_END)
    if renderer.ends is not None and method == "sentinel" and renderer.ends.header:
        log.warning(
            "between its generation prompt and an answer the chat template prints %r, which is not extracted: a "
            "student doesn't learn to write it. A template with {%% generation %%} marks round it can be passed with "
            "--chat-template FILE",
            renderer.ends.header,
        )


@dataclass(frozen=True)
class _Trial:
    """What a method makes of the first conversations."""

    method: str
    usable: frozenset[int]
    """Places among the first conversations."""
    plain: int
    """Of `_PLAIN`."""
    refusals: list[Unusable]
    """Those of the first conversations that are the method's, else of `_PLAIN` where it takes none."""

    def why(self) -> str:
        """The first thing it could not do, with the template's own words."""
        refusal = self.refusals[0]
        detail = refusal.detail if isinstance(refusal, Unmarkable) else ""
        return f"{refusal}: {detail}" if detail else str(refusal)


def _try(
    spec: RendererSpec, tokenizer: "PreTrainedTokenizerFast", method: str, first: Sequence[Conversation | Unusable]
) -> _Trial:
    # What is left out of a mask afterwards says nothing of the method.
    spec = replace(spec, mask_method=method, think_tags=(), end_ids=())
    renderer = ChatRenderer(spec, tokenizer)
    found, plain = renderer.render(first), renderer.render(_PLAIN)
    refusals: list[Unusable] = [each for each in found if isinstance(each, Unmarkable)]
    if not any(isinstance(each, Example) for each in plain):
        refusals += [each for each in plain if isinstance(each, Unusable)]
    return _Trial(
        method,
        frozenset(place for place, each in enumerate(found) if isinstance(each, Example)),
        sum(isinstance(each, Example) for each in plain),
        refusals,
    )
