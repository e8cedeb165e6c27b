"""What packing, writing and reading cost, and the bytes an entry takes.

    python benchmarks/codec.py [--entries 64000] [--repeats 9]

Made-up entries: a vocabulary of 151,936, nuclei of 11.3 tokens on average (geometric, at most 100) with ids by Zipf's
law, 24 samples with ids of the same frequency, normally distributed bfloat16 logits, 500 conversations in one shard.
Everything runs on one thread, pyarrow's own too; what is compared takes turns.

The yardsticks: for packing, a loop over tokens with the functions of `codec.reference`, on a part of the same rows;
for reading, what pyarrow alone needs to read the same columns, without checksums and without decoding anything.
"""

import dataclasses
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from measuring import machine_line, print_table, seconds_in_turn, spread

from teacher_logits.codec import CONTRACT_COLUMNS, Contents, encode_rows, round_to_dtype
from teacher_logits.codec.reference import reference_pack_indices, reference_quantize
from teacher_logits.records import Example, JoinedExamples, SparseDistribution
from teacher_logits.shards import iter_distributions, read_distributions, read_entries, shard_schema, write_shard

VOCABULARY, CAP, SAMPLES, MEAN_NUCLEUS = 151_936, 100, 24, 11.3
CONVERSATIONS, PROMPT = 500, 30
LOOPED_CONVERSATIONS = 20
COLUMNS = list(CONTRACT_COLUMNS)


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure codec and shards."""

    entries: int = 64_000
    """Entries of the shard."""
    repeats: int = 9
    """Of each measurement."""


def made_entries(count: int) -> SparseDistribution:
    """Entries as the module's docstring describes them."""
    generator = np.random.default_rng(0)
    ids = VOCABULARY ** generator.random((count, CAP)) - 1
    logits = generator.normal(14, 2, (count, CAP + SAMPLES)) - np.repeat([0, 14], [CAP, SAMPLES])
    logits = round_to_dtype(logits, "bfloat16").astype(np.float32)
    top_logits = -np.sort(-logits[:, :CAP], axis=1)
    return SparseDistribution(
        top_ids=ids.astype(np.int32),
        top_logits=top_logits,
        top_counts=np.minimum(generator.geometric(1 / MEAN_NUCLEUS, count), CAP).astype(np.int32),
        sampled_ids=generator.integers(0, VOCABULARY, (count, SAMPLES), np.int32),
        sampled_logits=np.ascontiguousarray(logits[:, CAP:]),
        logsumexp=top_logits[:, 0] + generator.exponential(1, count),
        logsumexp_t2=generator.normal(15, 1, count).astype(np.float32),
        logsumexp_t4=generator.normal(13, 1, count).astype(np.float32),
        token_logprob=-generator.exponential(1, count).astype(np.float32),
        invalid=np.zeros(count, np.bool_),
    )


def made_examples(entries: int) -> list[Example]:
    """`CONVERSATIONS` conversations that have so many assistant tokens together."""
    generator = np.random.default_rng(1)
    lengths = generator.multinomial(entries, generator.dirichlet([4] * CONVERSATIONS))
    return [
        Example(
            index=number,
            input_ids=(VOCABULARY ** generator.random(PROMPT + length) - 1).astype(np.int32),
            positions=np.arange(PROMPT, PROMPT + length, dtype=np.int32),
        )
        for number, length in enumerate(lengths.tolist())
    ]


def loop_rows(entries: SparseDistribution, examples: list[Example]) -> pa.Table:
    """What `encode_rows` gives, one token after another."""
    rows, first = [], 0
    for example in examples:
        places = range(first, first + len(example.positions))
        first = places.stop
        counts = entries.top_counts[places.start : places.stop].tolist()
        row: dict[str, Any] = {"index": example.index, "num_tokens": len(places), "top_counts": counts}
        for kind, sizes in (("top", counts), ("sampled", [SAMPLES] * len(places))):
            row |= _looped_tokens(entries, kind, list(zip(places, sizes, strict=True)))
        for name in ("logsumexp", "logsumexp_t2", "logsumexp_t4", "token_logprob"):
            row[name] = [getattr(entries, name)[place].item() for place in places]
        row |= {"input_ids": example.input_ids.tolist(), "positions": example.positions.tolist()}
        rows.append(row)
    return pa.Table.from_pylist(rows, shard_schema())


def _looped_tokens(entries: SparseDistribution, kind: str, parts: list[tuple[int, int]]) -> dict[str, Any]:
    """A row's columns of one kind from its entries: their places and sizes."""
    ids, quantized, smallest, largest = [], [], [], []
    for place, size in parts:
        ids += getattr(entries, f"{kind}_ids")[place, :size].tolist()
        steps, low, high = reference_quantize(getattr(entries, f"{kind}_logits")[place, :size].tolist())
        quantized += steps
        smallest.append(low)
        largest.append(high)
    packed = reference_pack_indices(ids)
    return {
        f"{kind}_indices_low": packed[0],
        f"{kind}_indices_high": packed[1],
        f"{kind}_logits_quantized": quantized,
        f"{kind}_min": smallest,
        f"{kind}_max": largest,
    }


