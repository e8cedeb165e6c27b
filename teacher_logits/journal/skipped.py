"""Conversations that were left out, with the reason: skipped.jsonl."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from teacher_logits.files import write_bytes


class SkippedLog:
    """The source numbers that were left out. One reason each; a conversation that is stored after all is dropped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reasons: dict[int, str] = _parse(path.read_text()) if path.is_file() else {}
        self._saved = dict(self._reasons)
        self._ever = bool(self._reasons)

    def __len__(self) -> int:
        return len(self._reasons)

    @property
    def worth_listing(self) -> bool:
        """Whether an output needs the file: there are entries, or there were some that it may still list."""
        return self._ever

    def add(self, index: int, reason: str) -> None:
        """Leave a conversation out."""
        self._reasons[index] = reason
        self._ever = True

    def merge(self, text: str) -> None:
        """Take over what an output's skipped.jsonl says of other conversations."""
        self._reasons = _parse(text) | self._reasons
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


def _parse(text: str) -> dict[int, str]:
    entries = (json.loads(line) for line in text.splitlines() if line.strip())
    return {int(entry["index"]): str(entry["reason"]) for entry in entries}
