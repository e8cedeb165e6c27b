"""Which of a conversation's stored tokens is meant, and what it is called.

An entry is its number among the stored ones, 0 ... n-1; a position its place in the conversation, where positions are
stored.
"""

import numpy as np

from teacher_logits.exploring.decoding import Sample
from teacher_logits.exploring.samples import NoSuchSampleError


def entry_of(sample: Sample, number: int) -> int:
    """The entry of that number; negative ones count from the end. Raises NoSuchSampleError where there is none."""
    try:
        return range(sample["num_tokens"])[number]
    except IndexError:
        raise NoSuchSampleError(
            f"Conversation {sample['index']} has no stored token {number}: it has {sample['num_tokens']:,}, counted "
            "from 0."
        ) from None


def entry_at(sample: Sample, position: int) -> int:
    """The entry at a position of the conversation; in a sample without positions, the one of that number.

    Raises NoSuchSampleError where none is stored there.
    """
    if "positions" not in sample:
        return entry_of(sample, position)
    found = np.flatnonzero(sample["positions"] == position)
    if len(found):
        return int(found[0])
    stored = sample["positions"]
    between = f"; it has {len(stored):,}, between {stored[0]:,} and {stored[-1]:,}" if len(stored) else ""
    raise NoSuchSampleError(f"Conversation {sample['index']} has no stored token at position {position}{between}.")


def entry_name(sample: Sample, entry: int) -> str:
    """What people call an entry by."""
    if "positions" not in sample:
        return f"stored token {entry}"
    return f"position {sample['positions'][entry]} (stored token {entry})"
