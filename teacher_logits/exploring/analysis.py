"""What the teacher thought of the tokens that stand in a conversation, and what else it would have said."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from teacher_logits.errors import FormatError
from teacher_logits.exploring.decoding import (
    Sample,
    actual_logprobs,
    dequantize_top_logits,
    logits_to_probs,
)
from teacher_logits.exploring.entries import entry_of
from teacher_logits.exploring.retokenizing import retokenized
from teacher_logits.exploring.runs import tokenizer_of
from teacher_logits.exploring.samples import get_sample
from teacher_logits.exploring.tokens import TokenTexts
from teacher_logits.records import Float64

Where = Literal["nucleus", "sample", "neither"]


@dataclass(frozen=True)
class TokenChoice:
    """One token the teacher could have said."""

    token: str
    """Its text; bytes that are only part of a character as `\\xf0\\x9f`."""
    id: int
    probability: float


@dataclass(frozen=True)
class TokenProbability:
    """A token of the conversation, and what the teacher gave it."""

    entry: int
    """0 ... n-1: which of the stored tokens it is."""
    position: int
    """Where it stands in `input_ids`."""
    id: int
    token: str
    """Its text; bytes that are only part of a character as `\\xf0\\x9f`."""
    log_probability: float
    """In nats; -inf for an id past the vocabulary in use; NaN where the dataset doesn't tell."""
    probability: float
    rank: int | None
    """1 for the teacher's first choice; None outside the nucleus."""
    where: Where
    alternatives: tuple[TokenChoice, ...]
    """The teacher's first choices, the most probable first, whether or not this token is among them."""

    @property
    def surprise_nats(self) -> float:
        """-log of the probability."""
        return -self.log_probability

    @property
    def surprise_bits(self) -> float:
        """-log2 of the probability."""
        return -self.log_probability / float(np.log(2))


def decode_top_tokens(sample: Sample, position: int, tokenizer: Any = None, k: int = 10) -> list[TokenChoice]:
    """The teacher's `k` most probable choices for one token, as far as the nucleus goes.

    position: 0 ... n-1, which of the sample's stored tokens; negative ones count from the end.
    tokenizer: by default that of the run's model.   Raises NoSuchSampleError, an IndexError, for another position.
    """
    entry = entry_of(sample, position)
    texts = TokenTexts(tokenizer_for(sample, tokenizer))
    return _choices(sample, entry, dequantize_top_logits(sample)[entry], texts, k)


def analyze_token_probabilities(
    sample_or_dataset: Any,
    place: int | None = None,
    *,
    index: int | None = None,
    tokenizer: Any = None,
    alternatives: int = 5,
    retokenize: bool = False,
) -> list[TokenProbability]:
    """One record for each stored token of a conversation, in the order of the text.

    sample_or_dataset: what `get_sample` gives, or a dataset with a place (by default 0) or an `index` in it.
    tokenizer: by default that of the run's model.   alternatives: how many of the teacher's first choices to list.
    retokenize: where the dataset was written without its tokens, render the conversation again; see `retokenized`.
    Raises FormatError where the tokens are not known.
    """
    sample = as_sample(sample_or_dataset, place, index, retokenize)
    tokens = token_ids(sample)
    texts = TokenTexts(tokenizer_for(sample, tokenizer))
    logprobs, logits = actual_logprobs(sample, tokens), dequantize_top_logits(sample)
    records = []
    for entry, token in enumerate(tokens.tolist()):
        rank = _rank(sample, entry, token)
        records.append(
            TokenProbability(
                entry=entry,
                position=int(sample["positions"][entry]),
                id=token,
                token=texts.one(token),
                log_probability=float(logprobs[entry]),
                probability=float(np.exp(logprobs[entry])),
                rank=rank,
                where=_where(sample, entry, token, rank),
                alternatives=tuple(_choices(sample, entry, logits[entry], texts, alternatives)),
            )
        )
    return records


def most_surprising(records: list[TokenProbability], count: int) -> list[TokenProbability]:
    """The `count` tokens of the lowest log-probability, the lowest first; last those of which it is not known."""

    def key(record: TokenProbability) -> tuple[bool, float, int]:
        unknown = bool(np.isnan(record.log_probability))  # NaN has no place in an order
        return unknown, 0.0 if unknown else record.log_probability, record.entry

    return sorted(records, key=key)[:count]


def token_ids(sample: Sample) -> np.ndarray:
    """[n] the ids of the stored tokens. Raises FormatError where the dataset was written without them."""
    if "input_ids" not in sample or "positions" not in sample:
        raise FormatError(
            "This dataset was written without its tokens (--no-store-tokens): which token stands where is not known. "
            "retokenize=True in Python, --retokenize in a terminal, renders the conversation again from the run's "
            "source dataset; the distributions alone are shown by print_sample_info and print_top_tokens."
        )
    return sample["input_ids"][sample["positions"]].astype(np.int64)


def as_sample(sample_or_dataset: Any, place: int | None, index: int | None, retokenize: bool = False) -> Sample:
    """The sample itself, or the one at that place or with that index of a dataset; with its tokens, where asked."""
    if isinstance(sample_or_dataset, Mapping):
        sample: Sample = sample_or_dataset
    else:
        sample = get_sample(sample_or_dataset, 0 if place is None and index is None else place, index=index)
    return retokenized(sample) if retokenize else sample


def tokenizer_for(sample: Sample, tokenizer: Any) -> Any:
    """The tokenizer given, else that of the sample's run. Raises TeacherError where it can't be loaded."""
    return tokenizer_of(sample.get("run") or {}) if tokenizer is None else tokenizer


def _choices(sample: Sample, entry: int, logits: Float64, texts: TokenTexts, count: int) -> list[TokenChoice]:
    probabilities = logits_to_probs(logits[:count], sample["logsumexp"][entry])
    ids = sample["top_indices"][entry][:count].tolist()
    pairs = zip(ids, probabilities.tolist(), strict=True)
    return [TokenChoice(texts.one(token), token, probability) for token, probability in pairs]


def _rank(sample: Sample, entry: int, token: int) -> int | None:
    places = np.flatnonzero(sample["top_indices"][entry] == token)
    return int(places[0]) + 1 if len(places) else None


def _where(sample: Sample, entry: int, token: int, rank: int | None) -> Where:
    if rank is not None:
        return "nucleus"
    return "sample" if token in sample["sampled_indices"][entry] else "neither"
