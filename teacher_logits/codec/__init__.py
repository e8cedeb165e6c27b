"""Entries to Arrow columns and back: 16 + 2 bit ids, 16-bit logits."""

from teacher_logits.codec.columns import CONTRACT_COLUMNS, Contents, encode_rows
from teacher_logits.codec.decode import (
    Distributions,
    Entries,
    decode_distributions,
    decode_entries,
    decode_rows,
    nucleus_mass,
)
from teacher_logits.codec.flat import FlatColumns, flat_columns, flat_list, flat_values
from teacher_logits.codec.indices import pack_indices, unpack_indices
from teacher_logits.codec.quantize import dequantize, quantize, round_to_dtype

__all__ = [
    "CONTRACT_COLUMNS",
    "Contents",
    "Distributions",
    "Entries",
    "FlatColumns",
    "decode_distributions",
    "decode_entries",
    "decode_rows",
    "dequantize",
    "encode_rows",
    "flat_columns",
    "flat_list",
    "flat_values",
    "nucleus_mass",
    "pack_indices",
    "quantize",
    "round_to_dtype",
    "unpack_indices",
]
