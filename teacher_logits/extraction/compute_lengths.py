"""The chat dataset with its token lengths, longest first."""

import logging
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
import yaml

from teacher_logits.batching import LengthTable, count_lengths
from teacher_logits.conversations import (
    ChatRenderer,
    choose_mask,
    load_tokenizer,
    log_mask_method,
    open_source,
    renderer_spec,
    select_rows,
)
from teacher_logits.conversations.source import Source
from teacher_logits.errors import OutputError
from teacher_logits.extraction.summary import SHOWN_REASONS
from teacher_logits.hub import folder_mark, open_repository, patiently
from teacher_logits.hub.repository import Addition
from teacher_logits.records import Int64
from teacher_logits.settings import SourceOptions
from teacher_logits.shards.names import split_stem
from teacher_logits.teacher import identify_teacher

log = logging.getLogger(__name__)

ROWS_PER_FILE = 100_000
_ADDED = ("length", "original_index")


@dataclass(frozen=True)
class LengthsConfig(SourceOptions):
    """Write a chat dataset sorted by token length, longest first, with columns length and original_index."""

    processes: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Worker processes, none if less than 2; by default one a core where there are many conversations."""


@dataclass
class LengthsSummary:
    """What `compute_lengths` found."""

    address: str
    lengths: Int64
    """[n], longest first."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Conversations that were left out, by reason."""

    def text(self) -> str:
        """A few lines for the end."""
        q = np.percentile(self.lengths, [50, 90, 99]) if len(self.lengths) else np.zeros(3)
        lines = [
            f"{len(self.lengths):,} conversations, {int(self.lengths.sum()):,} tokens: mean "
            f"{self.lengths.mean() if len(self.lengths) else 0:,.0f}, median {q[0]:,.0f}, 90 % {q[1]:,.0f}, "
            f"99 % {q[2]:,.0f}, longest {self.lengths.max(initial=0):,}"
        ]
        lines += [f"left out {count:,}: {reason}" for reason, count in self.skipped.most_common(SHOWN_REASONS)]
        if len(self.skipped) > SHOWN_REASONS:
            lines.append(f"left out for {len(self.skipped) - SHOWN_REASONS:,} other reasons")
        lines.append(f"written to {self.address}")
        return "\n".join(lines)


def compute_lengths(options: LengthsConfig) -> LengthsSummary:
    """Count every conversation's tokens and write the dataset sorted by them. Conversations that can't be used are
    left out and counted. Raises InputErrors for what can't be read or written."""
    config = options.require_complete()
    assert config.output is not None
    repository = open_repository(config.output, config.private)
    found = patiently(repository.snapshot)
    if found.shards and not config.force_restart:
        raise OutputError(f"{repository.address} already holds a dataset. Choose another --output, or --force-restart.")
    identity = identify_teacher(config)
    tokenizer = load_tokenizer(identity.address, identity.commit, config.trust_remote_code)
    source = open_source(config)
    log.info("reading %s", source.describe())
    spec = choose_mask(renderer_spec(config, tokenizer, identity.commit, ()), tokenizer, config, source)
    renderer = ChatRenderer(spec, tokenizer)
    log_mask_method(renderer)
    rows = select_rows(source, config)
    table = count_lengths(source, rows, renderer, config.processes)
    order = np.argsort(-table.lengths, kind="stable")
    order = order[table.lengths[order] > 0]
    patiently(repository.create)
    with tempfile.TemporaryDirectory() as scratch:
        additions = _write_files(source, rows, table, order, Path(scratch))
        old = [path for path in found.shards if path not in additions]
        patiently(lambda: repository.commit(additions, old, "Add sorted dataset"))
    return LengthsSummary(repository.address, table.lengths[order], Counter(table.reasons.values()))


def _write_files(source: Source, rows: Int64, table: LengthTable, order: Int64, scratch: Path) -> dict[str, Addition]:
    """The sorted rows as Parquet files of bounded size, and a card that names them."""
    stem = split_stem(source.split)
    starts = range(0, max(1, len(order)), ROWS_PER_FILE)
    additions: dict[str, Addition] = {}
    kept = [name for name in source.dataset.column_names if name not in _ADDED]
    for number, start in enumerate(starts):
        places = order[start : start + ROWS_PER_FILE]
        part = source.dataset.select_columns(kept).with_format("arrow")[rows[places].tolist()]
        part = part.replace_schema_metadata(None)
        part = part.append_column("length", pa.array(table.lengths[places], pa.int32()))
        part = part.append_column("original_index", pa.array(source.index[rows[places]], pa.int32()))
        path = scratch / f"{stem}-{number:05d}.parquet"
        pq.write_table(part, path, compression="zstd")
        additions[f"data/{stem}-{number:05d}-of-{len(starts):05d}.parquet"] = path
    config = {
        "config_name": "default",
        "description": folder_mark(table.lengths[order].tobytes(), source.index[rows[order]].tobytes()),
        "data_files": [{"split": stem, "path": f"data/{stem}-*.parquet"}],
    }
    header = {"configs": [config]}
    additions["README.md"] = (
        f"---\n{yaml.safe_dump(header)}---\n\n"
        f"# {source.name}, longest first\n\nConversations of `{source.name}` sorted by token length (column `length`); "
        "`original_index` is each one's number there.\n"
    ).encode()
    return additions
