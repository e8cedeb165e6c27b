"""What the page shows of a conversation, as plain data: a heading, turns of cells, and the figures of each entry."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from teacher_logits.exploring.analysis import analyze_token_probabilities, tokenizer_for
from teacher_logits.exploring.decoding import (
    Sample,
    actual_logprobs,
    dequantize_top_logits,
    get_nucleus_probability_mass,
    logits_to_probs,
)
from teacher_logits.exploring.entropy import entropy_bounds, stored_mass
from teacher_logits.exploring.page.cells import Cell, Turn, shown
from teacher_logits.exploring.page.palette import band_codes
from teacher_logits.exploring.text import percent, perplexity_text, run_name, run_settings
from teacher_logits.exploring.tokens import TokenTexts
from teacher_logits.printable import visible
from teacher_logits.records import Float64

CHOICES = 8
"""How many of the teacher's first choices a page holds for each token."""
_WHERE = {"nucleus": "n", "sample": "s", "neither": "-"}


@dataclass(frozen=True)
class Content:
    """Everything the page is made of."""

    title: str
    heading: str
    facts: tuple[tuple[str, str], ...]
    """Names and values, for the top of the page."""
    turns: tuple[Turn, ...]
    bands: str
    """One letter an entry: see `band_codes`."""
    entries: dict[str, Any]
    """The figures of the entries, column by column: see `_entries`."""
    has_tokens: bool


def page_content(sample: Sample, tokenizer: Any = None) -> Content:
    """The content of a sample's page.

    tokenizer: by default that of the run's model. Raises TeacherError where it can't be loaded.
    """
    texts = TokenTexts(tokenizer_for(sample, tokenizer))
    has_tokens = "input_ids" in sample and "positions" in sample
    first_choices = np.array([ids[0] for ids in sample["top_indices"]], np.int64)
    tokens = sample["input_ids"][sample["positions"]] if has_tokens else first_choices
    logprobs = actual_logprobs(sample, tokens) if has_tokens or "token_logprob" in sample else _unknown(sample)
    # Which token stands there isn't known, so the colour is that of the choice that is shown.
    bands = band_codes(logprobs if has_tokens else _first_logprobs(sample))
    turns = _turns(sample, texts, bands) if has_tokens else _row(texts, tokens, bands)
    entries = _entries(sample, texts, logprobs, bands)
    entries["starts"] = _starts(turns)
    if has_tokens:
        entries |= _of_tokens(sample, tokenizer)
    heading = f"Conversation {sample['index']}"
    return Content(
        title=_one_line(" · ".join([_model(sample), heading, _settings(sample)])),
        heading=heading,
        facts=_facts(sample, logprobs, turns if has_tokens else ()),
        turns=turns,
        bands=bands,
        entries=entries,
        has_tokens=has_tokens,
    )


def _entries(sample: Sample, texts: TokenTexts, logprobs: Float64, bands: str) -> dict[str, Any]:
    """The figures of the n entries, short enough for 4,000 of them: probabilities to four digits, bits to six.

    bands, bits (null: unknown or infinite), size and mass of the nucleus, kept (mass of all stored tokens), low and
    high (bounds of the entropy in bits); vocabulary (ids) and texts of all tokens that are named, and choices, their
    numbers in it, and odds, their probabilities: the first CHOICES of each entry, or its whole nucleus, one entry
    after another.
    """
    ids = [row[:CHOICES] for row in sample["top_indices"]]
    odds = _first_probabilities(sample)
    named = np.unique(np.concatenate([*ids, _tokens(sample)])) if ids else np.zeros(0, np.int64)
    low, high = (bound / np.log(2) for bound in entropy_bounds(sample))
    return {
        "bands": bands,
        "bits": [_number(-logprob / np.log(2)) for logprob in logprobs.tolist()],
        "size": sample["top_counts"].tolist(),
        "mass": _rounded(get_nucleus_probability_mass(sample), 6),
        "kept": _rounded(stored_mass(sample), 6),
        "low": _rounded(low, 3),
        "high": _rounded(high, 3),
        "listed": CHOICES,
        "choices": np.searchsorted(named, np.concatenate(ids)).tolist() if ids else [],
        "odds": [float(f"{p:.4g}") for row in odds for p in row.tolist()],
        "vocabulary": named.tolist(),
        "texts": [shown(texts.one(token)) for token in named.tolist()],
    }


