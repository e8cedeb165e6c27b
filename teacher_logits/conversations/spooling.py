"""Rows that are read one after another, kept in one Arrow file and mapped from there."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from teacher_logits.progress import Progress, progress

if TYPE_CHECKING:
    import datasets
    from datasets.arrow_writer import ArrowWriter

_ROWS_AT_A_TIME = 1000


@dataclass(frozen=True)
class Spool:
    """Keeps the first rows of a stream. Nothing but these is fetched, and one copy of them is made."""

    folder: Path
    """Where the file is written; whoever made the folder removes it when the rows are no longer needed."""
    most: int | None = None
    """How many rows are taken; None takes all."""

    def take(self, stream: "datasets.IterableDataset") -> "datasets.Dataset":
        """The rows, mapped. Raises IndexError where there are none, and whatever the library raises on the way."""
        import datasets
        from datasets.arrow_writer import ArrowWriter

        path = self.folder / "rows.arrow"
        writer = ArrowWriter(features=stream.features, path=str(path))
        with progress("reading rows", self.most, "rows") as bar:
            taken = self._write(stream, writer, bar)
        if not taken:
            raise IndexError("no rows")
        writer.finalize()
        return datasets.Dataset.from_file(str(path))

    def _write(self, stream: "datasets.IterableDataset", writer: "ArrowWriter", bar: Progress) -> int:
        taken = 0
        for table in stream.with_format("arrow").iter(batch_size=_ROWS_AT_A_TIME):
            left = len(table) if self.most is None else self.most - taken
            writer.write_table(table.slice(0, left))
            taken += min(left, len(table))
            bar.advance(min(left, len(table)))
            if taken == self.most:
                break
        return taken
