"""Logits in 16 bits between an entry's smallest and largest."""

import numpy as np
from numpy.typing import NDArray

from teacher_logits.records import Float64

STEPS = 65535

Numbers = NDArray[np.floating]


def quantize(logits: Numbers, low: Numbers, high: Numbers) -> NDArray[np.uint16]:
    """`round_half_even((logit - low) / (high - low) * 65535)` in float64; 0 where high == low. Shapes broadcast.

    Every logit must lie between its low and high.
    """
    low64, span = _span(low, high)
    scaled = (np.asarray(logits, np.float64) - low64) / np.where(span > 0, span, 1.0) * STEPS
    return np.rint(scaled).astype(np.uint16)


def dequantize(quantized: NDArray[np.integer], low: Numbers, high: Numbers) -> Float64:
    """`low + q / 65535 * (high - low)` in float64: at most half a step, (high - low) / 131070, from the logit."""
    low64, span = _span(low, high)
    return low64 + np.asarray(quantized, np.float64) / STEPS * span


def round_to_dtype(logits: Float64, dtype: str) -> Float64:
    """Round to the type the teacher's logits had, to nearest even, where that is bfloat16 or float16.

    That restores all but a few of them exactly. Logits of wider types stay as `dequantize` gives them.
    """
    if dtype == "float16":
        return logits.astype(np.float16).astype(np.float64)
    if dtype != "bfloat16":
        return logits
    bits = logits.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32).astype(np.float64)


def _span(low: Numbers, high: Numbers) -> tuple[Float64, Float64]:
    low64 = np.asarray(low, np.float64)
    return low64, np.asarray(high, np.float64) - low64