def speeds(
    entries: SparseDistribution, examples: list[Example], folder: Path, repeats: int
) -> Iterator[tuple[str, str, str]]:
    """Rows of the first table."""
    looped, joined = examples[:LOOPED_CONVERSATIONS], JoinedExamples.of(examples)
    few = sum(len(example.positions) for example in looped)
    table = encode_rows(entries, joined, Contents())
    assert loop_rows(entries, looped).equals(table.slice(0, len(looped)))
    shards = {dtype: folder / f"{dtype}.parquet" for dtype in ("float32", "bfloat16", "float16")}
    for dtype, path in shards.items():
        write_shard(table, path, {"format_version": 1, "logits_dtype": dtype})
    path = shards["bfloat16"]

    def read() -> None:
        with pq.ParquetFile(path) as file:
            file.read(columns=COLUMNS)

    packing = seconds_in_turn(
        {
            "loop over tokens": lambda: loop_rows(entries, looped),
            "pack": lambda: encode_rows(entries, joined, Contents()),
            "write": lambda: write_shard(table, folder / "again.parquet", {}),
        },
        repeats,
    )
    yield _speed("loop over tokens", few, packing["loop over tokens"], "")
    loop = statistics.median(packing["loop over tokens"]) / few
    over = loop / (statistics.median(packing["pack"]) / len(entries))
    yield _speed("pack: `encode_rows`", len(entries), packing["pack"], f"{over:.0f} times the loop's speed")
    yield _speed("write: `write_shard`", len(entries), packing["write"], "")
    works: dict[str, Callable[[], object]] = {"read: pyarrow alone": read}
    for dtype, shard in shards.items():
        works[f"read and decode: `iter_distributions`, {dtype}"] = lambda shard=shard: read_through(shard)
    works["read and decode: `read_distributions`, bfloat16"] = lambda: read_distributions(path)
    works["read and decode: `read_entries`, bfloat16"] = lambda: read_entries(path)
    taken = seconds_in_turn(works, repeats)
    alone = statistics.median(taken["read: pyarrow alone"])
    for name, durations in taken.items():
        note = "" if name.endswith("alone") else f"{statistics.median(durations) / alone:.2f} times pyarrow's time"
        yield _speed(name, len(entries), durations, note)


def read_through(path: Path) -> int:
    """Decode a shard part by part; the number of its entries."""
    return sum(len(part) for part in iter_distributions(path))


def _speed(name: str, entries: int, durations: list[float], note: str) -> tuple[str, str, str]:
    return name, spread([entries / duration for duration in durations]), note


def sizes(entries: SparseDistribution, examples: list[Example], folder: Path) -> Iterator[tuple[str, str, str]]:
    """Rows of the second table."""
    path, count = folder / "sized.parquet", len(entries)
    joined = JoinedExamples.of(examples)
    for store_tokens, names in ((True, COLUMNS), (False, None), (True, None)):
        table = encode_rows(entries, joined, Contents(store_tokens))
        write_shard(table, path, {})
        columns = "the first 14" if names else f"all {table.num_columns}"
        yield "`write_shard`", columns, f"{stored_bytes(path, names) / count:.1f}"
    contract = table.select(COLUMNS)
    for name, settings in _other_writers(contract).items():
        pq.write_table(contract, path, **settings)
        yield name, "the first 14", f"{stored_bytes(path) / count:.1f}"


def _other_writers(table: pa.Table) -> dict[str, dict[str, Any]]:
    """Settings of `pyarrow.parquet.write_table`."""
    leaves = {f.name: (f"{f.name}.list.element", f.type.value_type) for f in table.schema if pa.types.is_list(f.type)}
    delta = {path: "DELTA_BINARY_PACKED" for path, kind in leaves.values() if pa.types.is_integer(kind)}
    zstd: dict[str, Any] = {"compression": "zstd", "compression_level": 3}
    return {
        "pyarrow's defaults: snappy, dictionary": {},
        "snappy, no dictionary": {"use_dictionary": False},
        "zstd-3, dictionary": zstd,
        "zstd-3, no dictionary": {**zstd, "use_dictionary": False},
        "zstd-3, DELTA_BINARY_PACKED on whole numbers": {**zstd, "use_dictionary": False, "column_encoding": delta},
        "uncompressed, no dictionary": {"compression": "none", "use_dictionary": False},
    }


def stored_bytes(path: Path, names: list[str] | None = None) -> int:
    """Bytes that the columns of those names take in a file, by default all; without its footer."""
    footer = pq.read_metadata(path)
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    return sum(
        column.total_compressed_size
        for column in columns
        if names is None or column.path_in_schema.split(".")[0] in names
    )


def main() -> None:
    """Print both tables."""
    options = tyro.cli(Options, prog="codec.py")
    pa.set_cpu_count(1)
    entries, examples = made_entries(options.entries), made_examples(options.entries)
    print(machine_line("numpy", "pyarrow"))
    print(
        f"{len(entries):,} entries of {len(examples)} conversations, mean nucleus {entries.top_counts.mean():.1f}, "
        f"median of {options.repeats}, one thread\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        rows = speeds(entries, examples, Path(folder), options.repeats)
        print_table(["step", "entries a second (fastest-slowest)", "ratio"], rows)
        print()
        print_table(["writer", "columns", "bytes an entry"], sizes(entries, examples, Path(folder)))


if __name__ == "__main__":
    main()
