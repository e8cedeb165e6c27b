"""`html` and `report` of explore_logits.py: views as HTML pages."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import tyro

from teacher_logits.command_line.compare import prepare_for_teacher
from teacher_logits.command_line.shell import place_of, quiet_libraries
from teacher_logits.exploring import (
    CONVERSATIONS,
    Source,
    conversation_view,
    dataset_report,
    load_tokenizer,
    read_sample,
    retokenized,
    save_page,
    writable_page,
)


@dataclass(frozen=True)
class Html:
    """Write a conversation as one HTML page: what the teacher thought of each of its tokens."""

    place: Annotated[int | None, tyro.conf.Positional, tyro.conf.arg(metavar="PLACE")] = None
    """Which row: 0 is the first, and by default the one written. The longest conversations stand first."""
    index: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Instead of a place, the conversation's number in the source dataset."""
    output_file: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """The page, by default conversation-N.html here. An earlier page of that name is replaced, no other file."""
    tokenizer: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Hub id or folder of the tokenizer; by default that of the model the dataset names."""
    retokenize: bool = False
    """Where the tokens were not stored, render the conversation again from the source dataset."""
    dataset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """With --retokenize, where the source dataset is now; by default where the run read it."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the whole dataset as one HTML page to be sent to somebody: figures, soundness, plots, conversations."""

    output_file: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = Path("report.html")
    """The page. An earlier page of that name is replaced, no other file."""
    verify: bool = True
    """Check whether the dataset is sound, for which all of it is read."""
    source: bool = True
    """When checking, open the source dataset, which may have to be fetched, to see if conversations are missing."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Run this teacher again over some conversations, as compare does: a Hub id, or a folder with the model."""
    conversations: Annotated[int, tyro.conf.arg(metavar="N")] = CONVERSATIONS
    """With --model, compare at most this many, evenly spread over the dataset."""
    device: str = "auto"
    """With --model, where it runs: auto, cpu, cuda, cuda:1, mps, ..."""
    dataset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """With --model, where tokens were not stored: where the source dataset is now, by default where the run read it."""
    tokenizer: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Hub id or folder of the tokenizer; by default that of the model the dataset names."""


class OneConversation(Protocol):
    """Options that choose a conversation."""

    @property
    def place(self) -> int | None: ...
    @property
    def index(self) -> int | None: ...
    @property
    def retokenize(self) -> bool: ...
    @property
    def dataset(self) -> str | None: ...


def sample_of(source: Source, split: str | None, options: OneConversation) -> Mapping[str, Any]:
    """The conversation that the options choose, with its tokens where they are stored or asked for."""
    sample = read_sample(source, split, place_of(options.place, options.index), options.index)
    if not options.retokenize:
        return sample
    quiet_libraries()  # the source is opened with them
    return retokenized(sample, options.dataset)


def write_conversation(source: Source, split: str | None, options: Html) -> str:
    """Write the page of a conversation and return where it is."""
    sample = sample_of(source, split, options)
    tokenizer = None if options.tokenizer is None else load_tokenizer(options.tokenizer, run=sample["run"])
    view = conversation_view(sample, tokenizer=tokenizer)
    path = Path(f"conversation-{sample['index']}.html") if options.output_file is None else options.output_file
    return str(view.save(path))


def write_report(source: Source, split: str | None, options: Report) -> str:
    """Write the page of the dataset and return where it is."""
    writable_page(options.output_file)  # before the work
    if options.model is not None:
        prepare_for_teacher("report --model")
    tokenizer = None if options.tokenizer is None else load_tokenizer(options.tokenizer)
    if options.verify and options.source:
        quiet_libraries()  # the source is opened with them
    page = dataset_report(
        source,
        split,
        verify=options.verify,
        look_at_source=options.source,
        model=options.model,
        conversations=options.conversations,
        device=options.device,
        source_dataset=options.dataset,
        tokenizer=tokenizer,
    )
    return str(save_page(options.output_file, page))
