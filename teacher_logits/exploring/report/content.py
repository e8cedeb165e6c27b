"""What the report shows of a dataset, as plain data."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from teacher_logits.exploring.decoding import Sample
from teacher_logits.exploring.entropy import entropy_bounds
from teacher_logits.exploring.fidelity import CONVERSATIONS, compare_with_teacher
from teacher_logits.exploring.optional import MissingLibraryError
from teacher_logits.exploring.page.content import Content, page_content
from teacher_logits.exploring.report.comparison import Comparison, comparison_of
from teacher_logits.exploring.report.passages import Passage, cut, passage
from teacher_logits.exploring.report.pictures import Picture, pictures
from teacher_logits.exploring.report.tables import ColumnRow, bits, column_rows, expected_text, figure_tables
from teacher_logits.exploring.runs import load_tokenizer, tokenizer_if_any, told
from teacher_logits.exploring.samples import read_samples
from teacher_logits.exploring.sources import FolderSource, Source
from teacher_logits.exploring.statistics import (
    BytesPerToken,
    DatasetStats,
    NucleusSizeStats,
    analyze_nucleus_sizes,
    compute_bytes_per_token_stats,
    compute_dataset_stats,
    stats_warnings,
)
from teacher_logits.exploring.summary import DatasetSummary, summarize
from teacher_logits.exploring.text import Table, percent, run_name, run_settings, size_text
from teacher_logits.exploring.verifying import Verification, verify_dataset
from teacher_logits.printable import visible
from teacher_logits.settings import is_folder

_OF_THE_DATASET = ("Teacher", "Source", "Stored")
"""Facts of a conversation's page that a report tells at its top."""


@dataclass(frozen=True)
class Excerpt:
    """The beginning of a conversation."""

    content: Content
    what: str
    """Why it was chosen."""
    left_out: int
    """Stored tokens that are not shown."""
    command: str
    """What shows all of it."""


@dataclass(frozen=True)
class Examples:
    """Conversations and tokens."""

    passages: tuple[Passage, ...] = ()
    """The most surprising tokens."""
    view: Content | None = None
    """The conversation that is shown whole."""
    why: str = ""
    """Why it was chosen."""
    excerpts: tuple[Excerpt, ...] = ()
    note: str = ""
    """What is missing, and why."""

    @property
    def linked(self) -> frozenset[int]:
        """The stored tokens of the view that passages lead to."""
        shown = self.passages if self.view is not None else ()
        return frozenset(each.entry for each in shown if self.shows(each))

    def shows(self, each: Passage) -> bool:
        """Whether a passage is from the conversation that is shown whole."""
        return self.view is not None and self.view.heading == _heading(each.index)


@dataclass(frozen=True)
class Report:
    """Everything the page is made of."""

    name: str
    lede: str
    """What it is, in a sentence."""
    facts: tuple[tuple[str, str], ...]
    """Names and values, for the top of the page."""
    tiles: tuple[tuple[str, str, str], ...]
    """Name, value and remark of the figures that are asked for first."""
    verification: Verification | None
    """None: not looked at."""
    comparison: Comparison | None
    """With the teacher; None: not made."""
    compare_command: str
    """What makes the page with a comparison; '' where there is nothing to compare."""
    notes: tuple[str, ...]
    """What a trainer should know."""
    tables: tuple[Table, ...]
    columns: tuple[ColumnRow, ...]
    expected: str
    """What tokens take, in a sentence."""
    pictures: tuple[tuple[str, list[Picture]], ...]
    """Under their headings."""
    no_pictures: str
    """Why there are none; '' where there are, or nothing is to be drawn."""
    examples: Examples


