"""What lengths were counted with: written beside them by compute_lengths.py, checked where they are used."""

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from teacher_logits.conversations import RendererSpec, Source, rendering_metadata, source_metadata
from teacher_logits.conversations.local_files import LENGTHS_RECORD
from teacher_logits.conversations.places import dataset_file
from teacher_logits.errors import DatasetError
from teacher_logits.files import json_bytes
from teacher_logits.version import __version__

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)

_RENDERING = {
    "tokenizer_sha256": "another tokenizer",
    "chat_template_sha256": "another chat template",
    "system_prompt": "another system prompt",
}
"""What decides a conversation's length, in words."""
_ROWS = {"source_content": "another dataset", "source_split": "another split", "source_columns": "other columns"}
"""What decides which conversation a number stands for."""


def lengths_record(source: Source, spec: RendererSpec, tokenizer: "PreTrainedTokenizerFast", model: str) -> bytes:
    """The content of `LENGTHS_RECORD`."""
    metadata = {"model": model, **rendering_metadata(spec, tokenizer), **source_metadata(source)}
    metadata["versions"] = {"teacher_logits": __version__}
    return json_bytes(metadata)


def check_lengths_record(
    address: str, revision: str | None, metadata: Mapping[str, Any], option: str, of_source: bool
) -> None:
    """Hold the record of a dataset with lengths against a run's metadata.

    address, revision: the dataset with the lengths.   option: which of the run's options names them, for messages.
    of_source: whether the lengths stand in the run's own source, which then needs no comparison.

    Raises DatasetError where the lengths were counted with something else. Where there is no record, nothing is said
    of lengths in a column of the user's own, and a warning is logged for a dataset that should have one.
    """
    found = dataset_file(address, revision, LENGTHS_RECORD)
    record = _read(found, address) if found is not None else None
    if record is None:
        if not of_source:
            log.warning(
                "%s %s doesn't say which tokenizer and chat template its lengths were counted with (it has no %s): "
                "they are believed, and used to make batches only",
                *(option, address, LENGTHS_RECORD),
            )
        return
    compared = _RENDERING if of_source else _RENDERING | _ROWS
    differing = [words for field, words in compared.items() if record.get(field) != metadata.get(field)]
    if differing:
        *most, last = differing
        raise DatasetError(
            f"{option}: the lengths in {address} were counted with {', '.join(most) + ' and ' if most else ''}{last} "
            f"({_told(record)}). Run compute_lengths.py with this run's options, or leave {option} out to count "
            "them now."
        )


def _read(content: bytes, address: str) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise DatasetError(
            f"{LENGTHS_RECORD} of {address} can't be read: it should be what compute_lengths.py wrote. Run it again."
        )
    return record


def _told(record: Mapping[str, Any]) -> str:
    """Whose lengths they are, short."""
    named = {name: record.get(name) for name in ("model", "source", "source_split")}
    parts = [f"{name} {value[:80]!r}" for name, value in named.items() if isinstance(value, str)]
    return ", ".join(parts) or "it doesn't say which"
