"""Made-up entries and conversations for the tests of the codec and of the shards. Never imports torch."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from teacher_logits.codec import Contents, encode_rows
from teacher_logits.records import Example, JoinedExamples, SparseDistribution

VOCABULARY = 1 << 18


def made_entries(count: int, cap: int = 7, sampled_n: int = 5, seed: int = 0, step: float = 0.0) -> SparseDistribution:
    """`count` entries that differ everywhere: random ids of all 18 bits, nuclei of 1 to `cap` tokens.

    step: logits are whole multiples of it (0: any float32). What lies past the nucleus is poisoned.
    """
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, VOCABULARY, (count, cap + sampled_n)).astype(np.int32)
    logits = generator.normal(0, 6, (count, cap + sampled_n))
    logits = (np.round(logits / step) * step if step else logits).astype(np.float32)
    counts = generator.integers(1, cap + 1, count).astype(np.int32)
    top_logits = -np.sort(-logits[:, :cap], axis=1)
    past = np.arange(cap) >= counts[:, None]
    return SparseDistribution(
        top_ids=np.where(past, np.int32(-1), ids[:, :cap]),
        top_logits=np.where(past, np.float32(-1e30 if seed % 2 else np.nan), top_logits),
        top_counts=counts,
        sampled_ids=ids[:, cap:],
        sampled_logits=logits[:, cap:],
        logsumexp=generator.normal(20, 3, count),
        logsumexp_t2=generator.normal(12, 3, count).astype(np.float32),
        logsumexp_t4=generator.normal(11, 3, count).astype(np.float32),
        token_logprob=-generator.exponential(2, count).astype(np.float32),
        invalid=np.zeros(count, np.bool_),
    )


def made_examples(lengths: Sequence[int], first_index: int = 0) -> list[Example]:
    """A conversation for each number of assistant tokens, numbered from `first_index`, with a prompt of its own."""
    examples = []
    for number, length in enumerate(lengths):
        prompt = 1 + number % 3
        tokens = np.arange(prompt + length, dtype=np.int32) * 7 + 1000 * number
        examples.append(Example(first_index + number, tokens, np.arange(prompt, prompt + length, dtype=np.int32)))
    return examples


def made_table(lengths: Sequence[int], store_tokens: bool = True, first_index: int = 0, seed: int = 0) -> pa.Table:
    """The encoded rows of `made_entries` and `made_examples`."""
    entries = made_entries(sum(lengths), seed=seed)
    return encode_rows(entries, JoinedExamples.of(made_examples(lengths, first_index)), Contents(store_tokens))


def as_listed(entries: SparseDistribution, place: int) -> tuple[list[int], list[float], list[int], list[float], float]:
    """Entry `place` as plain lists: nucleus ids and logits, sampled ids and logits, log-sum-exp."""
    count = entries.top_counts[place]
    return (
        entries.top_ids[place, :count].tolist(),
        entries.top_logits[place, :count].tolist(),
        entries.sampled_ids[place].tolist(),
        entries.sampled_logits[place].tolist(),
        float(entries.logsumexp[place]),
    )
