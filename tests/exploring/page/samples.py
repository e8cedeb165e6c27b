"""Samples whose text and distributions are chosen by the test."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from teacher_logits.codec import Contents, encode_rows
from teacher_logits.exploring.samples import unpack_row
from teacher_logits.records import Example, JoinedExamples
from teacher_logits.sampling import SamplingSettings, sample

TOP_P, CAP, DRAWS = 0.98, 6, 8


def stored_sample(example: Example, logits: torch.Tensor, top_p: float = TOP_P, cap: int = CAP, draws: int = DRAWS):
    """What a run stores of `logits` [n, vocabulary], read back. The run's metadata tells what it would."""
    positions = torch.tensor(example.positions, dtype=torch.int64)
    tokens = torch.tensor(example.input_ids[example.positions], dtype=torch.int64)
    settings = SamplingSettings(top_p, cap, draws, 42, logits.shape[1])
    entries = sample(logits, tokens, torch.full_like(positions, example.index), positions, settings)
    row = encode_rows(entries, JoinedExamples.of([example]), Contents(True)).to_pylist()[0]
    metadata = {
        "logits_dtype": str(logits.dtype).removeprefix("torch."),
        "model": "some/teacher",
        "source": "somebody/chats",
        "top_p": top_p,
        "top_p_max_elements": cap,
        "sampled_n": draws,
        "vocab_used": logits.shape[1],
    }
    return unpack_row(row, {"config": {}, "metadata": metadata})


def text_sample(tokenizer: Any, pieces: Sequence[tuple[str, bool]], vocabulary: int = 400) -> dict[str, Any]:
    """A conversation of these texts, each of them stored or not; an entry's own token is its second choice, its first
    one, or one of many, in turn."""
    ids, positions = [], []
    for text, stored in pieces:
        new = tokenizer(text)["input_ids"]
        positions += range(len(ids), len(ids) + len(new)) if stored else []
        ids += new
    example = Example(7, np.array(ids, np.int32), np.array(positions, np.int32))
    logits = torch.randn(len(positions), vocabulary, generator=torch.Generator().manual_seed(7))
    for entry, token in enumerate(example.input_ids[example.positions].tolist()):
        logits[entry, (token + 7) % vocabulary] = 9.0
        if entry % 3 < 2:
            logits[entry, token] = (8.5, 11.0)[entry % 3]
    return stored_sample(example, logits)
