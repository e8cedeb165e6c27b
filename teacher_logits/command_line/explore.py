"""`python explore_logits.py OUTPUT [show | html | stats | plots | report | verify | compare]`, `verify OUTPUT`, and
`compare OUTPUT`."""

import dataclasses
import io
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from teacher_logits.command_line.compare import Compare, CompareOutput, run_compare
from teacher_logits.command_line.pages import Html, Report, sample_of, write_conversation, write_report
from teacher_logits.command_line.shell import exit_code_of, leave, place_of, quiet_libraries, say, set_up_reporting
from teacher_logits.command_line.stopping import unwinding
from teacher_logits.errors import FormatError, SettingsError, TeacherLogitsError
from teacher_logits.exploring import (
    Source,
    analyze_token_probabilities,
    bytes_per_token_text,
    compute_bytes_per_token_stats,
    compute_dataset_stats,
    conversation_text,
    dataset_stats_text,
    load_tokenizer,
    most_surprising,
    open_source,
    summarize,
    summary_text,
    surprises_text,
    tokenizer_if_any,
    tokenizer_of,
    verification_text,
    verify_dataset,
    write_plots,
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
    retokenize: bool = False
    """Where the tokens were not stored, render the conversation again from the source dataset."""
    dataset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """With --retokenize, where the source dataset is now; by default where the run read it."""


@dataclass(frozen=True, kw_only=True)
class Stats:
    """All figures of the dataset: nucleus sizes, retained mass, entropy, surprise, bytes of each column."""

    surprising: Annotated[int, tyro.conf.arg(metavar="K")] = 10
    """How many of the most surprising tokens to list."""
    tokenizer: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Hub id or folder of the tokenizer; by default that of the model the dataset names."""


@dataclass(frozen=True, kw_only=True)
class Plots:
    """Write pictures of the dataset, of one conversation and of one token as PNG files."""

    output_dir: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FOLDER")]
    """The folder for the files; it is made where it isn't there."""
    place: Annotated[int | None, tyro.conf.Positional, tyro.conf.arg(metavar="PLACE")] = None
    """Which row is the conversation: 0 is the first, and by default the one drawn."""
    index: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Instead of a place, the conversation's number in the source dataset."""
    position: Annotated[int | None, tyro.conf.arg(metavar="I")] = None
    """Position of one of its tokens, as show lists it; by default that where the teacher was least certain."""
    theme: Literal["light", "dark"] = "light"
    """Colours of the pictures."""
    tokenizer: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Hub id or folder of the tokenizer; by default that of the model the dataset names."""


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Check every file and number of the dataset. Exit code 0: all is sound; 1: something is wrong, a line each."""

    source: bool = True
    """Open the source dataset, which may have to be fetched, to see whether conversations are missing."""


@dataclass(frozen=True, kw_only=True)
class VerifyOutput(Verify):
    """Check every file and number of a logits dataset. Exit code 0: all is sound; 1: something is wrong."""

    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """A folder with a logits dataset, or the id of one on the Hub."""
    revision: Annotated[str | None, tyro.conf.arg(metavar="REVISION")] = None
    """Branch, tag or commit of a dataset on the Hub."""


@dataclass(frozen=True)
class Explore:
    """Look into a logits dataset: a summary, or one of the commands below."""

    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """A folder with a logits dataset, or the id of one on the Hub."""
    command: (
        Annotated[Show, tyro.conf.subcommand("show")]
        | Annotated[Stats, tyro.conf.subcommand("stats")]
        | Annotated[Html, tyro.conf.subcommand("html")]
        | Annotated[Plots, tyro.conf.subcommand("plots")]
        | Annotated[Report, tyro.conf.subcommand("report")]
        | Annotated[Verify, tyro.conf.subcommand("verify")]
        | Annotated[Compare, tyro.conf.subcommand("compare")]
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
    set_up_reporting(logging.WARNING)
    return exit_code_of(lambda: _explore(arguments))


def run() -> None:
    """The program. Until it has read its options, Ctrl+C ends it at once."""
    leave(main())


def _explore(arguments: list[str] | None) -> int:
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        with unwinding():
            return _run(options)
    except TeacherLogitsError:
        raise
    except (LookupError, ValueError) as error:
        raise FormatError(
            f"{options.output} can't be shown ({error!r}): its columns are not those of the format, or don't belong "
            "together. Was it written by extract_logits.py, and downloaded whole?"
        ) from error


def _run(options: Explore | VerifyOutput | CompareOutput) -> int:
    match options:
        case VerifyOutput():
            return _verify(options)
        case CompareOutput():
            return run_compare(options)
    say(_answer(options), result=True, coloured=isinstance(options.command, Show))
    return 0


def _parse(arguments: list[str]) -> Explore | VerifyOutput | CompareOutput:
    """The options. `verify OUTPUT` and `OUTPUT verify` are the same; a folder of that name is given as ./verify. So for
    `compare`."""
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.CascadeSubcommandArgs)
    if arguments[:1] == ["verify"]:
        return tyro.cli(VerifyOutput, args=arguments[1:], prog="explore_logits.py verify", config=config)
    if arguments[:1] == ["compare"]:
        return tyro.cli(CompareOutput, args=arguments[1:], prog="explore_logits.py compare", config=config)
    options = tyro.cli(Explore, args=arguments, prog="explore_logits.py", config=config)
    if isinstance(options.command, Compare):
        given: dict[str, Any] = dataclasses.asdict(options.command)
        return CompareOutput(output=options.output, split=options.split, revision=options.revision, **given)
    if not isinstance(options.command, Verify):
        return options
    if options.split is not None:
        raise SettingsError("verify looks at all there is; leave --split out.")
    return VerifyOutput(output=options.output, revision=options.revision, source=options.command.source)


def _verify(options: VerifyOutput) -> int:
    opened = open_source(options.output, options.revision)
    if options.source:
        quiet_libraries()  # the source is opened with them
    found = verify_dataset(opened, look_at_source=options.source)
    say(verification_text(found), result=True)
    return 0 if found.sound else 1


def _answer(options: Explore) -> str:
    source = open_source(options.output, options.revision)
    match options.command:
        case Show() as show:
            return _conversation(source, options.split, show)
        case Stats() as stats:
            return _stats(source, options.split, stats)
        case Html() as html:
            return write_conversation(source, options.split, html)
        case Plots() as plots:
            return _plots(source, options.split, plots)
        case Report() as report:
            return write_report(source, options.split, report)
    return summary_text(summarize(source, options.split))


def _conversation(source: Source, split: str | None, show: Show) -> str:
    sample = sample_of(source, split, show)
    tokenizer = (
        tokenizer_of(sample["run"]) if show.tokenizer is None else load_tokenizer(show.tokenizer, run=sample["run"])
    )
    surprising = most_surprising(analyze_token_probabilities(sample, tokenizer=tokenizer), _SURPRISES)
    shown = [conversation_text(sample, tokenizer)]
    if surprising:
        shown += ["", "most surprising tokens", surprises_text(surprising)]
    return "\n".join(shown)


def _stats(source: Source, split: str | None, options: Stats) -> str:
    if options.surprising < 0:
        raise SettingsError(f"--surprising is {options.surprising}; there can be 0 or more.")
    tokenizer = None if options.tokenizer is None else load_tokenizer(options.tokenizer)
    stats = compute_dataset_stats(source, split=split, surprising=options.surprising)
    stored = compute_bytes_per_token_stats(source, split=split)
    tokenizer = tokenizer_if_any(stats.run) if tokenizer is None else tokenizer
    return "\n\n".join([dataset_stats_text(stats, tokenizer), bytes_per_token_text(stored)])


def _plots(source: Source, split: str | None, options: Plots) -> str:
    tokenizer = None if options.tokenizer is None else load_tokenizer(options.tokenizer)
    written = write_plots(
        source,
        options.output_dir,
        split,
        place=place_of(options.place, options.index),
        index=options.index,
        position=options.position,
        theme=options.theme,
        tokenizer=tokenizer,
    )
    return "\n".join(map(str, written))
