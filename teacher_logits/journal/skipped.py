"""Conversations that were left out, with the reason: skipped.jsonl."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from teacher_logits.files import write_bytes

LONGEST_REASON = 200


class SkippedLog:
    """The source numbers that were left out. One reason each; a conversation that is stored after all is dropped."""

    def __init__(self, path: Path, empty: bool = False) -> None:
        """empty: pass over what the file holds."""
        self._path = path
        kept = path.is_file() and not empty
        self._reasons: dict[int, str] = parse_skipped(path.read_text("utf-8", errors="replace")) if kept else {}
        self._saved = dict(self._reasons)
        self._ever = bool(self._reasons)

    def __len__(self) -> int:
        return len(self._reasons)

    @property
    def worth_listing(self) -> bool:
        """Whether an output needs the file: there are entries, or there were some that it may still list."""
        return self._ever

    def add(self, index: int, reason: str) -> None:
        """Leave a conversation out. Reasons may quote the data: they are cut, and what isn't printable is escaped."""
        shown = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in reason[:LONGEST_REASON])
        self._reasons[index] = shown + ("..." if len(reason) > LONGEST_REASON else "")
        self._ever = True

    def merge(self, text: str) -> None:
        """Take over what an output's skipped.jsonl says of other conversations."""
        self._reasons = parse_skipped(text) | self._reasons
        self._ever |= bool(self._reasons)

    def drop(self, indices: Iterable[int]) -> None:
        """Take back conversations that are stored."""
        for index in indices:
            self._reasons.pop(index, None)

    def counts(self) -> Counter[str]:
        """How many conversations by reason."""
        return Counter(self._reasons.copy().values())

    def content(self) -> bytes:
        """The file's content, by rising number."""
        lines = (
            json.dumps({"index": index, "reason": reason}, ensure_ascii=False) + "\n"
            for index, reason in sorted(self._reasons.copy().items())
        )
        return "".join(lines).encode()

    def save(self) -> None:
        """Keep it in the cache folder, where anything has changed."""
        if self._reasons != self._saved:
            write_bytes(self._path, self.content())
            self._saved = dict(self._reasons)


def parse_skipped(text: str) -> dict[int, str]:
    """The entries of a file. Lines that can't be read are passed over: they say nothing that a run depends on."""
    found: dict[int, str] = {}
    for line in text.split("\n"):
        try:
            entry = json.loads(line)
            found[int(entry["index"])] = str(entry["reason"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            continue
    return found
