"""What arrays of distributions must hold, worked out one token at a time. Never imports torch."""

import numpy as np
import pyarrow as pa

from teacher_logits.codec import Distributions, round_to_dtype
from teacher_logits.codec.reference import reference_dequantize, reference_unpack_indices

Looped = list[tuple[list[int], list[float], list[int], list[float]]]


def looped(table: pa.Table, logits_dtype: str) -> Looped:
    """Of each entry: nucleus ids and log-probabilities, sampled ids and log-probabilities."""
    found: Looped = []
    for row in table.to_pylist():
        drawn = len(row["sampled_indices_low"]) // max(1, row["num_tokens"])
        ends = np.cumsum(row["top_counts"]).tolist()
        for place, logsumexp in enumerate(row["logsumexp"]):
            parts = {
                "top": slice(ends[place] - row["top_counts"][place], ends[place]),
                "sampled": slice(place * drawn, (place + 1) * drawn),
            }
            entry: list[list] = []
            for kind, part in parts.items():
                ids = reference_unpack_indices(row[f"{kind}_indices_low"], row[f"{kind}_indices_high"])[part]
                low, high = row[f"{kind}_min"][place], row[f"{kind}_max"][place]
                logits = reference_dequantize(row[f"{kind}_logits_quantized"][part], low, high)
                rounded = round_to_dtype(np.array(logits, np.float64), logits_dtype).tolist()
                entry += [ids, [float(np.float32(logit - logsumexp)) for logit in rounded]]
            found.append(tuple(entry))  # type: ignore[arg-type]
    return found


def assert_looped(found: Distributions, expected: Looped, width: int) -> None:
    """`found` holds exactly these entries in arrays whose nucleus part has `width` columns."""
    assert found.nucleus_width == width and len(found) == len(expected)
    assert (found.ids.dtype, found.log_probabilities.dtype) == (np.int32, np.float32)
    assert found.ids.shape == found.log_probabilities.shape
    assert found.counts.tolist() == [len(top_ids) for top_ids, *_ in expected]
    for place, (top_ids, top, sampled_ids, sampled) in enumerate(expected):
        padding = width - len(top_ids)
        assert found.ids[place].tolist() == top_ids + [0] * padding + sampled_ids
        assert found.log_probabilities[place].tolist() == top + [-np.inf] * padding + sampled
