"""Entries to Arrow columns and back: 16 + 2 bit ids, 16-bit logits."""

from teacher_logits.codec.columns import CONTRACT_COLUMNS, Contents, Entries, decode_rows, encode_rows
from teacher_logits.codec.indices import pack_indices, unpack_indices
from teacher_logits.codec.quantize import dequantize, quantize, round_to_dtype

__all__ = [
    "CONTRACT_COLUMNS",
    "Contents",
    "Entries",
    "decode_rows",
    "dequantize",
    "encode_rows",
    "pack_indices",
    "quantize",
    "round_to_dtype",
    "unpack_indices",
]
