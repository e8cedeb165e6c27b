"""What statistics of a whole dataset cost.

    python benchmarks/exploring.py [--entries 1000000] [--repeats 5]

The made-up entries of `codec.py` in shards of at most 64,000, and the commands over them. Seconds are the cores' for
this process, so that other programs on them don't count; what is compared takes turns. The yardstick is pyarrow's read
of the same columns alone, row group by row group, without checksums and without decoding anything.
"""

import dataclasses
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import tyro
from codec import CAP, VOCABULARY, made_entries, made_examples
from measuring import machine_line, print_table, seconds_in_turn, spread
from models import TINY, save_teacher

from teacher_logits.codec import Contents, encode_rows
from teacher_logits.command_line.explore import main as explore
from teacher_logits.exploring import (
    analyze_nucleus_sizes,
    compute_bytes_per_token_stats,
    compute_dataset_stats,
    load_logit_dataset,
    open_source,
    summarize,
)
from teacher_logits.records import JoinedExamples
from teacher_logits.shards import shard_name, write_shard

_OF_A_SHARD = 64_000
_NUCLEUS = ["num_tokens", "top_counts"]
METADATA = {
    "format_version": 1,
    "logits_dtype": "bfloat16",
    "top_p_max_elements": CAP,
    "vocab_used": VOCABULARY,
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure statistics and their commands."""

    entries: int = 1_000_000
    """Entries of the dataset."""
    repeats: int = 5
    """Of each measurement."""


def made_dataset(folder: Path, entries: int, model: str) -> None:
    """A dataset of so many entries, or a few more: all shards hold the same number, and the same but for `index`.

    model: whose tokenizer gives the texts, of single letters.
    """
    shards = -(-entries // _OF_A_SHARD)
    each = -(-entries // shards)
    (folder / "data").mkdir()
    made = made_entries(each)
    table = encode_rows(made, JoinedExamples.of(made_examples(each)), Contents())
    for number in range(shards):
        index = pa.array(range(number * table.num_rows, (number + 1) * table.num_rows), pa.int32())
        shard = table.set_column(0, "index", index)
        write_shard(shard, folder / shard_name("train", "0" * 8, number), METADATA | {"model": model})


def read(folder: Path, columns: list[str] | None) -> Callable[[], int]:
    """The yardstick for those columns, by default all."""

    def work() -> int:
        rows = 0
        for shard in sorted((folder / "data").iterdir()):
            with pq.ParquetFile(shard) as file:
                rows += sum(file.read_row_group(group, columns).num_rows for group in range(file.num_row_groups))
        return rows

    return work


def command(folder: Path, *arguments: str) -> Callable[[], None]:
    """A command in this process, without what it prints."""

    def work() -> None:
        with redirect_stdout(io.StringIO()):
            code = explore([str(folder), *arguments])
        assert code == 0

    return work


def works(folder: Path, pictures: Path) -> Iterator[tuple[str, str | None, Callable[[], object]]]:
    """What is measured: its name, the yardstick's, the work."""
    dataset = load_logit_dataset(folder)
    nucleus, every = "pyarrow: `num_tokens`, `top_counts`", "pyarrow: all columns"
    yield nucleus, None, read(folder, _NUCLEUS)
    yield every, None, read(folder, None)
    yield "`analyze_nucleus_sizes`", nucleus, lambda: analyze_nucleus_sizes(folder)
    yield "`analyze_nucleus_sizes` of an open `Dataset`", nucleus, lambda: analyze_nucleus_sizes(dataset)
    both = {"per_sample": True, "per_position": True}
    yield "`analyze_nucleus_sizes` by sample and position", nucleus, lambda: analyze_nucleus_sizes(folder, **both)
    yield "`compute_dataset_stats`", every, lambda: compute_dataset_stats(folder)
    yield "`compute_dataset_stats` of an open `Dataset`", every, lambda: compute_dataset_stats(dataset)
    yield "`compute_bytes_per_token_stats`", nucleus, lambda: compute_bytes_per_token_stats(folder)
    yield "command: the summary", nucleus, command(folder)
    yield "command: `stats`", every, command(folder, "stats")
    yield "command: `plots`", every, command(folder, "plots", "-o", str(pictures))
    middle = str(len(dataset) // 2)
    yield "command: `show` in the middle", every, command(folder, "show", middle)
    yield "command: `html` in the middle", every, command(folder, "html", middle, "-o", str(folder / "page.html"))
    yield "command: `report`", every, command(folder, "report", "-o", str(folder / "report.html"), "--no-source")


def rows(folder: Path, entries: int, repeats: int) -> Iterator[tuple[str, str, str, str]]:
    """Rows of the table."""
    measured = list(works(folder, folder / "pictures"))
    taken = seconds_in_turn({name: work for name, _, work in measured}, repeats, time.process_time)
    for name, yardstick, _ in measured:
        speed = spread([entries / duration for duration in taken[name]])
        ratio = ""
        if yardstick:
            over = statistics.median(taken[name]) / statistics.median(taken[yardstick])
            ratio = f"{over:.2f} times {yardstick}"
        yield name, spread(taken[name], ".3f"), speed, ratio or "the yardstick"


def main() -> None:
    """Print the table."""
    options = tyro.cli(Options, prog="exploring.py")
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made_dataset(folder, options.entries, str(save_teacher(folder / "teacher", TINY, torch.float32)))
        entries = summarize(open_source(folder)).tokens
        print(machine_line("numpy", "pyarrow", "datasets", "matplotlib"))
        print(f"{entries:,} entries, median of {options.repeats}, one thread\n")
        header = ["work", "core seconds (fastest-slowest)", "entries a second of a core", "over the yardstick"]
        with patch.object(datasets.config, "HF_DATASETS_CACHE", folder / "cache"):
            print_table(header, rows(folder, entries, options.repeats))


if __name__ == "__main__":
    main()
