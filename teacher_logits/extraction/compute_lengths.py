"""The chat dataset with its token lengths, longest first."""

import logging
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from teacher_logits.batching import count_lengths
from teacher_logits.conversations import (
    ChatRenderer,
    Source,
    choose_mask,
    load_tokenizer,
    log_mask_method,
    open_source,
    renderer_spec,
    select_rows,
)
from teacher_logits.conversations.local_files import LENGTHS_RECORD
from teacher_logits.errors import DatasetError, OutputError, UploadError
from teacher_logits.exploring.optional import MissingLibraryError
from teacher_logits.exploring.plots import plot_lengths, png_of
from teacher_logits.extraction.known_lengths import ADDED, ORIGINAL_INDEX
from teacher_logits.extraction.lengths_record import lengths_record
from teacher_logits.extraction.lengths_summary import LengthsSummary, summarize_lengths
from teacher_logits.extraction.prepare import refuse_all
from teacher_logits.extraction.sorted_dataset import FIGURE_FILE, SortedRows, render_card, sorted_file, write_files
from teacher_logits.hub import open_repository, patiently
from teacher_logits.hub.checkpoint import CARD_FILE
from teacher_logits.hub.folder import FolderRepository
from teacher_logits.hub.repository import Addition, Repository
from teacher_logits.settings import SourceOptions
from teacher_logits.settings.options import Number
from teacher_logits.teacher import identify_teacher, most_batch_tokens
from teacher_logits.teacher.placement import resolve_device

log = logging.getLogger(__name__)

MOST_PROCESSES = 1024


@dataclass(frozen=True)
class LengthsConfig(SourceOptions):
    """Write a chat dataset sorted by token length, longest first, and say how long its conversations are.

    Its rows get the columns length, assistant_length (tokens of the assistant) and original_index.
    """

    processes: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Worker processes, none if less than 2; by default one a core where there are many conversations."""
    streaming: bool = False
    """Read row after row, and of --limit no more than it takes, instead of making the whole split ready on disk."""
    batch_tokens: Number = None
    """Padded tokens a batch for what is said of padding; by default the most that extraction takes on this machine."""

    def __post_init__(self) -> None:
        """Check each value alone."""
        super().__post_init__()
        few = self.processes is None or 0 <= self.processes <= MOST_PROCESSES
        self._check(few, "processes", f"0 to {MOST_PROCESSES:,}")
        self._check(self.batch_tokens is None or self.batch_tokens >= 1, "batch_tokens", "at least 1")


def compute_lengths(options: LengthsConfig) -> LengthsSummary:
    """Count every conversation's tokens and write the dataset sorted by them. Conversations that can't be used are
    left out and counted. Raises InputErrors for what can't be read or written."""
    config = options.require_complete()
    assert config.output is not None
    repository = open_repository(config.output, config.private)
    _require_room(repository, config.force_restart)
    if isinstance(repository, FolderRepository):
        repository.require_creatable()  # before the work; it is made after it, so that a refused dataset leaves nothing
    with tempfile.TemporaryDirectory(prefix="compute-lengths-") as scratch:
        return _compute(config, repository, Path(scratch))


def _compute(config: LengthsConfig, repository: Repository, scratch: Path) -> LengthsSummary:
    identity = identify_teacher(config)
    tokenizer = load_tokenizer(identity.address, identity.commit, config.trust_remote_code)
    source = open_source(config, spool=scratch if config.streaming else None)
    log.info("reading %s", source.describe())
    lost = [name for name in source.columns.read() if name in ADDED]
    if lost:
        raise DatasetError(
            f"Column {lost[0]!r}, which is read, has the name of one that is added ({', '.join(ADDED)}). Rename it."
        )
    _tell_of_replaced(source)
    spec = choose_mask(renderer_spec(config, tokenizer, identity.commit, ()), tokenizer, config, source)
    renderer = ChatRenderer(spec, tokenizer)
    log_mask_method(renderer)
    selected = select_rows(source, config)
    table = count_lengths(source, selected, renderer, config.processes)
    if not table.lengths.any():
        refuse_all(Counter(table.reasons.values()))
    longest_first = SortedRows.of(source, selected, table)
    summary = summarize_lengths(
        repository.address,
        table,
        identity.context,
        config.batch_tokens or most_batch_tokens(resolve_device("auto")),
    )
    patiently(repository.create)
    try:
        replaced = _require_room(repository, config.force_restart)  # again: somebody may have come meanwhile
        additions: dict[str, Addition] = dict(write_files(longest_first, scratch))
        figure = _figure(summary, source.name, identity.name)
        if figure is not None:
            additions[FIGURE_FILE] = figure
        additions[LENGTHS_RECORD] = lengths_record(source, spec, tokenizer, identity.name)
        additions[CARD_FILE] = render_card(longest_first, summary, identity.name, figure is not None)
        old = [path for path in replaced if path not in additions]
        patiently(lambda: repository.commit(additions, old, "Add sorted dataset"))
    except UploadError as error:
        raise OutputError(
            f"{repository.address} did not take the sorted dataset ({error.__cause__ or error}). The source is "
            "untouched; mend it and run again, with --force-restart where a part of the files is there."
        ) from error
    finally:
        repository.close()
    return summary


def _tell_of_replaced(source: Source) -> None:
    """Log which of the source's columns the result won't have, since those that are added have their names."""
    # An original_index that numbers the rows is kept, value by value.
    kept = ORIGINAL_INDEX if source.index_column == ORIGINAL_INDEX else None
    replaced = [f"`{name}`" for name in source.dataset.column_names if name in ADDED and name != kept]
    if replaced:
        log.info("replacing what %s holds in %s: columns of these names are added", source.name, ", ".join(replaced))


def _require_room(repository: Repository, replace: bool) -> list[str]:
    """The files of a sorted dataset that is to be replaced. Raises OutputError where the output holds what is not."""
    found = patiently(repository.snapshot)
    address = repository.address
    if found.checkpoint is not None:
        raise OutputError(f"{address} holds logits, which are never replaced by lengths. Choose another --output.")
    ours = LENGTHS_RECORD in found.files
    foreign = [path for path in found.shards if not (ours and sorted_file(path))]
    if not ours and isinstance(repository, FolderRepository):
        foreign = sorted(found.files)
    if foreign:
        raise OutputError(
            f"{address} holds files that this program did not write, such as {foreign[0]}. They are never removed: "
            "name an empty folder, or another dataset."
        )
    if found.shards and not replace:
        raise OutputError(f"{address} already holds a sorted dataset. Choose another --output, or --force-restart.")
    return [path for path in (*found.shards, FIGURE_FILE) if path in found.files]


def _figure(summary: LengthsSummary, dataset: str, model: str) -> bytes | None:
    """The histogram as PNG; None where the libraries that draw it aren't installed."""
    try:
        return png_of(
            plot_lengths(summary.lengths, summary.assistant_lengths, summary.context, f"{dataset}, tokens of {model}")
        )
    except MissingLibraryError as error:
        log.info("no histogram: %s", error)
        return None
