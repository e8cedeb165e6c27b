"""Whether every conversation that a finished run selected is stored, or listed as left out."""

import numpy as np

from teacher_logits.errors import TeacherLogitsError
from teacher_logits.exploring.runs import config_of, open_chats, seen_from_here
from teacher_logits.exploring.sources import Source
from teacher_logits.exploring.summary import SKIPPED
from teacher_logits.exploring.verifying.problems import Problems, one_line
from teacher_logits.exploring.verifying.run import StoredRun
from teacher_logits.records import Int64

_NAMED = 10
"""Conversations that are named of many."""
MISSING_KINDS = frozenset({"missing", "both", "foreign"})
"""The kinds of problems that are told here. They name no shard."""
NOT_LOOKED_FOR = "missing conversations could not be looked for: "


def look_for_missing(source: Source, run: StoredRun, stored: Int64, problems: Problems) -> str | None:
    """Compare `stored`, the source numbers in all shards, with what the run's options select from its source.

    Returns why that wasn't possible, in one line, or None. Where it says so the source may simply have moved.
    """
    try:
        config = config_of(seen_from_here(run.config or {}, source))
        config.require_complete()
        chats = open_chats(config, run.metadata or {})
        wanted = (run.metadata or {}).get("source_content")
        if chats.content != wanted:
            return (
                f"{NOT_LOOKED_FOR}{one_line(str(config.dataset))} is not what the run read (its content is "
                f"{one_line(chats.content)}, that of the run {one_line(str(wanted))})"
            )
        from teacher_logits.conversations import select_rows

        selected = chats.index[select_rows(chats, config)]
    except (TeacherLogitsError, OSError, ValueError, TypeError, LookupError) as error:
        return NOT_LOOKED_FOR + one_line(str(error), 300)
    skipped = _skipped(source)
    missing = np.setdiff1d(selected, np.union1d(stored, skipped))
    if len(missing):
        problems.add("missing", f"{_counted(missing, 'neither stored nor listed in ' + SKIPPED)}")
    both = np.intersect1d(stored, skipped)
    if len(both):
        problems.add("both", f"{_counted(both, 'stored, and listed in ' + SKIPPED + ' all the same')}")
    foreign = np.setdiff1d(stored, chats.index)
    if len(foreign):
        problems.add("foreign", f"{_counted(foreign, 'stored, and the source has none of that number')}")
    return None


def _skipped(source: Source) -> Int64:
    """The source numbers that are listed as left out."""
    from teacher_logits.journal.skipped import parse_skipped

    listed = parse_skipped((source.read(SKIPPED) or b"").decode("utf-8", "replace"))
    return np.array([index for index in listed if abs(index) < 1 << 62], np.int64)


def _counted(numbers: Int64, what: str) -> str:
    """'3 conversations are neither ...: 4, 7, 9'"""
    named = ", ".join(map(str, numbers[:_NAMED].tolist())) + (", ..." if len(numbers) > _NAMED else "")
    subject = "1 conversation is" if len(numbers) == 1 else f"{len(numbers):,} conversations are"
    return f"{subject} {what}: {named}"
