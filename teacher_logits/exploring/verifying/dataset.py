"""A whole dataset, shard after shard: memory holds the numbers of its conversations and one shard's rows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from teacher_logits.errors import FormatError
from teacher_logits.exploring.runs import CHECKPOINT
from teacher_logits.exploring.sources import Source, open_source
from teacher_logits.exploring.text import visible
from teacher_logits.exploring.verifying.missing import MISSING_KINDS, NOT_LOOKED_FOR, look_for_missing
from teacher_logits.exploring.verifying.problems import MOST_OF_A_KIND, Problems, one_line
from teacher_logits.exploring.verifying.run import CHECKPOINT_KIND, Listed, StoredRun, read_run
from teacher_logits.exploring.verifying.shard import NOTHING, OTHER_RUN, OTHER_TEACHER, UNREADABLE, Counted, ShardCheck
from teacher_logits.progress import progress
from teacher_logits.shards import shard_name, shard_number

_ADVICE = (
    "To mend it: remove the shards that are named from data/, and what doesn't belong there, then run "
    "extract_logits.py --resume, which computes their conversations again."
)
_CHECKPOINT_ADVICE = (
    f"To mend {CHECKPOINT}: put it back from a backup (on the Hub, from an earlier commit). Without one, "
    "extract_logits.py --force-restart begins anew."
)
_OTHER_NAMES = "shards of other names"
_SOUND_SO_FAR = "sound, but whether conversations are missing could not be checked"


@dataclass(frozen=True)
class Verification:
    """What was looked at and what is wrong. Every line is safe to print."""

    name: str
    problems: list[str]
    """One line each; empty where the dataset is sound."""
    notes: list[str]
    """What is no problem but should be known: what could not be looked at, and why."""
    shards: int
    conversations: int
    tokens: int
    size: int
    """Bytes of the shards."""
    missing_unknown: bool = False
    """Whether missing conversations were to be looked for, and could not be."""
    advice: str = ""
    """How to mend it, in one line; '' where it is sound, or nothing but the problems is to be said."""

    @property
    def verdict(self) -> str:
        """In a few words."""
        if not self.sound:
            return "NOT sound"
        if not self.shards:
            return "nothing is stored yet"
        return _SOUND_SO_FAR if self.missing_unknown else "all is sound"

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_dataset(
    source: str | Path | Source, revision: str | None = None, look_at_source: bool = True
) -> Verification:
    """Check a logits dataset: hashes, schema, metadata, counts, duplicate and missing conversations, and every number.

    source: a folder, a Hub dataset id, or what `open_source` gives.   revision: branch, tag or commit on the Hub.
    look_at_source: whether to open the dataset the run has read, to see what is missing.
    Raises FormatError where there is no logits dataset at all.
    """
    opened = source if isinstance(source, Source) else open_source(source, revision)
    problems, notes = Problems(), []
    names = opened.data_files()
    if not names and opened.read(CHECKPOINT) is None:
        opened.splits()  # says that there is nothing
    run = read_run(opened, problems)
    _compare_lists(names, run, problems)
    counted, size = _check_shards(opened, names, run, problems)
    index = np.concatenate([NOTHING.index, *(shard.index for shard in counted.values())])
    _name_duplicates(counted, index, problems)
    whole = all(shard.whole for shard in counted.values()) and not set(run.shards or ()) - set(names)
    reason: str | None = None
    if run.complete is False:
        notes.append("the run is unfinished: its other conversations come with --resume")
    elif not look_at_source:
        notes.append("missing conversations were not looked for, as asked")
    elif not whole:
        reason = NOT_LOOKED_FOR + "not all shards can be read"
    elif run.complete:
        reason = look_for_missing(opened, run, index, problems)
    if reason is not None:
        notes.append(reason)
    return Verification(
        name=opened.name,
        problems=problems.lines(),
        notes=notes,
        shards=len(names),
        conversations=len(index),
        tokens=sum(shard.tokens for shard in counted.values()),
        size=size,
        missing_unknown=reason is not None,
        advice=_advice(run, problems.kinds, len({shard.run for shard in counted.values()}) == 1),
    )


def verification_text(found: Verification) -> str:
    """The problems, the notes, and a line of what was looked at."""
    looked_at = (
        f"{visible(found.name)}: looked at {found.shards:,} shards, {found.conversations:,} conversations, "
        f"{found.tokens:,} tokens, {found.size:,} bytes"
    )
    verdict = found.verdict if found.sound else f"{found.verdict}, see above"
    lines = [*found.problems, *(f"note: {note}" for note in found.notes), f"{looked_at}: {verdict}"]
    return "\n".join([*lines, found.advice] if found.advice else lines)


def _advice(run: StoredRun, kinds: frozenset[str], agreeing: bool) -> str:
    """How to mend problems of these kinds.   agreeing: whether all shards say that they are of the same run."""
    of_checkpoint = {CHECKPOINT_KIND}
    if agreeing:
        # One file says otherwise than all the others: it is the one that was changed.
        of_checkpoint |= {OTHER_TEACHER} | ({OTHER_RUN, _OTHER_NAMES} if OTHER_RUN in kinds else set())
    shards = kinds - of_checkpoint - MISSING_KINDS
    # Without a list of the shards a run can't be continued either.
    checkpoint = bool(of_checkpoint & kinds) and (not shards or run.shards is None)
    return " ".join([_CHECKPOINT_ADVICE] * checkpoint + [_ADVICE] * bool(shards))


def _compare_lists(names: list[str], run: StoredRun, problems: Problems) -> None:
    """Name the shards that only the folder or only checkpoint.json has."""
    if run.shards is not None:
        for name in sorted(set(run.shards) - set(names)):
            problems.add("shards that are gone", f"{one_line(name)}: {CHECKPOINT} lists it, and it is not there")
        for name in sorted(set(names) - set(run.shards)):
            problems.add("shards that are not listed", f"{one_line(name)}: {CHECKPOINT} does not list it")
    split = (run.metadata or {}).get("source_split")
    for name in names:
        number = shard_number(name)
        if number is None:
            problems.add("files that are no shards", f"{one_line(name)}: this is not what a shard is called")
        elif run.fingerprint and isinstance(split, str) and name != shard_name(split, run.fingerprint, number):
            problems.add(_OTHER_NAMES, f"{one_line(name)}: a shard of this run and split has another name")


def _check_shards(
    source: Source, names: list[str], run: StoredRun, problems: Problems
) -> tuple[dict[str, Counted], int]:
    """What stands in each shard, and the bytes of all."""
    counted: dict[str, Counted] = {}
    size = 0
    with progress("verifying", len(names), "shards") as shown:
        for name in names:
            try:
                own = source.size(name)
                counted[name] = _check_shard(source, name, own, run, problems)
                size += own
            except OSError as error:
                problems.add(UNREADABLE, f"{one_line(name)}: can't be read ({error.strerror or error})")
                counted[name] = NOTHING
            shown.advance(note=f"{sum(len(shard.index) for shard in counted.values()):,} conversations")
    return counted, size


def _check_shard(source: Source, name: str, size: int, run: StoredRun, problems: Problems) -> Counted:
    """Fetch and check a shard; one that comes wrong from the Hub is fetched again before it is called wrong."""
    if not size:
        problems.add(UNREADABLE, f"{one_line(name)}: is empty, 0 bytes")
        return NOTHING
    listed: Listed | None = (run.shards or {}).get(name)
    for left in reversed(range(source.tries)):
        try:
            with source.fetched(name) as file:
                check = ShardCheck(name, file, listed, run, problems)
                if not left or (file.stat().st_size == size and check.bytes_agree):
                    return check.check()
        except (FormatError, OSError):
            if not left:
                raise
    raise AssertionError("a source is tried at least once")


def _name_duplicates(counted: dict[str, Counted], index: np.ndarray, problems: Problems) -> None:
    """Name the conversations that are stored more than once, with the first two shards they stand in."""
    names = list(counted)
    shards = np.repeat(np.arange(len(names)), [len(shard.index) for shard in counted.values()])
    order = np.argsort(index, kind="stable")
    again = np.flatnonzero(np.diff(index[order]) == 0)
    # Third and later copies are no problems of their own.
    again = again[np.unique(index[order][again], return_index=True)[1]]
    lines = []
    for place in again[:MOST_OF_A_KIND].tolist():
        one, other = (names[shards[order[at]]] for at in (place, place + 1))
        where = f"twice in {one_line(one)}" if one == other else f"in {one_line(one)} and in {one_line(other)}"
        lines.append(f"conversation {index[order[place]]} is stored {where}")
    problems.add_some("conversations that are stored more than once", lines, len(again))
