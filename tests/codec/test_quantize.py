"""Logits in 16 bits, against the slow twin, and the rounding that restores 16-bit teachers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from teacher_logits.codec import dequantize, quantize, round_to_dtype
from teacher_logits.codec.reference import reference_dequantize, reference_quantize
from tests.codec.quick import quick

LOGIT = st.floats(-700, 100, width=32) | st.sampled_from([0.0, 1.0, 2.0**-20, -65504.0])


@quick(200)
@given(st.lists(LOGIT, min_size=1, max_size=30))
def test_like_the_twin_and_within_half_a_step(logits: list[float]):
    values = np.array(logits, np.float32)
    twin, low, high = reference_quantize(logits)
    quantized = quantize(values, np.float32(low), np.float32(high))
    assert quantized.dtype == np.uint16 and quantized.tolist() == twin
    restored = dequantize(quantized, np.float32(low), np.float32(high))
    assert restored.dtype == np.float64 and restored.tolist() == reference_dequantize(twin, low, high)
    half_step = (high - low) / 131070
    assert np.abs(restored - values.astype(np.float64)).max() <= half_step * (1 + 1e-9) + 1e-12
    assert restored[values == low].tolist() == [low] * int((values == low).sum())
    assert (quantized[values == high] == (65535 if high > low else 0)).all()


def test_ties_go_to_the_even_number():
    """With 65535 steps of 2, every odd whole number lies half way between two of them."""
    odd = np.arange(1, 131070, 2, dtype=np.float64)
    quantized = quantize(odd.astype(np.float32), np.float32(0), np.float32(131070))
    exact = odd / 131070 * 65535
    assert (exact % 1 == 0.5).mean() > 0.9, "the division leaves most ties as they are"
    assert quantized.tolist() == [round(value) for value in exact.tolist()]
    assert (quantized[exact % 1 == 0.5] % 2 == 0).all()


@pytest.mark.parametrize("logit", [0.0, -700.0, 65504.0, 1e-30])
def test_equal_ends_give_zero(logit: float):
    end = np.float32(logit)
    quantized = quantize(np.array([end, end]), end, end)
    assert quantized.tolist() == [0, 0]
    assert dequantize(quantized, end, end).tolist() == [float(end)] * 2


def test_ends_of_each_entry_broadcast():
    logits = np.array([[1, 2, 3], [10, 30, 20]], np.float32)
    low, high = logits.min(1)[:, None], logits.max(1)[:, None]
    assert quantize(logits, low, high).tolist() == [[0, 32768, 65535], [0, 65535, 32768]]


def test_differences_too_small_for_float32():
    """The division is float64: two neighbouring float32 values are the two ends, not one value."""
    low = np.float32(100)
    high = np.nextafter(low, np.float32(200))
    assert quantize(np.array([low, high]), low, high).tolist() == [0, 65535]
    assert dequantize(np.array([0, 65535]), low, high).tolist() == [float(low), float(high)]


def by_torch(values: np.ndarray, dtype: str) -> np.ndarray:
    return torch.from_numpy(values).to(getattr(torch, dtype)).float().numpy()


def same_bits(rounded: np.ndarray, expected: np.ndarray) -> bool:
    """Whether float64 values are exactly the float32 ones, signs of zero included."""
    return rounded.dtype == np.float64 and np.array_equal(
        rounded.view(np.uint64), expected.astype(np.float64).view(np.uint64)
    )


@quick(200)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_rounds_as_torch_does(dtype: str, values: list[float]):
    exact = np.array(values, np.float32)
    assert same_bits(round_to_dtype(exact.astype(np.float64), dtype), by_torch(exact, dtype))


def test_bfloat16_ties_zeros_subnormals_and_the_ends():
    """Every upper half with the lower halves at and around the middle; both signs; the largest rounds to infinity.

    Infinity stays; NaN is never stored, so its rounding is nobody's business.
    """
    upper = np.arange(0, 0x10000, dtype=np.uint32) << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    values = (upper[:, None] | lower).reshape(-1).view(np.float32)
    values = values[~np.isnan(values)]
    assert same_bits(round_to_dtype(values.astype(np.float64), "bfloat16"), by_torch(values, "bfloat16"))
    assert np.signbit(round_to_dtype(np.array([-0.0]), "bfloat16")[0])


def test_every_value_of_16_bits_stays():
    for dtype in (torch.bfloat16, torch.float16):
        bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)
        values = bits.view(dtype).float()
        values = values[torch.isfinite(values)].numpy()
        assert same_bits(round_to_dtype(values.astype(np.float64), str(dtype).removeprefix("torch.")), values)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wider_types_stay_as_they_are(dtype: str):
    assert round_to_dtype(np.array([math.pi]), dtype).tolist() == [math.pi]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_restores_what_the_teacher_gave(dtype: str):
    """Nuclei span a few units: half a quantization step is then far less than half a 16-bit step, but near zero."""
    logits = by_torch(np.random.default_rng(0).uniform(8, 22, (3000, 12)).astype(np.float32), dtype)
    low, high = logits.min(1)[:, None], logits.max(1)[:, None]
    restored = round_to_dtype(dequantize(quantize(logits, low, high), low, high), dtype)
    assert same_bits(restored, logits)
