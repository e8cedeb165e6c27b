"""The figures of a whole dataset, from its files shard by shard: memory doesn't grow with the dataset."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from teacher_logits.exploring.runs import run_of_source, told
from teacher_logits.exploring.sources import Source
from teacher_logits.exploring.text import percent, table, visible
from teacher_logits.progress import track
from teacher_logits.shards import read_table

SKIPPED = "skipped.jsonl"
_REASONS = 10
_UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "bytes"))


@dataclass(frozen=True)
class DatasetSummary:
    """A logits dataset in numbers."""

    name: str
    split: str
    model: str | None
    dataset: str | None
    complete: bool | None
    """None where there is no checkpoint.json to tell."""
    shards: int
    missing_shards: int
    """Shards that checkpoint.json lists and that aren't there."""
    rows: int
    tokens: int
    size: int
    """Bytes of the shards."""
    nucleus_sizes: int
    """Sum of the nucleus sizes of all tokens."""
    cap: int | None
    capped_tokens: int
    """Tokens whose nucleus has the cap's size."""
    skipped: dict[str, int]
    """Conversations left out, by reason."""


def summarize(source: Source, split: str | None = None) -> DatasetSummary:
    """Read `num_tokens` and `top_counts` of every shard and add them up. Raises FormatError where one is damaged."""
    run = run_of_source(source)
    split, names = source.shards(split)
    cap = told(run, "top_p_max_elements")
    rows = tokens = sizes = capped = 0
    for name in track(names, "reading shards", len(names), "shards"):
        with source.errors(), source.open(name) as stream:
            columns = read_table(stream, ["num_tokens", "top_counts"])
        rows += columns.num_rows
        tokens += int(columns["num_tokens"].to_numpy().sum())
        counts = columns["top_counts"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        sizes += int(counts.sum(dtype=np.int64))
        capped += int((counts == cap).sum())
    return DatasetSummary(
        name=source.name,
        split=split,
        model=told(run, "model"),
        dataset=told(run, "dataset"),
        complete=run.get("complete"),
        shards=len(names),
        missing_shards=len(set(run.get("shards") or {}) - set(source.data_files())),
        rows=rows,
        tokens=tokens,
        size=sum(source.size(name) for name in names),
        nucleus_sizes=sizes,
        cap=cap,
        capped_tokens=capped,
        skipped=_skipped(source),
    )


def summary_text(summary: DatasetSummary) -> str:
    """The summary as aligned lines."""
    complete = {True: "yes", False: "no: its run isn't finished", None: "unknown (no checkpoint.json)"}
    rows = [
        ["output", f"{summary.name}, split {summary.split}"],
        ["model", summary.model or "unknown"],
        ["dataset", summary.dataset or "unknown"],
        ["complete", complete[summary.complete]],
        ["rows", f"{summary.rows:,} in {summary.shards:,} shards"],
        ["tokens", f"{summary.tokens:,}"],
        ["size", _size(summary)],
    ]
    if summary.missing_shards:
        rows.append(["damaged", f"{summary.missing_shards:,} shards of checkpoint.json are not there"])
    if summary.tokens:
        rows.append(["mean nucleus", f"{summary.nucleus_sizes / summary.tokens:.1f} tokens"])
        if summary.cap is not None:
            share = percent(summary.capped_tokens / summary.tokens)
            rows.append(["at the cap", f"{share} of the tokens (cap {summary.cap})"])
    if summary.skipped:
        rows.append(["skipped", f"{sum(summary.skipped.values()):,} conversations"])
        reasons = list(summary.skipped.items())
        rows += [["", f"{count:,}  {reason}"] for reason, count in reasons[:_REASONS]]
        if len(reasons) > _REASONS:
            rows.append(["", f"{sum(count for _, count in reasons[_REASONS:]):,}  for other reasons"])
    return table([[label, visible(value).replace("\n", " ")] for label, value in rows])


def _size(summary: DatasetSummary) -> str:
    unit, name = next(scale for scale in _UNITS if summary.size >= scale[0])
    per_token = f", {summary.size / summary.tokens:,.1f} bytes a token" if summary.tokens else ""
    return f"{summary.size / unit:,.1f} {name}{per_token}"


def _skipped(source: Source) -> dict[str, int]:
    """Conversations by reason, the most frequent first; {} where none was left out."""
    lines = (source.read(SKIPPED) or b"").decode("utf-8", "replace").splitlines()
    return dict(Counter(_reason(line) for line in lines if line.strip()).most_common())


def _reason(line: str) -> str:
    """A killed run may leave half a line."""
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError):
        return "unreadable line"
    return str(record.get("reason", "no reason given")) if isinstance(record, dict) else "unreadable line"
