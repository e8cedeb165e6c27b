"""Token lengths that were counted before, and whether they are those of this run."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from teacher_logits.batching import lengths_from_column, lengths_from_dataset
from teacher_logits.conversations import Source
from teacher_logits.conversations.places import Place, load_rows
from teacher_logits.extraction.lengths_record import check_lengths_record
from teacher_logits.records import Int64
from teacher_logits.settings import ExtractionConfig

log = logging.getLogger(__name__)

ADDED = LENGTH, ASSISTANT_LENGTH, ORIGINAL_INDEX = "length", "assistant_length", "original_index"
"""Columns that compute_lengths.py adds."""


def known_lengths(config: ExtractionConfig, source: Source, metadata: Mapping[str, Any], rows: Int64) -> Int64 | None:
    """[rows] lengths from where the options say, 0 where there is none; None where the options name no place.

    Raises DatasetError where they can't be used, or were counted with another tokenizer or chat template.
    """
    if config.tokenized_dataset is not None:
        address = config.tokenized_dataset
        counted = load_rows(Place(address, source.split))
        of_source = counted.content == source.content
        lengths = lengths_from_dataset(source, rows, counted, address)
        check_lengths_record(address, counted.revision, metadata, "--tokenized-dataset", of_source)
        return lengths
    if config.length_col is None:
        return None
    if config.length_col == LENGTH:
        assert config.dataset is not None
        check_lengths_record(config.dataset, source.revision, metadata, "--length-col", of_source=True)
    return lengths_from_column(source, rows, config.length_col)


def warn_of_wrong_lengths(numbers: Int64, lengths: Int64, true_lengths: Sequence[int]) -> None:
    """Log a warning where the first conversations, which were rendered, have other lengths.

    numbers: of the conversations, for the message.   lengths: those that are known.   true_lengths: of the first of
    them; 0 for those that can't be used.
    """
    wrong = [
        (number, known, true)
        for number, known, true in zip(numbers.tolist(), lengths.tolist(), true_lengths, strict=False)
        if known and true and known != true
    ]
    if wrong:
        number, known, true = wrong[0]
        log.warning(
            "the lengths that are given are not this run's: conversation %d has %d tokens and not %d, and so %d of the "
            "first %d; they are used to make batches only, which will be too large or too small",
            *(number, true, known, len(wrong), len(true_lengths)),
        )
