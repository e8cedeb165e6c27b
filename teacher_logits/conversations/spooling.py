"""Rows that are read one after another, kept in one Arrow file and mapped from there."""

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from teacher_logits.errors import OutputError
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
        """The rows, mapped.

        Raises IndexError where there are none, OutputError where the disk is full, and whatever the library raises.
        """
        import datasets
        from datasets.arrow_writer import ArrowWriter

        path = self.folder / "rows.arrow"
        writer = ArrowWriter(features=stream.features, path=str(path))
        try:
            with progress("reading rows", self.most, "rows") as bar:
                taken = self._write(stream, writer, bar)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise OutputError(
                f"There is no room for the rows that are read in {self.folder.parent}. Choose another folder for "
                "temporary files with TMPDIR, or fewer rows with --limit."
            ) from error
        if not taken:
            raise IndexError("no rows")
        writer.finalize()
        return datasets.Dataset.from_file(str(path))

    def _write(self, stream: "datasets.IterableDataset", writer: "ArrowWriter", bar: Progress) -> int:
        taken = 0
        for table in stream.with_format("arrow").iter(batch_size=_ROWS_AT_A_TIME):
            wanted = len(table) if self.most is None else min(len(table), self.most - taken)
            writer.write_table(table.slice(0, wanted))
            taken += wanted
            bar.advance(wanted)
            if taken == self.most:
                break
        return taken
