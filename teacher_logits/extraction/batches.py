"""One batch through the teacher and the sampler, and its entries to rows.

Legend: B conversations, L padded length, P assistant tokens (entries), V vocabulary.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from teacher_logits.codec import Contents, encode_rows
from teacher_logits.records import Batch, JoinedExamples, SparseDistribution
from teacher_logits.sampling import SamplingSettings, sample
from teacher_logits.teacher import Teacher

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GPUBatchResult:
    """What the teacher and the sampler made of a batch."""

    examples: JoinedExamples
    entries: SparseDistribution
    """[P], of all examples one after another."""


@dataclass(frozen=True)
class DoesNotFit:
    """A conversation that needs more memory than the device has."""

    index: int
    """Its number in the source dataset."""


@dataclass(frozen=True)
class PackedRows:
    """Rows ready to be written."""

    table: pa.Table
    tokens: int
    nucleus_tokens: int
    """Sum of the nucleus sizes."""
    refused: list[int]
    """Source numbers of conversations whose logits were not finite."""


def gpu_process_batch(teacher: Teacher, batch: Batch, settings: SamplingSettings) -> GPUBatchResult:
    """Run the teacher over a batch and keep of its logits what the format stores.

    Raises torch.OutOfMemoryError where the batch doesn't fit.
    """
    device = teacher.device
    input_ids = torch.from_numpy(batch.input_ids).to(device)
    attention_mask = torch.from_numpy(batch.attention_mask).to(device)
    predicts = torch.from_numpy(batch.predicts).to(device)
    keys = _entry_keys(batch)
    parts: list[SparseDistribution] = []
    first = 0
    for logits in teacher.logits(input_ids, attention_mask, predicts):
        part = keys[:, first : first + len(logits)]
        first += len(logits)
        token, index, position = (torch.from_numpy(row).to(device) for row in part)
        # float64 doesn't exist on MPS; there the sampler works on the CPU.
        target = torch.device("cpu") if device.type == "mps" else device
        parts.append(sample(logits.to(target), token.to(target), index.to(target), position.to(target), settings))
    assert first == keys.shape[1], "the teacher gave another number of rows than there are assistant tokens"
    return GPUBatchResult(batch.joined(), _joined(parts))


class FittingBatches:
    """Runs batches through teacher and sampler in parts that fit in the device's memory.

    Where memory doesn't suffice, the largest part is halved from there on: finding that out takes about as long as
    the batch itself.
    """

    def __init__(self, teacher: Teacher, settings: SamplingSettings) -> None:
        self._teacher, self._settings = teacher, settings
        self.largest: int | None = None
        """Padded tokens of a part; None while everything has fit."""

    def process(self, batch: Batch) -> Iterator[GPUBatchResult | DoesNotFit]:
        """What `gpu_process_batch` gives, part by part. A conversation that doesn't fit alone is named instead."""
        waiting = [batch]
        while waiting:
            part = waiting.pop(0)
            count, length = part.input_ids.shape
            if self.largest is not None and count > 1 and count * length > self.largest:
                size = max(1, self.largest // length)
                waiting[:0] = [_part(part, slice(first, first + size)) for first in range(0, count, size)]
            elif (result := self._attempt(part)) is not None:
                yield result
            elif count == 1:
                yield DoesNotFit(int(part.index[0]))
            else:
                self.largest = count * length // 2
                log.warning("out of memory with %d x %d tokens: at most %d from here on", count, length, self.largest)
                waiting.insert(0, part)

    def _attempt(self, part: Batch) -> GPUBatchResult | None:
        """None where memory doesn't suffice."""
        try:
            return gpu_process_batch(self._teacher, part, self._settings)
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
        # Behind the handler, since the error holds on to what the attempt had in memory.
        if self._teacher.device.type == "cuda":
            torch.cuda.empty_cache()
        return None


def cpu_postprocess_batch(result: GPUBatchResult, contents: Contents) -> PackedRows:
    """Pack a batch's entries into rows, leaving out conversations with logits that are not finite."""
    entries, examples = result.entries, result.examples
    refused: list[int] = []
    if entries.invalid.any():
        owner = np.repeat(np.arange(len(examples.index)), examples.entry_counts)
        good = np.ones(len(examples.index), np.bool_)
        good[owner[entries.invalid]] = False
        refused = examples.index[~good].tolist()
        kept = (getattr(entries, field.name)[good[owner]] for field in dataclasses.fields(entries))
        entries, examples = SparseDistribution(*kept), examples.chosen(good)
    table = encode_rows(entries, examples, contents)
    return PackedRows(table, len(entries), int(entries.top_counts.sum()), refused)


class FiniteGuard:
    """Ends a run whose teacher gives NaN or infinite logits for more than a few conversations."""

    FIRST = 20
    SHARE, SHARE_FROM = 0.01, 1000

    def __init__(self, planned: int, stored: int = 0) -> None:
        """planned: conversations to come.   stored: those that earlier runs found good."""
        self._first = min(self.FIRST, planned)
        self._seen: Counter[bool] = Counter({True: stored})

    def count(self, good: int, bad: int) -> str | None:
        """Count conversations; returns what is wrong where too many of them are bad."""
        self._seen[True] += good
        self._seen[False] += bad
        seen, failed = self._seen.total(), self._seen[False]
        if failed == seen and seen >= self._first:
            return f"all of the first {seen} conversations"
        if seen >= self.SHARE_FROM and failed > self.SHARE * seen:
            return f"{failed:,} of {seen:,} conversations"
        return None


def _entry_keys(batch: Batch) -> np.ndarray:
    """int64 [3, P]: the token each entry predicts, its conversation, its position."""
    row, place = batch.predicts.nonzero()
    return np.stack([batch.input_ids[row, place + 1], batch.index[row], place + 1])


def _joined(parts: list[SparseDistribution]) -> SparseDistribution:
    names = [field.name for field in dataclasses.fields(SparseDistribution)]
    return SparseDistribution(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _part(batch: Batch, part: slice) -> Batch:
    longest = int(batch.attention_mask[part].sum(-1).max())
    return Batch(
        batch.index[part],
        batch.input_ids[part, :longest],
        batch.attention_mask[part, :longest],
        batch.predicts[part, :longest],
    )


def _out_of_memory(error: BaseException) -> bool:
    told = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in told or "out of memory" in told
