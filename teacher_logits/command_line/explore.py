"""`python explore_logits.py OUTPUT [show PLACE | show --index N]`."""

import io
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from teacher_logits.command_line.shell import exit_code_of, say
from teacher_logits.errors import FormatError, SettingsError, TeacherLogitsError
from teacher_logits.exploring import (
    analyze_token_probabilities,
    conversation_text,
    load_tokenizer,
    most_surprising,
    open_source,
    read_sample,
    summarize,
    summary_text,
    surprises_text,
    tokenizer_of,
)

_SURPRISES = 5


@dataclass(frozen=True)
class Show:
    """Show a conversation, coloured by probability, and its most surprising tokens."""

    place: Annotated[int | None, tyro.conf.Positional, tyro.conf.arg(metavar="PLACE")] = None
    """Which row: 0 is the first, and by default the one shown. The longest conversations stand first."""
    index: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Instead of a place, the conversation's number in the source dataset."""
    tokenizer: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Hub id or folder of the tokenizer; by default that of the model the dataset names."""


@dataclass(frozen=True)
class Explore:
    """Look into a logits dataset: a summary, or with `show` one conversation."""

    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """A folder with a logits dataset, or the id of one on the Hub."""
    command: (
        Annotated[Show, tyro.conf.subcommand("show")]
        | Annotated[None, tyro.conf.subcommand("summary", description="The dataset in numbers.")]
    ) = None
    split: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Split of the dataset; by default the only one."""
    revision: Annotated[str | None, tyro.conf.arg(metavar="REVISION")] = None
    """Branch, tag or commit of a dataset on the Hub."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code. Options that can't be read leave through SystemExit(2)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that can't show a character shows its escape instead of ending the program.
        sys.stdout.reconfigure(errors="backslashreplace")
    return exit_code_of(lambda: _explore(arguments))


def run() -> None:
    """The program."""
    sys.exit(main())


def _explore(arguments: list[str] | None) -> int:
    options = tyro.cli(
        Explore,
        args=arguments,
        prog="explore_logits.py",
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.CascadeSubcommandArgs),
    )
    try:
        say(_answer(options))
    except TeacherLogitsError:
        raise
    except (LookupError, ValueError) as error:
        raise FormatError(
            f"{options.output} can't be shown ({error!r}): its columns are not those of the format, or don't belong "
            "together. Was it written by extract_logits.py, and downloaded whole?"
        ) from error
    return 0


def _answer(options: Explore) -> str:
    source = open_source(options.output, options.revision)
    show = options.command
    if show is None:
        return summary_text(summarize(source, options.split))
    if show.place is not None and show.index is not None:
        raise SettingsError(f"show takes a place ({show.place}) or --index ({show.index}), not both.")
    place = 0 if show.place is None and show.index is None else show.place
    sample = read_sample(source, options.split, place, show.index)
    tokenizer = tokenizer_of(sample["run"]) if show.tokenizer is None else load_tokenizer(show.tokenizer)
    surprising = most_surprising(analyze_token_probabilities(sample, tokenizer=tokenizer), _SURPRISES)
    shown = [conversation_text(sample, tokenizer)]
    if surprising:
        shown += ["", "most surprising tokens", surprises_text(surprising)]
    return "\n".join(shown)
