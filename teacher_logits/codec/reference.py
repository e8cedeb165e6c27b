"""The slow, obvious twin of the codec: Python loops over tokens, one definition each. Read this first."""

import numpy as np


def reference_pack_indices(ids: list[int]) -> tuple[list[int], bytes]:
    """Low 16 bits of each id; bits 16 and 17 four to a byte, the first id in the lowest two bits."""
    high = bytearray(-(-len(ids) // 4))
    for place, token in enumerate(ids):
        high[place // 4] |= (token >> 16) << (2 * (place % 4))
    return [token % 65536 for token in ids], bytes(high)


def reference_unpack_indices(low: list[int], high: bytes) -> list[int]:
    """What `reference_pack_indices` was given."""
    return [bits | ((high[place // 4] >> (2 * (place % 4))) % 4) << 16 for place, bits in enumerate(low)]


def reference_quantize(logits: list[float]) -> tuple[list[int], float, float]:
    """One entry's logits as whole numbers 0 ... 65535, with the smallest and largest as float32."""
    values = [float(np.float32(logit)) for logit in logits]
    low, high = min(values), max(values)
    if high == low:
        return [0] * len(values), low, high
    return [round((value - low) / (high - low) * 65535) for value in values], low, high


def reference_dequantize(quantized: list[int], low: float, high: float) -> list[float]:
    """The logits, at most (high - low) / 131070 away from what they were."""
    return [low + q / 65535 * (high - low) for q in quantized]
