"""One conversation's entries, found in a dataset or in its files and unpacked token by token."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from teacher_logits.codec import CONTRACT_COLUMNS, unpack_indices
from teacher_logits.errors import FormatError
from teacher_logits.exploring.loading import require_rows, run_of_dataset
from teacher_logits.exploring.possible import require_possible
from teacher_logits.exploring.runs import run_of_source
from teacher_logits.exploring.sources import Source, hub_errors, open_source
from teacher_logits.exploring.streams import (
    Open,
    files_of_stream,
    find_number,
    find_numbers,
    find_place,
    open_address,
    read_row,
    read_rows,
    row_counts,
)

_PER_TOKEN = {
    "top_counts": np.int64,
    "top_min": np.float32,
    "top_max": np.float32,
    "sampled_min": np.float32,
    "sampled_max": np.float32,
    "logsumexp": np.float64,
}
_OPTIONAL_PER_TOKEN = {
    "logsumexp_t2": np.float32,
    "logsumexp_t4": np.float32,
    "token_logprob": np.float32,
    "positions": np.int32,
}


class NoSuchSampleError(FormatError, IndexError):
    """The dataset has no row at that place, or none with that number."""


def get_sample(dataset: Any, place: int | None = None, *, index: int | None = None) -> dict[str, Any]:
    """One conversation's entries, ids unpacked.

    dataset: a `Dataset` or `IterableDataset`, from `load_logit_dataset` or not; a folder or a Hub id. A stream is read
    at the row's own place; one that was shuffled, filtered or the like from its beginning.
    place: 0, 1, ... in the dataset, where the longest conversations stand first.   index: instead of a place, the
    conversation's number in the source dataset.

    Returns, for n stored assistant tokens and S samples each:
      index, num_tokens                              numbers; num_tokens = n
      top_indices, top_logits_quantized              n arrays of the nucleus: ids (int64), logits (uint16)
      sampled_indices, sampled_logits_quantized      n arrays [S], in the order of the draws
      top_counts, top_min, top_max, sampled_min, sampled_max, logsumexp     arrays [n]
      token_logprob, logsumexp_t2, logsumexp_t4, positions                  arrays [n], where the columns are there
      input_ids                                      the whole conversation, where the column is there
      logits_dtype, run                              of the run, as far as the dataset tells it: None, {}
    Entry i describes the distribution that predicts token `input_ids[positions[i]]`.

    Raises NoSuchSampleError (an IndexError and a FormatError), FormatError where the row is damaged, and SettingsError
    where `dataset` is something else.
    """
    if (place is None) == (index is None):
        raise TypeError("get_sample takes either a place or index=, a number of the source dataset")
    if place is not None and place < 0:
        raise NoSuchSampleError(f"There is no row {place}: rows are counted from 0.")
    if isinstance(dataset, str | Path):
        return read_sample(open_source(dataset), None, place, index)
    if isinstance(dataset, Source):
        return read_sample(dataset, None, place, index)
    require_rows(dataset, "A sample is taken")
    files = files_of_stream(dataset)
    if files is not None:
        try:
            with hub_errors("the streamed dataset"):
                return _from_shards(files, place, index, open_address, run_of_dataset(dataset), {})
        except FileNotFoundError as error:
            raise FormatError(f"A shard of the streamed dataset is gone ({error}). Load it again.") from error
    plain = dataset.with_format(None)
    if place is None:
        assert index is not None
        row = _numbered_row(plain, index)
    else:
        row = _placed_row(plain, place)
    return unpack_row(row, run_of_dataset(dataset))


def read_sample(
    source: Source, split: str | None = None, place: int | None = None, index: int | None = None
) -> dict[str, Any]:
    """The same from the dataset's files, reading one row group and, for `index`, that column of the shards."""
    if place is not None and place < 0:
        raise NoSuchSampleError(f"There is no row {place}: rows are counted from 0.")

    _, shards = source.shards(split)
    run = run_of_source(source)
    with source.errors():
        return _from_shards(shards, place, index, source.shard, run, _rows_of_shards(run))


def count_samples(source: Source, split: str | None = None) -> int:
    """How many conversations a split has."""
    _, shards = source.shards(split)
    with source.errors():
        counts = row_counts(shards, source.shard, _rows_of_shards(run_of_source(source)))
    return sum(counts[shard] for shard in shards)


