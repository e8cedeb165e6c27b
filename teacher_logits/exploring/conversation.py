"""A whole conversation for the terminal: the stored tokens coloured by the probability the teacher gave them."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np

from teacher_logits.exploring.analysis import token_ids, tokenizer_for
from teacher_logits.exploring.decoding import Sample, actual_logprobs
from teacher_logits.exploring.optional import viz_library
from teacher_logits.exploring.text import percent, perplexity_text
from teacher_logits.exploring.tokens import TokenTexts
from teacher_logits.printable import visible
from teacher_logits.records import Float64

_BANDS = ((0.9, "green"), (0.5, "cyan"), (0.1, "yellow"), (0.01, "magenta"), (0.0, "red"))
"""Lowest probability of each colour. A NaN has none of them."""
_DIM = "dim"
_UNKNOWN = "unknown"


def conversation_text(sample: Sample, tokenizer: Any = None) -> str:
    """Headline, legend, the rendered conversation and a line of figures.

    Colours are termcolor's: none where NO_COLOR is set or the output is no terminal, unless FORCE_COLOR is.
    tokenizer: by default that of the run's model. Raises FormatError where the dataset was written without its
    tokens, MissingLibraryError without termcolor, TeacherError where the tokenizer can't be loaded.
    """
    tokens = token_ids(sample)
    logprobs = actual_logprobs(sample, tokens)
    texts = TokenTexts(tokenizer_for(sample, tokenizer)).row(sample["input_ids"])
    styles = _styles(len(texts), sample["positions"], np.exp(logprobs))
    coloured = _colours_on()
    head = f"conversation {sample['index']}: {len(texts):,} tokens, {len(tokens):,} of them stored"
    body = "".join(_paint(visible(text), style, coloured) for text, style in _runs(texts, styles))
    return "\n".join([head, _legend(coloured), "", body, "", figures_line(sample)])


def figures_line(sample: Sample) -> str:
    """Perplexity, mean nucleus, and how many of the conversation's tokens are stored themselves."""
    tokens = token_ids(sample)
    if not len(tokens):
        return "no tokens stored"
    in_nucleus = np.array([token in ids for token, ids in zip(tokens, sample["top_indices"], strict=True)])
    in_sample = np.array([token in ids for token, ids in zip(tokens, sample["sampled_indices"], strict=True)])
    parts = [
        f"perplexity {perplexity_text(actual_logprobs(sample, tokens))}",
        f"mean nucleus {sample['top_counts'].mean():.1f} tokens",
        f"{percent(in_nucleus.mean())} of the tokens in their nucleus",
        f"{percent((in_sample & ~in_nucleus).mean())} in the sample",
    ]
    return ", ".join(parts)


def _styles(length: int, positions: np.ndarray, probabilities: Float64) -> list[tuple[str, float]]:
    """The style and probability of each token of the conversation."""
    styles = [(_DIM, 1.0)] * length
    for position, probability in zip(positions.tolist(), probabilities.tolist(), strict=True):
        styles[position] = (_style(probability), probability)
    return styles


def _style(probability: float) -> str:
    return next((colour for least, colour in _BANDS if probability >= least), _UNKNOWN)


def _runs(texts: list[str], styles: list[tuple[str, float]]) -> Iterator[tuple[str, str]]:
    """Neighbours of one style joined. A character of several tokens takes the style of the least probable of them."""
    pieces: list[tuple[str, str]] = []
    waiting: list[tuple[str, float]] = []
    for text, style in zip(texts, styles, strict=True):
        waiting.append(style)
        if text:
            pieces.append((text, min(waiting, key=lambda seen: seen[1])[0]))
            waiting = []
    for style, run in groupby(pieces, key=lambda piece: piece[1]):
        yield "".join(text for text, _ in run), style


def _paint(text: str, style: str, coloured: bool) -> str:
    if not coloured or style == _UNKNOWN:
        return text
    colored = viz_library("termcolor").colored
    if style == _DIM:
        return colored(text, attrs=["dark"])
    # A coloured line break can't be seen.
    return colored(text.replace("\n", "↵\n"), style)


def _colours_on() -> bool:
    return viz_library("termcolor").colored("x", "red") != "x"


def _legend(coloured: bool) -> str:
    if not coloured:
        return "no colours: NO_COLOR is set or this is no terminal (FORCE_COLOR=1 turns them on)"
    bounds = [f"p >= {_BANDS[0][0]}", *(f">= {least}" for least, _ in _BANDS[1:-1]), f"< {_BANDS[-2][0]}"]
    names = [_paint(bound, colour, coloured) for bound, (_, colour) in zip(bounds, _BANDS, strict=True)]
    return "  ".join([*names, _paint("not stored", _DIM, coloured), "↵ line break"])
