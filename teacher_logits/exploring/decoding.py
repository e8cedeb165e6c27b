"""From the stored 16-bit numbers back to logits and probabilities.

Legend: n tokens of a sample, k_i nucleus size of token i, S samples a token. Logits and log-sum-exps are natural
logs; everything is float64.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from teacher_logits.codec import dequantize, round_to_dtype
from teacher_logits.records import Float64

Sample = Mapping[str, Any]


def dequantize_logits(
    quantized: ArrayLike, low: ArrayLike, high: ArrayLike, logits_dtype: str | None = None
) -> Float64:
    """`low + quantized / 65535 * (high - low)`: at most (high - low) / 131070 from the teacher's logit.

    quantized: whole numbers 0 ... 65535, any shape.   low, high: smallest and largest logit; shapes broadcast.
    logits_dtype: 'bfloat16' or 'float16' rounds to that type, to nearest even, which restores nearly all logits of
    such a teacher exactly; 'float32' leaves float32 precision; None rounds nothing.
    """
    logits = np.asarray(dequantize(np.asarray(quantized), np.asarray(low), np.asarray(high)))
    return logits if logits_dtype is None else round_to_dtype(logits, logits_dtype).astype(np.float64)


def dequantize_top_logits(sample: Sample, logits_dtype: str | None = None) -> list[Float64]:
    """The nucleus logits of each token: n arrays [k_i], falling, beside `sample["top_indices"]`.

    logits_dtype: see `dequantize_logits`; by default the teacher's own, where the run tells it.
    """
    dtype = logits_dtype or sample.get("logits_dtype")
    rows = zip(sample["top_logits_quantized"], sample["top_min"], sample["top_max"], strict=True)
    return [dequantize_logits(quantized, low, high, dtype) for quantized, low, high in rows]


def dequantize_sampled_logits(sample: Sample, logits_dtype: str | None = None) -> list[Float64]:
    """The logits of each token's samples: n arrays [S] in the order of their draw, beside `"sampled_indices"`.

    Where a token's tail held fewer than S tokens, the last draw is repeated. logits_dtype: as for the nucleus.
    """
    dtype = logits_dtype or sample.get("logits_dtype")
    rows = zip(sample["sampled_logits_quantized"], sample["sampled_min"], sample["sampled_max"], strict=True)
    return [dequantize_logits(quantized, low, high, dtype) for quantized, low, high in rows]


def dequantize_all_logits(sample: Sample, logits_dtype: str | None = None) -> list[Float64]:
    """Nucleus and sampled logits of each token: n arrays [k_i + S], the nucleus first, then the draws.

    Their ids are `np.concatenate([sample["top_indices"][i], sample["sampled_indices"][i]])`.
    """
    top, sampled = dequantize_top_logits(sample, logits_dtype), dequantize_sampled_logits(sample, logits_dtype)
    return [np.concatenate(both) for both in zip(top, sampled, strict=True)]


def logits_to_probs(logits: ArrayLike | Sequence[ArrayLike], logsumexp: ArrayLike) -> Any:
    """`exp(logits - logsumexp)`: true probabilities, over the whole vocabulary and not over what is stored.

    A list of n arrays with `logsumexp` [n] gives a list of n arrays; an array [n, ...] with [n] an array [n, ...];
    an array [k] with a single number an array [k]. Raises ValueError where the lengths differ.
    """
    if isinstance(logits, list | tuple) and np.ndim(logsumexp) == 1:
        pairs = zip(logits, np.asarray(logsumexp, np.float64), strict=True)
        return [np.exp(np.asarray(row, np.float64) - total) for row, total in pairs]
    values, total = np.asarray(logits, np.float64), np.asarray(logsumexp, np.float64)
    return np.exp(values - total.reshape(total.shape + (1,) * (values.ndim - total.ndim)))


def get_nucleus_probability_mass(sample: Sample) -> Float64:
    """[n]: the probability each token's nucleus holds; at least `top_p`, unless the cap cut the nucleus off."""
    probabilities = logits_to_probs(dequantize_top_logits(sample), sample["logsumexp"])
    return np.array([row.sum() for row in probabilities], np.float64)


def actual_logprobs(sample: Sample, token_ids: NDArray[np.integer]) -> Float64:
    """[n]: log-probability, in nats, of the tokens that stand in the conversation.

    token_ids: [n]. From the column `token_logprob`; in datasets without it from the stored logits, NaN for a token
    that is not among them.
    """
    if "token_logprob" in sample:
        return np.asarray(sample["token_logprob"], np.float64)
    found = np.full(len(token_ids), np.nan)
    logits, total = dequantize_all_logits(sample), sample["logsumexp"]
    for entry, token in enumerate(token_ids):
        ids = np.concatenate([sample["top_indices"][entry], sample["sampled_indices"][entry]])
        places = np.flatnonzero(ids == token)
        if len(places):
            found[entry] = logits[entry][places[0]] - total[entry]
    return found