def iter_samples(source: Source, split: str | None, places: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The samples at some places, given in rising order, one after another. Memory holds a row group of a shard.

    Raises as `read_sample` does, when the sample in question is asked for.
    """
    _, shards = source.shards(split)
    run, opened = run_of_source(source), source.shard
    first = 0
    with source.errors():
        counts = row_counts(shards, opened, _rows_of_shards(run))
        for shard in shards:
            own = [place - first for place in places if first <= place < first + counts[shard]]
            for row in read_rows(shard, own, opened, counts[shard]) if own else ():
                yield unpack_row(row, run)
            first += counts[shard]
    if places and places[-1] >= first:
        raise _no_place(places[-1], first)


def read_samples(source: Source, split: str | None, indices: Iterable[int]) -> dict[int, dict[str, Any]]:
    """The samples of these numbers of the source dataset, each once. Raises NoSuchSampleError where one isn't there."""
    _, shards = source.shards(split)
    run, opened, wanted = run_of_source(source), source.shard, list(dict.fromkeys(indices))
    with source.errors():
        found = find_numbers(shards, wanted, opened)
        if missing := [index for index in wanted if index not in found]:
            raise _no_number(missing[0])
        return {index: unpack_row(read_row(*found[index], opened), run) for index in wanted}


def _from_shards(
    shards: Sequence[str],
    place: int | None,
    index: int | None,
    open_shard: Open,
    run: dict[str, Any],
    rows: Mapping[str, int],
) -> dict[str, Any]:
    """The sample of a row of some shards. rows: of each, as far as they are known."""
    if place is not None:
        counts = row_counts(shards, open_shard, rows)
        found = find_place(shards, place, open_shard, counts)
        if isinstance(found, int):
            raise _no_place(place, found)
        shard, row = found
        return unpack_row(next(read_rows(shard, [row], open_shard, counts[shard])), run)
    assert index is not None
    numbered = find_number(shards, index, open_shard)
    if numbered is None:
        raise _no_number(index)
    return unpack_row(read_row(*numbered, open_shard), run)


def _rows_of_shards(run: Mapping[str, Any]) -> dict[str, int]:
    """What checkpoint.json says of them, as far as it can be. `read_rows` holds it against the shards."""
    shards = run.get("shards")
    entries = shards.items() if isinstance(shards, dict) else ()
    return {
        name: entry["rows"]
        for name, entry in entries
        if isinstance(entry, dict) and type(entry.get("rows")) is int and entry["rows"] >= 0
    }


def unpack_row(row: Mapping[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """The sample in a stored row of plain Python values or arrays. Raises FormatError where it is damaged."""
    missing = [name for name in CONTRACT_COLUMNS if row.get(name) is None]
    if missing:
        raise FormatError(f"The row lacks {', '.join(missing)}; it isn't a whole row of a logits dataset.")
    for name in ("index", "num_tokens"):
        if isinstance(row[name], bool) or not isinstance(row[name], Integral):
            raise FormatError(f"A row's {name} is {row[name]!r:.60}, not a whole number: it is damaged, or no row.")
    optional = {name: dtype for name, dtype in _OPTIONAL_PER_TOKEN.items() if row.get(name) is not None}
    columns = {name: _numbers(row, name, dtype) for name, dtype in (_PER_TOKEN | optional).items()}
    tokens = int(row["num_tokens"])
    for name, values in columns.items():
        if len(values) != tokens:
            raise FormatError(f"Row {row['index']} is damaged: {len(values)} values in {name} for {tokens} tokens.")
    nucleus_ends = np.cumsum(columns["top_counts"])[:-1]
    sample = {
        "index": int(row["index"]),
        "num_tokens": tokens,
        "top_indices": _split(_ids(row, "top"), nucleus_ends, tokens),
        "top_logits_quantized": _split(_quantized(row, "top"), nucleus_ends, tokens),
        "sampled_indices": _split(_ids(row, "sampled"), tokens, tokens),
        "sampled_logits_quantized": _split(_quantized(row, "sampled"), tokens, tokens),
        **columns,
        "logits_dtype": (run.get("metadata") or {}).get("logits_dtype"),
        "run": run,
    }
    if row.get("input_ids") is not None:
        sample["input_ids"] = _numbers(row, "input_ids", np.int32)
    _check_lengths(sample)
    require_possible(sample)
    _check_positions(sample)
    return sample


def _numbers(row: Mapping[str, Any], name: str, dtype: Any) -> np.ndarray:
    """A list column of a row. Raises FormatError where it holds anything but numbers that this type can be."""
    try:
        found = np.asarray(row[name])
    except ValueError:  # of lists of several lengths
        found = np.asarray(None)
    whole = issubclass(dtype, np.integer)
    if found.ndim != 1 or (len(found) and found.dtype.kind not in ("iu" if whole else "iuf")):
        raise FormatError(
            f"Row {row['index']} is damaged: {name} doesn't hold {'whole ' if whole else ''}numbers alone. Look at the "
            "dataset with verify."
        )
    if whole and len(found) and not np.can_cast(found.dtype, dtype):
        ends = np.iinfo(dtype)
        if found.min() < ends.min or found.max() > ends.max:
            raise FormatError(f"Row {row['index']} is damaged: {name} holds numbers beyond {ends.min} to {ends.max}.")
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite then, which the checks refuse
        return found.astype(dtype)


def _ids(row: Mapping[str, Any], kind: str) -> np.ndarray:
    low = _numbers(row, f"{kind}_indices_low", np.uint16)
    try:
        return unpack_indices(low, row[f"{kind}_indices_high"])
    except (ValueError, TypeError) as error:
        raise FormatError(f"Row {row['index']} is damaged: {error}") from error


def _quantized(row: Mapping[str, Any], kind: str) -> np.ndarray:
    return _numbers(row, f"{kind}_logits_quantized", np.uint16)


def _split(values: np.ndarray, ends: Any, tokens: int) -> list[np.ndarray]:
    """`values` in one array a token: at `ends`, or in equal parts where that is a number."""
    if not tokens:
        return []
    return np.array_split(values, ends) if isinstance(ends, int) else np.split(values, ends)


def _check_lengths(sample: Mapping[str, Any]) -> None:
    sizes = sample["top_counts"]
    widths = np.array([len(ids) for ids in sample["sampled_indices"]])
    wanted = {"top": sizes, "sampled": widths[:1].repeat(len(widths))}
    for kind, lengths in wanted.items():
        for name in (f"{kind}_indices", f"{kind}_logits_quantized"):
            if any(len(part) != length for part, length in zip(sample[name], lengths, strict=True)):
                raise FormatError(f"Row {sample['index']} is damaged: {name} has not one part for every token.")


def _check_positions(sample: Mapping[str, Any]) -> None:
    """The first token of a conversation has nothing before it that could predict it."""
    positions = sample.get("positions")
    if positions is None or not len(positions):
        return
    past = len(sample["input_ids"]) if "input_ids" in sample else np.iinfo(np.int32).max
    if positions[0] < 1 or positions[-1] >= past or (positions[1:] <= positions[:-1]).any():
        raise FormatError(
            f"Row {sample['index']} is damaged: its positions do not rise from at least 1 to inside of the "
            "conversation. Look at the dataset with verify."
        )


def _placed_row(dataset: Any, place: int) -> Mapping[str, Any]:
    if hasattr(dataset, "__len__"):
        if not 0 <= place < len(dataset):
            raise _no_place(place, len(dataset))
        return dataset[int(place)]
    for row in islice(dataset.skip(place), 1):
        return row
    raise NoSuchSampleError(f"There is no row {place}: the dataset has at most {place} rows.")


def _numbered_row(dataset: Any, index: int) -> Mapping[str, Any]:
    if hasattr(dataset, "__len__"):
        numbers = dataset.select_columns(["index"]).with_format("numpy")[:]["index"]
        places = np.flatnonzero(np.asarray(numbers) == index)
        if len(places):
            return dataset[int(places[0])]
    else:
        for row in dataset:
            if row["index"] == index:
                return row
    raise _no_number(index)


def _no_place(place: int, rows: int) -> NoSuchSampleError:
    return NoSuchSampleError(f"There is no row {place}: the dataset has {rows:,} rows, counted from 0.")


def _no_number(index: int | None) -> NoSuchSampleError:
    return NoSuchSampleError(
        f"No row has index {index}. That is a number of the source dataset; for a place in this one give it without "
        "index (--index)."
    )
