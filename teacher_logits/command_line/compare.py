"""`python explore_logits.py compare OUTPUT --model M`: the fidelity report in a terminal."""

import importlib.util
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from teacher_logits.command_line.shell import quiet_libraries, say, set_up_reporting, share_cores
from teacher_logits.errors import SettingsError
from teacher_logits.exploring import CONVERSATIONS, compare_with_teacher, fidelity_text


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Run the teacher again over some conversations. Exit code 0: what is stored is what it says; 1: it is not."""

    model: Annotated[str, tyro.conf.arg(metavar="NAME")]
    """The teacher: a Hub id, or a folder with the model."""
    conversations: Annotated[int, tyro.conf.arg(metavar="N")] = CONVERSATIONS
    """Compare at most this many, evenly spread over the dataset."""
    dtype: Literal["auto", "float64", "float32", "bfloat16", "float16"] = "auto"
    """Type to compute in. auto: that of the run."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps, ..."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Chooses the conversations."""
    any_model: bool = False
    """Compare even where the model is not the one of the run."""
    dataset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Where tokens were not stored, where the source dataset is now; by default where the run read it."""


@dataclass(frozen=True, kw_only=True)
class CompareOutput(Compare):
    """Run the teacher again over some conversations. Exit code 0: what is stored is what it says; 1: it is not."""

    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """A folder with a logits dataset, or the id of one on the Hub."""
    split: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Split of the dataset; by default the only one."""
    revision: Annotated[str | None, tyro.conf.arg(metavar="REVISION")] = None
    """Branch, tag or commit of a dataset on the Hub."""


def prepare_for_teacher(what: str) -> None:
    """Get this process ready for running a teacher. Raises SettingsError where a library for that is missing.

    what: the command or option that runs it.
    """
    for library in ("torch", "transformers"):
        if importlib.util.find_spec(library) is None:
            raise SettingsError(f"{what} runs the teacher, which needs {library}, and that isn't installed.")
    share_cores()
    set_up_reporting()
    quiet_libraries()


def run_compare(options: CompareOutput) -> int:
    """Print the report and return the exit code."""
    prepare_for_teacher("compare")
    if options.seed < 0:
        raise SettingsError(f"--seed is {options.seed}; expected at least 0.")
    report = compare_with_teacher(
        options.output,
        options.model,
        options.conversations,
        options.dtype,
        options.device,
        options.seed,
        any_model=options.any_model,
        dataset=options.dataset,
        split=options.split,
        revision=options.revision,
    )
    say(fidelity_text(report), result=True)
    return 0 if report.sound else 1
