"""The run that an output says it holds: checkpoint.json, read as far as it can be, whatever stands in it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from teacher_logits.exploring.runs import CHECKPOINT
from teacher_logits.exploring.sources import Source
from teacher_logits.exploring.verifying.problems import Problems, one_line, shown
from teacher_logits.settings import FINGERPRINT_FIELDS, fingerprint
from teacher_logits.shards import FORMAT_VERSION

CHECKPOINT_KIND = f"problems of {CHECKPOINT}"
_UNCHECKED = "hashes, counts and missing conversations could not be checked"


@dataclass(frozen=True)
class Listed:
    """What checkpoint.json says of a shard."""

    rows: int
    tokens: int
    sha256: str


@dataclass(frozen=True)
class StoredRun:
    """The parts of checkpoint.json that can be used; those that can't are empty or None."""

    fingerprint: str | None = None
    complete: bool | None = None
    shards: Mapping[str, Listed | None] | None = None
    """By path; a shard's value is None where its entry can't be used. All None where there is no list."""
    config: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] | None = None


def read_run(source: Source, problems: Problems) -> StoredRun:
    """Read checkpoint.json and compare it with itself."""
    values = _values(source, problems)
    if values is None:
        return StoredRun()
    parts: dict[str, dict[str, Any] | None] = {}
    for name in ("config", "metadata", "shards"):
        parts[name] = values.get(name) if isinstance(values.get(name), dict) else None
        if parts[name] is None:
            problems.add(CHECKPOINT_KIND, f"{CHECKPOINT}: {name} is missing or no object")
    if values.get("format_version") != FORMAT_VERSION or isinstance(values["format_version"], bool):
        version = shown(values.get("format_version"))
        problems.add(
            CHECKPOINT_KIND, f"{CHECKPOINT}: the format version is {version}; this program knows {FORMAT_VERSION}"
        )
    complete = values.get("complete")
    if not isinstance(complete, bool):
        problems.add(CHECKPOINT_KIND, f"{CHECKPOINT}: complete is {shown(complete)}, neither true nor false")
        complete = None
    shards = None
    if parts["shards"] is not None:
        shards = {path: _entry(path, entry, problems) for path, entry in parts["shards"].items()}
        _check_totals(values, shards, problems)
    return StoredRun(
        fingerprint=_checked_fingerprint(values.get("fingerprint"), parts["metadata"], problems),
        complete=complete,
        shards=shards,
        config=parts["config"],
        metadata=parts["metadata"],
    )


def _values(source: Source, problems: Problems) -> dict[str, Any] | None:
    """The file's content; None where there is no object in it."""
    try:
        content = source.read(CHECKPOINT)
    except OSError as error:
        problems.add(CHECKPOINT_KIND, f"{CHECKPOINT} can't be read ({error.strerror or error}): {_UNCHECKED}")
        return None
    if content is None:
        problems.add(CHECKPOINT_KIND, f"{CHECKPOINT} is not there: {_UNCHECKED}")
        return None
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        problems.add(CHECKPOINT_KIND, f"{CHECKPOINT} is not JSON ({one_line(str(error))}): {_UNCHECKED}")
        return None
    if not isinstance(values, dict):
        problems.add(CHECKPOINT_KIND, f"{CHECKPOINT} holds {shown(values)}, not an object: {_UNCHECKED}")
        return None
    return values


def _entry(path: str, entry: Any, problems: Problems) -> Listed | None:
    if isinstance(entry, dict):
        rows, tokens, sha256 = (entry.get(name) for name in ("rows", "tokens", "sha256"))
        if is_count(rows) and is_count(tokens) and isinstance(sha256, str):
            return Listed(rows, tokens, sha256)
    problems.add(
        f"shards whose entry in {CHECKPOINT} can't be used",
        f"{one_line(path)}: its entry in {CHECKPOINT} is {shown(entry)}, not rows, tokens and sha256",
    )
    return None


def _check_totals(values: Mapping[str, Any], shards: Mapping[str, Listed | None], problems: Problems) -> None:
    entries = [entry for entry in shards.values() if entry is not None]
    if len(entries) < len(shards):
        return
    sums = {"total_samples": sum(entry.rows for entry in entries), "total_tokens": sum(e.tokens for e in entries)}
    for name, total in sums.items():
        if not is_count(values.get(name)) or values[name] != total:
            told = shown(values.get(name))
            problems.add(CHECKPOINT_KIND, f"{CHECKPOINT}: {name} is {told}, and its shards add up to {total}")


def _checked_fingerprint(stored: Any, metadata: Mapping[str, Any] | None, problems: Problems) -> str | None:
    if not isinstance(stored, str):
        problems.add(CHECKPOINT_KIND, f"{CHECKPOINT}: the fingerprint is {shown(stored)}, not a hash")
        return None
    if metadata is not None and (reason := fingerprint_problem(stored, metadata)):
        problems.add(CHECKPOINT_KIND, f"{CHECKPOINT}: {reason}")
    return stored


def fingerprint_problem(stored: str, metadata: Mapping[str, Any]) -> str | None:
    """Why `stored` isn't the fingerprint of the metadata; None where it is."""
    missing = [name for name in FINGERPRINT_FIELDS if name not in metadata]
    if missing:
        return f"the metadata lacks {', '.join(missing)}"
    try:
        found = fingerprint(metadata)
    except (ValueError, TypeError, RecursionError) as error:
        return f"the metadata has no fingerprint ({one_line(str(error))})"
    if found != stored:
        return f"the fingerprint is {one_line(stored[:16])}..., and that of the metadata {found[:16]}..."
    return None


def is_count(value: Any) -> TypeGuard[int]:
    """Whether a JSON value is a whole number from 0 that something here can have so many of."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
