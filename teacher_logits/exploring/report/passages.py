"""Tokens in their context, and conversations cut to a size that a page has room for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from teacher_logits.exploring.decoding import Sample, dequantize_top_logits, logits_to_probs
from teacher_logits.exploring.page.cells import Turn, shown
from teacher_logits.exploring.page.content import Content
from teacher_logits.exploring.page.palette import band_codes
from teacher_logits.exploring.statistics import SurprisingToken
from teacher_logits.exploring.text import percent
from teacher_logits.exploring.tokens import TokenTexts

_BEFORE, _AFTER = 70, 40
"""Letters shown around a token."""
_AROUND = 60
"""Tokens looked at on either side of it: each is a letter at least, but for parts of characters."""
_CHOICES = 3
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_MOST_CELLS, _MOST_LETTERS = 240, 500


@dataclass(frozen=True)
class Passage:
    """A token that the teacher did not expect, as text."""

    index: int
    """Its conversation's number in the source dataset."""
    entry: int
    """Which of the conversation's stored tokens it is."""
    place: str
    token: str
    band: str
    """Its letter of `band_codes`."""
    before: str
    after: str
    """The text around it; '' where it isn't known."""
    probability: str
    bits: str
    choices: tuple[tuple[str, str], ...]
    """The teacher's first choices, with their probabilities."""


def passage(found: SurprisingToken, sample: Sample, tokenizer: Any) -> Passage:
    """The passage of a token.

    sample: its conversation.   tokenizer: None where there is none, and tokens are called by their ids.
    """
    before = after = ""
    if tokenizer is not None and found.position is not None and "input_ids" in sample:
        before, after = _around(sample["input_ids"], found.position, TokenTexts(tokenizer))
    return Passage(
        index=found.index,
        entry=found.entry,
        place=f"stored token {found.entry:,}" if found.position is None else f"position {found.position:,}",
        token=_token(found.id, tokenizer),
        band=band_codes(np.array([found.log_probability])),
        before=before,
        after=after,
        probability=_odds(float(np.exp(found.log_probability))),
        bits=f"{-found.log_probability / np.log(2):.1f}",
        choices=tuple(_choices(sample, found.entry, tokenizer)),
    )


def cut(content: Content) -> tuple[Content, int]:
    """The beginning of a conversation, and how many stored tokens of it are left out."""
    room, turns = _MOST_CELLS, list[Turn]()
    for turn in content.turns:
        if not room:
            break
        if turn.stored:
            turns.append(replace(turn, cells=turn.cells[:room]))
            room -= len(turns[-1].cells)
        else:
            turns.append(replace(turn, text=_ending(turn.text)))
    kept = sum(len(turn.cells) for turn in turns)
    return replace(content, turns=tuple(turns)), len(content.bands) - kept


def _ending(text: str) -> str:
    """The end of a context, which is what is answered, from the beginning of a line or word."""
    if len(text) <= _MOST_LETTERS:
        return text
    end = text[-_MOST_LETTERS:]
    whole = [end.find(mark) + 1 for mark in "\n " if 0 <= end.find(mark) < _MOST_LETTERS // 2]
    return f"… {end[whole[0] if whole else 0 :]}"


def _around(ids: Sequence[int], position: int, texts: TokenTexts) -> tuple[str, str]:
    """The text before and after the token at a position."""
    first = max(0, position - _AROUND)
    row = texts.row(ids[first : position + 1 + _AROUND])
    before, after = "".join(row[: position - first]), "".join(row[position - first + 1 :])
    started = first == 0 and len(before) <= _BEFORE
    ended = position + 1 + _AROUND >= len(ids) and len(after) <= _AFTER
    return _line(before[-_BEFORE:], "" if started else "…"), _line(after[:_AFTER], "", "" if ended else "…")


def _line(text: str, begin: str, end: str = "") -> str:
    """A stretch of text on one line; spaces stay spaces."""
    return begin + (shown(text).replace("␣", " ") if text else "") + end


def _odds(probability: float) -> str:
    """In per cent; very small ones as 4.5 × 10⁻¹² %."""
    figures, _, power = percent(probability).removesuffix(" %").partition("e-")
    return f"{figures} × 10⁻{power.lstrip('0').translate(_RAISED)} %" if power else f"{figures} %"


def _token(token: int | None, tokenizer: Any) -> str:
    if token is None:
        return "not stored"
    return f"id {token}" if tokenizer is None else shown(TokenTexts(tokenizer).one(token))


def _choices(sample: Sample, entry: int, tokenizer: Any) -> list[tuple[str, str]]:
    ids, logits = sample["top_indices"][entry][:_CHOICES], dequantize_top_logits(sample)[entry][:_CHOICES]
    odds = logits_to_probs(logits, sample["logsumexp"][entry])
    return [(_token(token, tokenizer), _odds(odd)) for token, odd in zip(ids.tolist(), odds.tolist(), strict=True)]
