"""Make the golden shard of format version 1 and, apart from it, what decoding it must give.

    python -m tests.shards.golden.make

Run it for a new format version only: a shard that once was published must decode to the same values for ever. The
entries come from whole-number formulas, so no random generator decides them; what is expected is worked out with the
loops of `codec.reference` from the raw columns, not by the decoder that is tested.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from teacher_logits.codec import Contents, encode_rows, round_to_dtype
from teacher_logits.codec.reference import reference_dequantize, reference_unpack_indices
from teacher_logits.records import Example, JoinedExamples, SparseDistribution
from teacher_logits.shards import write_shard

FOLDER = Path(__file__).parent
LENGTHS = (1, 5, 3)
CAP, SAMPLED_N = 6, 4
METADATA = {
    "format_version": 1,
    "fingerprint": "0123456789abcdef" * 4,
    "logits_dtype": "bfloat16",
    "model": "made/golden",
    "sampled_n": SAMPLED_N,
    "seed": 42,
    "top_p": 0.98,
    "top_p_max_elements": CAP,
    "vocab_size": 262144,
    "vocab_used": 262144,
}


def golden_entries() -> SparseDistribution:
    """Nine entries: nuclei of 1 to 6 tokens, ids of all 18 bits, logits with bfloat16's 8 bits of precision."""
    count = sum(LENGTHS)
    place = np.arange(count)[:, None]
    top = np.arange(CAP)
    drawn = np.arange(SAMPLED_N)
    top_logits = (24 - place) * 0.5 - top * (1 + place % 3) * 0.25
    top_logits[3] = 7.0
    sampled_logits = -2.0 - ((drawn * 5 + place * 3) % 7) * 0.75
    sampled_logits[4] = -3.0
    return SparseDistribution(
        top_ids=((place * 50_021 + top * 65_536 + 11 * top) % 262_144).astype(np.int32),
        top_logits=top_logits.astype(np.float32),
        top_counts=(1 + np.arange(count) * 5 % CAP).astype(np.int32),
        sampled_ids=((262_143 - place * 30_011 - drawn * 7_919) % 262_144).astype(np.int32),
        sampled_logits=sampled_logits.astype(np.float32),
        logsumexp=(24 - place[:, 0]) * 0.5 + 1 / (3 + place[:, 0]),
        logsumexp_t2=((24 - place[:, 0]) * 0.25 + 5).astype(np.float32),
        logsumexp_t4=((24 - place[:, 0]) * 0.125 + 9).astype(np.float32),
        token_logprob=(-0.1 - place[:, 0] * 0.7).astype(np.float32),
        invalid=np.zeros(count, np.bool_),
    )


def golden_examples() -> list[Example]:
    """Conversations 3, 1003 and 2003, each with two tokens before the assistant's."""
    return [
        Example(
            3 + 1000 * number,
            (np.arange(length + 2) * 9_973 % 262_144).astype(np.int32),
            np.arange(2, length + 2, dtype=np.int32),
        )
        for number, length in enumerate(LENGTHS)
    ]


def decoded_by_loops(path: Path) -> list[dict[str, Any]]:
    """A row a conversation: its own columns, and its entries decoded one by one."""
    decoded = []
    for row in pq.read_table(path).to_pylist():
        top_ids = reference_unpack_indices(row["top_indices_low"], row["top_indices_high"])
        sampled_ids = reference_unpack_indices(row["sampled_indices_low"], row["sampled_indices_high"])
        entries, first = [], 0
        for place, count in enumerate(row["top_counts"]):
            part, drawn = slice(first, first + count), slice(place * SAMPLED_N, (place + 1) * SAMPLED_N)
            first += count
            top = reference_dequantize(row["top_logits_quantized"][part], row["top_min"][place], row["top_max"][place])
            sampled = reference_dequantize(
                row["sampled_logits_quantized"][drawn], row["sampled_min"][place], row["sampled_max"][place]
            )
            entries.append(
                {
                    "top_ids": top_ids[part],
                    "top_logits": round_to_dtype(np.array(top), "bfloat16").tolist(),
                    "sampled_ids": sampled_ids[drawn],
                    "sampled_logits": round_to_dtype(np.array(sampled), "bfloat16").tolist(),
                    **{
                        name: row[name][place]
                        for name in ("logsumexp", "logsumexp_t2", "logsumexp_t4", "token_logprob")
                    },
                }
            )
        whole = {name: row[name] for name in ("index", "num_tokens", "input_ids", "positions")}
        decoded.append({**whole, "entries": entries})
    return decoded


def main() -> None:
    path = FOLDER / "v1.parquet"
    write_shard(encode_rows(golden_entries(), JoinedExamples.of(golden_examples()), Contents()), path, METADATA)
    content = {"metadata": {**METADATA, "min_index": 3, "max_index": 2003}, "rows": decoded_by_loops(path)}
    (FOLDER / "v1.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
