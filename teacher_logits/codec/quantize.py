"""Logits in 16 bits between an entry's smallest and largest."""

import numpy as np
from numpy.typing import NDArray

from teacher_logits.records import Float32, Float64

STEPS = 65535

Numbers = NDArray[np.floating]


def quantize(logits: Numbers, low: Numbers, high: Numbers) -> NDArray[np.uint16]:
    """`round_half_even((logit - low) / (high - low) * 65535)` in float64; 0 where high == low. Shapes broadcast."""
    low64, span = _span(low, high)
    scaled = (np.asarray(logits, np.float64) - low64) / np.where(span > 0, span, 1.0) * STEPS
    return np.rint(np.where(span > 0, scaled, 0.0)).astype(np.uint16)


def dequantize(quantized: NDArray[np.integer], low: Numbers, high: Numbers) -> Float64:
    """`low + q / 65535 * (high - low)` in float64: at most half a step, (high - low) / 131070, from the logit."""
    low64, span = _span(low, high)
    return low64 + np.asarray(quantized, np.float64) / STEPS * span


def round_to_dtype(logits: Float64, dtype: str) -> Float32:
    """Round to the type the teacher's logits had, to nearest even; 'float32' (or 'float64') leaves float32 precision.

    Where they were bfloat16 or float16 this restores all but a few of them exactly.
    """
    values = logits.astype(np.float32)
    if dtype == "float16":
        return values.astype(np.float16).astype(np.float32)
    if dtype != "bfloat16":
        return values
    bits = values.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32)


def _span(low: Numbers, high: Numbers) -> tuple[Float64, Float64]:
    low64 = np.asarray(low, np.float64)
    return low64, np.asarray(high, np.float64) - low64
