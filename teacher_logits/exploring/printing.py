"""What notebooks print: the only module here that writes to the standard output."""

from pathlib import Path
from typing import Any

from teacher_logits.exploring.analysis import as_sample, decode_top_tokens
from teacher_logits.exploring.conversation import conversation_text
from teacher_logits.exploring.decoding import Sample
from teacher_logits.exploring.entries import entry_name, entry_of
from teacher_logits.exploring.loading import load_logit_dataset
from teacher_logits.exploring.page import ConversationView, conversation_view
from teacher_logits.exploring.runs import tokenizer_if_any
from teacher_logits.exploring.samples import get_sample, read_sample
from teacher_logits.exploring.sources import open_source
from teacher_logits.exploring.statistics import (
    DatasetStats,
    bytes_per_token_text,
    compute_bytes_per_token_stats,
    compute_dataset_stats,
    dataset_stats_text,
)
from teacher_logits.exploring.summary import summarize, summary_text
from teacher_logits.exploring.text import sample_info_text, top_tokens_text


def print_sample_info(sample: Sample, tokenizer: Any = None) -> None:
    """Print what a sample holds; with a tokenizer also the beginning of its text."""
    print(sample_info_text(sample, tokenizer))


def print_top_tokens(sample: Sample, position: int, tokenizer: Any = None, k: int = 10) -> None:
    """Print the teacher's `k` most probable choices for one token as a table; see `decode_top_tokens`."""
    choices, entry = decode_top_tokens(sample, position, tokenizer, k), entry_of(sample, position)
    what = f"{entry_name(sample, entry)} of conversation {sample['index']}"
    print(top_tokens_text(choices, f"{what}: nucleus of {sample['top_counts'][entry]}"))


def visualize_conversation_probabilities(
    sample_or_dataset: Any,
    place: int | None = None,
    *,
    index: int | None = None,
    tokenizer: Any = None,
    html: bool = False,
    retokenize: bool = False,
) -> ConversationView | None:
    """Print a whole conversation, its stored tokens coloured by the probability the teacher gave them.

    sample_or_dataset: what `get_sample` gives, or a dataset with a place (by default 0) or an `index` in it.
    html: print nothing, and return `conversation_view`, which a notebook shows and `.save("page.html")` keeps.
    retokenize: where the dataset was written without its tokens, render the conversation again; see `retokenized`.
    Errors are those of `conversation_text`, or of `conversation_view`.
    """
    if html:
        return conversation_view(sample_or_dataset, place, index=index, tokenizer=tokenizer, retokenize=retokenize)
    print(conversation_text(as_sample(sample_or_dataset, place, index, retokenize), tokenizer))
    return None


def print_dataset_stats(dataset_or_stats: Any, tokenizer: Any = None) -> None:
    """Print the figures of a dataset.

    dataset_or_stats: what `compute_dataset_stats` gives, or takes.   tokenizer: by default that of the run's model.
    """
    stats = dataset_or_stats
    if not isinstance(stats, DatasetStats):
        stats = compute_dataset_stats(dataset_or_stats)
    print(dataset_stats_text(stats, tokenizer_if_any(stats.run) if tokenizer is None else tokenizer))


def quick_explore(
    dataset: Any, split: str | None = None, place: int = 0, *, revision: str | None = None, tokenizer: Any = None
) -> Any:
    """Print a dataset's summary, one conversation of it, its figures and what a token takes; return its rows.

    dataset: a folder, a Hub dataset id, or an opened dataset (which has no files to be summed up).   split: by default
    the only one.   place: of the conversation.   revision: branch, tag or commit on the Hub.
    tokenizer: by default that of the run's model.   Errors are those of `load_logit_dataset` and `get_sample`.
    """
    opened = not isinstance(dataset, str | Path)
    source = dataset if opened else open_source(dataset, revision)
    if not opened:
        print(summary_text(summarize(source, split)), end="\n\n")
    sample = get_sample(source, place) if opened else read_sample(source, split, place)
    tokenizer = tokenizer_if_any(sample["run"]) if tokenizer is None else tokenizer
    if tokenizer is not None and "input_ids" in sample and "positions" in sample:
        print(conversation_text(sample, tokenizer), end="\n\n")
    else:
        print(sample_info_text(sample), end="\n\n")
    print_dataset_stats(compute_dataset_stats(source, split=split), tokenizer)
    print("\n" + bytes_per_token_text(compute_bytes_per_token_stats(source, split=split)))
    return dataset if opened else load_logit_dataset(dataset, split, revision=revision)