def _of_tokens(sample: Sample, tokenizer: Any) -> dict[str, Any]:
    """What is known where the tokens are stored: position, token (its number in the vocabulary), rank (0: outside the
    nucleus) and where each of them was found."""
    records = analyze_token_probabilities(sample, tokenizer=tokenizer, alternatives=0)
    return {
        "position": [record.position for record in records],
        "token": [record.id for record in records],
        "rank": [record.rank or 0 for record in records],
        "where": "".join(_WHERE[record.where] for record in records),
    }


def _turns(sample: Sample, texts: TokenTexts, bands: str) -> tuple[Turn, ...]:
    """Runs of stored positions, and what stands between them."""
    pieces = texts.row(sample["input_ids"])
    band_of = dict(zip(sample["positions"].tolist(), bands, strict=True))
    turns = []
    for stored, run in groupby(range(len(pieces)), key=lambda position: position in band_of):
        positions = list(run)
        if stored:
            turns.append(Turn(tuple(Cell.of(pieces[place], band_of[place]) for place in positions), True))
        else:
            turns.append(Turn.context("".join(pieces[place] for place in positions)))
    return tuple(turns)


def _row(texts: TokenTexts, tokens: np.ndarray, bands: str) -> tuple[Turn, ...]:
    cells = [Cell(shown(texts.one(token)), band, "") for token, band in zip(tokens.tolist(), bands, strict=True)]
    return (Turn(tuple(cells), True),) if cells else ()


def _starts(turns: Sequence[Turn]) -> list[int]:
    """The entry each stored turn begins with."""
    lengths = [len(turn.cells) for turn in turns if turn.stored]
    return np.cumsum([0, *lengths])[:-1].tolist()


def _facts(sample: Sample, logprobs: Float64, turns: Sequence[Turn]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _one_line(value)) for name, value in _fact_rows(sample, logprobs, turns))


def _one_line(text: str) -> str:
    return visible(text).replace("\n", " ")


def _fact_rows(sample: Sample, logprobs: Float64, turns: Sequence[Turn]) -> Iterator[tuple[str, str]]:
    yield "Teacher", _model(sample)
    run = sample.get("run") or {}
    if source := run_name(run, "source") or run_name(run, "dataset"):
        yield "Source", f"{source}, index {sample['index']}"
    yield "Stored", _settings(sample)
    count = sample["num_tokens"]
    stored = sum(turn.stored for turn in turns)
    if turns:
        turn = "turn" if stored == 1 else "turns"
        yield "Tokens", f"{count:,} of {len(sample['input_ids']):,} stored, in {stored:,} {turn}"
    else:
        yield "Tokens", f"{count:,} stored"
    if count:
        if not np.isnan(logprobs).all():
            yield "Perplexity", perplexity_text(logprobs)
        sizes, mass = sample["top_counts"], get_nucleus_probability_mass(sample)
        yield "Mean nucleus", f"{sizes.mean():.1f} tokens, holding {percent(mass.mean())}"


def _model(sample: Sample) -> str:
    return run_name(sample.get("run") or {}, "model") or "unknown teacher"


def _settings(sample: Sample) -> str:
    run = sample.get("run") or {}
    drawn = len(sample["sampled_indices"][0]) if sample["num_tokens"] else None
    return run_settings(run, drawn)


def _first_probabilities(sample: Sample) -> list[Float64]:
    rows = [logits[:CHOICES] for logits in dequantize_top_logits(sample)]
    return logits_to_probs(rows, sample["logsumexp"])


def _first_logprobs(sample: Sample) -> Float64:
    return sample["top_max"].astype(np.float64) - sample["logsumexp"]


def _unknown(sample: Sample) -> Float64:
    return np.full(sample["num_tokens"], np.nan)


def _tokens(sample: Sample) -> np.ndarray:
    stored = "input_ids" in sample and "positions" in sample
    return sample["input_ids"][sample["positions"]].astype(np.int64) if stored else np.zeros(0, np.int64)


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _rounded(values: Float64, places: int) -> list[float]:
    return np.round(values, places).tolist()
