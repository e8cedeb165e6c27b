"""The files of a dataset that is sorted by length: Parquet files of bounded size, and a card."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from teacher_logits.batching import LengthTable
from teacher_logits.conversations import Source
from teacher_logits.conversations.local_files import LENGTHS_RECORD
from teacher_logits.extraction.known_lengths import ASSISTANT_LENGTH, LENGTH, ORIGINAL_INDEX
from teacher_logits.extraction.lengths_summary import LengthsSummary
from teacher_logits.hub import folder_mark
from teacher_logits.progress import progress
from teacher_logits.records import Int64
from teacher_logits.shards.names import split_stem

if TYPE_CHECKING:
    import datasets

FIGURE_FILE = "lengths.png"
_FILE_BYTES, _FILE_ROWS = 1 << 29, 1_000_000
_GROUP_BYTES, _GROUP_ROWS = 1 << 25, 10_000
"""A row group is what is held in memory at a time, and what a reader fetches at least."""
_NAME = re.compile(r"data/\w+-\d{5,}-of-\d{5,}\.parquet")
_BYTES_PER_TOKEN = 4
"""Of text, about: how a row's bytes are guessed, besides what the average row takes."""


@dataclass(frozen=True)
class SortedRows:
    """Rows of a source that can be used, longest first; equal lengths in the source's order."""

    source: Source
    rows: Int64
    lengths: Int64
    assistant_lengths: Int64

    @classmethod
    def of(cls, source: Source, selected: Int64, table: LengthTable) -> Self:
        """selected: the rows that were counted, in the table's order."""
        order = np.argsort(-table.lengths, kind="stable")
        order = order[table.lengths[order] > 0]
        return cls(source, selected[order], table.lengths[order], table.assistant_lengths[order])

    @property
    def stem(self) -> str:
        """What the files' names begin with."""
        return split_stem(self.source.split)

    def weights(self) -> Int64:
        """[rows] about how many bytes a row takes in memory."""
        table = self.source.dataset.data
        average = table.nbytes // max(1, table.num_rows)
        return np.maximum(average, _BYTES_PER_TOKEN * self.lengths)

    def part(self, begin: int, end: int) -> pa.Table:
        """The columns of some of the rows, and those that are added."""
        added = {
            LENGTH: self.lengths,
            ASSISTANT_LENGTH: self.assistant_lengths,
            ORIGINAL_INDEX: self.source.index[self.rows],
        }
        kept = [name for name in self.source.dataset.column_names if name not in added]
        part = self.source.dataset.select_columns(kept).with_format("arrow")[self.rows[begin:end].tolist()]
        for name, values in added.items():
            part = part.append_column(name, pa.array(values[begin:end], pa.int32()))
        return part.replace_schema_metadata(self._features(list(added)).arrow_schema.metadata)

    def _features(self, added: list[str]) -> "datasets.Features":
        """What `datasets` knows of the columns beyond their Arrow types, such as names of classes."""
        import datasets

        kept = {name: kind for name, kind in self.source.dataset.features.items() if name not in added}
        return datasets.Features(kept | {name: datasets.Value("int32") for name in added})


def sorted_file(path: str) -> bool:
    """Whether a path of a dataset is called as `write_files` calls files."""
    return _NAME.fullmatch(path) is not None


def write_files(sorted_rows: SortedRows, folder: Path) -> Iterator[tuple[str, Path]]:
    """Write the rows into `folder`, and give each file with its path in the dataset."""
    stem, weights = sorted_rows.stem, sorted_rows.weights()
    files = list(bounded_parts(weights, _FILE_BYTES, _FILE_ROWS))
    with progress("writing rows", len(weights), "conversations") as bar:
        for number, (begin, end) in enumerate(files):
            path = folder / f"{stem}-{number:05d}.parquet"
            groups = bounded_parts(weights[begin:end], _GROUP_BYTES, _GROUP_ROWS)
            parts = (sorted_rows.part(begin + first, begin + past) for first, past in groups)
            _write_file(path, parts, bar.advance)
            yield f"data/{stem}-{number:05d}-of-{len(files):05d}.parquet", path


def bounded_parts(weights: Int64, most: int, most_rows: int) -> Iterator[tuple[int, int]]:
    """Neighbours whose weights sum to at most `most`, or one heavier alone; at least one part, though it be empty."""
    begin, sums = 0, np.append(0, np.cumsum(weights))
    while True:
        end = int(np.searchsorted(sums, sums[begin] + most, "right")) - 1
        end = min(max(end, begin + 1), begin + most_rows, len(weights))
        yield begin, end
        if end == len(weights):
            return
        begin = end


def _write_file(path: Path, parts: Iterator[pa.Table], advance: Callable[[int], None]) -> None:
    """A Parquet file with a row group for each part."""
    first = next(parts)
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        for part in chain([first], parts):
            writer.write_table(part, row_group_size=max(1, len(part)))
            advance(len(part))


_BODY = """\
# {source}, longest first

Conversations of `{source}`{revision} (split `{split}`), sorted by their length in tokens of `{model}`.

| column | content |
|---|---|
| `{length}` | tokens of the whole conversation, as the chat template renders it |
| `{assistant_length}` | those of them that are the assistant's |
| `{original_index}` | the conversation's number in `{source}` |

{figures}{figure}
What they were counted with stands in `{record}`. `extract_logits.py --tokenized-dataset` takes the lengths from here.
"""


def render_card(sorted_rows: SortedRows, summary: LengthsSummary, model: str, figure: bool) -> bytes:
    """README.md.   figure: whether there is a histogram beside it."""
    source, stem = sorted_rows.source, sorted_rows.stem
    config = {
        "config_name": "default",
        "description": folder_mark(sorted_rows.lengths.tobytes(), source.index[sorted_rows.rows].tobytes()),
        "data_files": [{"split": stem, "path": f"data/{stem}-*.parquet"}],
    }
    body = _BODY.format(
        source=source.name,
        revision=f" at {source.revision[:12]}" if source.revision else "",
        split=source.split,
        model=model,
        length=LENGTH,
        assistant_length=ASSISTANT_LENGTH,
        original_index=ORIGINAL_INDEX,
        figures=summary.markdown(),
        figure=f"\n![How many conversations have which length]({FIGURE_FILE})\n" if figure else "",
        record=LENGTHS_RECORD,
    )
    return f"---\n{yaml.safe_dump({'configs': [config]})}---\n\n{body}".encode()