def report_content(
    source: Source,
    split: str | None = None,
    *,
    verify: bool = True,
    look_at_source: bool = True,
    model: str | Path | None = None,
    conversations: int = CONVERSATIONS,
    device: str = "auto",
    source_dataset: str | None = None,
    tokenizer: Any = None,
    surprising: int = 10,
) -> Report:
    """Read everything: the statistics in one pass, some conversations, and to verify it the whole dataset.

    Arguments and errors: see `dataset_report`. The comparison comes first, since it refuses what can't be compared.
    """
    comparison = None
    if model is not None:
        found = compare_with_teacher(source, model, conversations, device=device, split=split, dataset=source_dataset)
        comparison = comparison_of(found)
    stats = compute_dataset_stats(source, split=split, surprising=surprising)
    sizes = analyze_nucleus_sizes(source, per_sample=True, per_position=True, split=split)
    stored = compute_bytes_per_token_stats(source, split=split)
    summary = summarize(source, split, sizes)
    tokenizer = _tokenizer(stats.run, model) if tokenizer is None else tokenizer
    samples = _chosen(source, split, stats, sizes)
    subject = next(iter(samples.values()))[1] if samples else None
    try:
        drawn, no_pictures = pictures(stats, sizes, subject, _unsure(subject), tokenizer), ""
    except MissingLibraryError as error:
        drawn, no_pictures = [], str(error)
    verification = verify_dataset(source, look_at_source=look_at_source) if verify else None
    return Report(
        name=_name(source),
        lede=visible(_lede(stats)).replace("\n", " "),
        facts=tuple((name, visible(value).replace("\n", " ")) for name, value in _facts(summary, stats)),
        tiles=tuple(_tiles(stats, stored)),
        verification=None if verification is None else _without_paths(verification, stats.run),
        comparison=comparison,
        compare_command=_compare_command(source, stats.run) if stats.entries else "",
        notes=tuple(stats_warnings(stats)),
        tables=tuple(figure_tables(stats, summary.skipped)),
        columns=tuple(column_rows(stored)),
        expected=expected_text(stored) if stored.tokens else "",
        pictures=tuple(drawn),
        no_pictures=no_pictures,
        examples=_examples(source, split, stats, samples, tokenizer),
    )


def _tokenizer(run: Mapping[str, Any], model: str | Path | None) -> Any:
    """That of the run's model, or where another place of it was given, from there; None where it can't be had."""
    if model is None or str(model) == told(run, "model"):
        return tokenizer_if_any(run)
    return load_tokenizer(str(model), run=run)


