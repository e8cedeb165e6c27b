"""The figures of a whole dataset, from its files shard by shard: memory doesn't grow with the dataset."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from teacher_logits.exploring.runs import run_of_source, told
from teacher_logits.exploring.sources import Source
from teacher_logits.exploring.statistics import NucleusSizeStats, analyze_nucleus_sizes, at_cap_text
from teacher_logits.exploring.text import size_text, table
from teacher_logits.printable import visible

SKIPPED = "skipped.jsonl"
_REASONS = 10


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
    size: int
    """Bytes of the shards."""
    nucleus: NucleusSizeStats
    skipped: dict[str, int]
    """Conversations left out, by reason."""

    @property
    def rows(self) -> int:
        """Conversations."""
        return self.nucleus.conversations

    @property
    def tokens(self) -> int:
        """Stored tokens."""
        return self.nucleus.count


def summarize(source: Source, split: str | None = None, nucleus: NucleusSizeStats | None = None) -> DatasetSummary:
    """Read `num_tokens` and `top_counts` of every shard and add them up. Raises FormatError where one is damaged.

    nucleus: the sizes of the split's nuclei, where they are at hand: then nothing of the shards is read.
    """
    run = run_of_source(source)
    split, names = source.shards(split)
    return DatasetSummary(
        name=source.name,
        split=split,
        model=told(run, "model"),
        dataset=told(run, "dataset"),
        complete=run.get("complete"),
        shards=len(names),
        missing_shards=len(set(run.get("shards") or {}) - set(source.data_files())),
        size=sum(source.size(name) for name in names),
        nucleus=analyze_nucleus_sizes(source, split=split) if nucleus is None else nucleus,
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
        ["rows", f"{summary.rows:,} in {summary.shards:,} shard{'s' * (summary.shards != 1)}"],
        ["tokens", f"{summary.tokens:,}"],
        ["size", _size(summary)],
    ]
    if summary.missing_shards:
        rows.append(["damaged", f"{summary.missing_shards:,} shards of checkpoint.json are not there"])
    if summary.tokens:
        rows.append(["mean nucleus", f"{summary.nucleus.mean:.1f} tokens"])
        if summary.nucleus.cap is not None:
            rows.append(["at the cap", at_cap_text(summary.nucleus)])
    if summary.skipped:
        rows.append(["skipped", f"{sum(summary.skipped.values()):,} conversations"])
        reasons = list(summary.skipped.items())
        rows += [["", f"{count:,}  {reason}"] for reason, count in reasons[:_REASONS]]
        if len(reasons) > _REASONS:
            rows.append(["", f"{sum(count for _, count in reasons[_REASONS:]):,}  for other reasons"])
    return table([[label, visible(value).replace("\n", " ")] for label, value in rows])


def _size(summary: DatasetSummary) -> str:
    per_token = f", {summary.size / summary.tokens:,.1f} bytes a token" if summary.tokens else ""
    return f"{size_text(summary.size)}{per_token}"


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