def _chosen(
    source: Source, split: str | None, stats: DatasetStats, sizes: NucleusSizeStats
) -> dict[int, tuple[str, Sample]]:
    """Conversations by their numbers, each with why it was chosen: the most surprising, the first, a middle one."""
    each = sizes.per_sample
    assert each is not None
    if not len(each.index):
        return {}
    chosen: dict[int, str] = {}
    if stats.surprise is not None and stats.surprise.most_surprising:
        chosen[stats.surprise.most_surprising[0].index] = "It has the token that the teacher expected least."
    elif stats.entries:
        most = int(each.index[np.nanargmax(each.mean)])
        chosen[most] = "Its nuclei are the largest on average, so that here the teacher was least sure."
    chosen.setdefault(int(each.index[0]), "The first of the dataset, where the longest stand first.")
    chosen.setdefault(int(each.index[len(each.index) // 2]), "From the middle of the dataset.")
    samples = read_samples(source, split, chosen)
    return {index: (why, samples[index]) for index, why in chosen.items()}


def _examples(
    source: Source, split: str | None, stats: DatasetStats, samples: Mapping[int, tuple[str, Sample]], tokenizer: Any
) -> Examples:
    least = () if stats.surprise is None else stats.surprise.most_surprising
    others = read_samples(source, split, [each.index for each in least if each.index not in samples])
    known = others | {index: sample for index, (_, sample) in samples.items()}
    passages = tuple(passage(each, known[each.index], tokenizer) for each in least)
    if not samples:
        return Examples()
    if tokenizer is None:
        model = run_name(stats.run, "model") or "the model"
        reason = (
            f"The tokenizer of {model} could not be loaded, so tokens are called by their ids, and no conversation "
        )
        return Examples(passages, note=reason + "is shown. The option --tokenizer names another.")
    (why, first), *rest = samples.values()
    return Examples(
        passages=passages,
        view=_of_its_own(page_content(first, tokenizer)),
        why=why,
        excerpts=tuple(_excerpt(source, other_why, other, tokenizer) for other_why, other in rest),
    )


def _of_its_own(content: Content) -> Content:
    """The content without the facts that hold for the whole dataset."""
    return replace(content, facts=tuple(fact for fact in content.facts if fact[0] not in _OF_THE_DATASET))


def _excerpt(source: Source, why: str, sample: Sample, tokenizer: Any) -> Excerpt:
    content, left_out = cut(page_content(sample, tokenizer))
    return Excerpt(content, why, left_out, _command(source, "html", "--index", str(sample["index"])))


def _compare_command(source: Source, run: Mapping[str, Any]) -> str:
    model = told(run, "model") or "MODEL"
    named = f"path/to/{PurePath(model).name}" if is_folder(model) else model
    return _command(source, "report", "--model", visible(named).replace("\n", " "))


def _command(source: Source, *words: str) -> str:
    """What somebody types beside the dataset and its teacher: pages are sent to others, whose folders are others."""
    named = f"./{_name(source)}" if is_folder(source.name) else source.name
    return shlex.join(["python", "explore_logits.py", named, *words])


def _lede(stats: DatasetStats) -> str:
    teacher = run_name(stats.run, "model") or "an unknown teacher"
    source = run_name(stats.run, "source") or run_name(stats.run, "dataset")
    tokens, conversations = _counted(stats.entries, "token"), _counted(stats.conversations, "conversation")
    return f"What {teacher} expected at {tokens} of {conversations}" + (f" from {source}." if source else ".")


def _facts(summary: DatasetSummary, stats: DatasetStats) -> Iterator[tuple[str, str]]:
    run = stats.run
    metadata = run.get("metadata") or {}
    yield "Teacher", run_name(run, "model") or "unknown"
    if source := run_name(run, "source") or run_name(run, "dataset"):
        yield "Source", source
    yield "Stored", run_settings(run)
    yield "Split", summary.split
    yield "Complete", {True: "yes", False: "no, its run isn’t finished", None: "unknown"}[summary.complete]
    if summary.missing_shards:
        yield "Missing", f"{_counted(summary.missing_shards, 'shard')} that checkpoint.json lists"
    yield "Files", f"{_counted(summary.shards, 'shard')}, {size_text(summary.size)}"
    if vocabulary := metadata.get("vocab_used"):
        yield "Vocabulary", f"{vocabulary:,} tokens" if isinstance(vocabulary, int) else str(vocabulary)
    if dtype := metadata.get("model_dtype"):
        yield "Computed in", str(dtype)
    if (seed := told(run, "seed")) is not None:
        yield "Seed", str(seed)


def _tiles(stats: DatasetStats, stored: BytesPerToken) -> Iterator[tuple[str, str, str]]:
    yield "Conversations", f"{stats.conversations:,}", ""
    yield "Stored tokens", f"{stats.entries:,}", ""
    if not stats.entries:
        return
    yield "Bytes a token", f"{stored.per_token:.0f}", ""
    yield "Mean nucleus", f"{stats.nucleus.mean:.1f}", f"tokens, median {stats.nucleus.median:g}"
    yield "Retained mass", percent(stats.mass[1].mean), "of the distribution"
    low, high = (bits(spread.mean) for spread in (stats.entropy.lowest, stats.entropy.highest))
    yield "Mean entropy", f"{bits(stats.entropy.estimate)}", f"bits, {low} to {high}"
    if stats.surprise is not None and stats.surprise.nats.count:
        yield "Perplexity", f"{stats.surprise.perplexity:,.2f}", "of the texts’ own tokens"


def _unsure(sample: Sample | None) -> int | None:
    """The stored token of the largest entropy."""
    return None if sample is None or not sample["num_tokens"] else int(np.argmax(entropy_bounds(sample)[0]))


def _name(source: Source) -> str:
    """What the dataset is called. Of a path its last part alone, since pages are sent to others."""
    return visible(source.folder.resolve().name if isinstance(source, FolderSource) else source.name)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"


def _heading(index: int) -> str:
    return f"Conversation {index}"


def _without_paths(found: Verification, run: Mapping[str, Any]) -> Verification:
    """The same, with the last parts of the run's local paths in place of the whole ones."""
    paths = [str(value) for name in ("dataset", "model", "output") if is_folder(str(value := told(run, name)))]

    def shortened(lines: list[str]) -> list[str]:
        for path in sorted(paths, key=len, reverse=True):
            lines = [line.replace(path, PurePath(path).name) for line in lines]
        return lines

    return replace(found, problems=shortened(found.problems), notes=shortened(found.notes))
