"""Short ways to open a source and to see what it gives."""

from pathlib import Path
from typing import Any

from teacher_logits.conversations import Source, Unusable, open_source
from teacher_logits.records import Conversation
from teacher_logits.settings import SourceOptions
from tests.tiny import write_jsonl


def opened(path: Path | str, **options: Any) -> Source:
    return open_source(SourceOptions(dataset=str(path), **options))


def of_rows(folder: Path, rows: list[dict[str, Any]], **options: Any) -> Source:
    return opened(write_jsonl(folder / "rows.jsonl", rows), **options)


def found(source: Source) -> list[Conversation | str]:
    """Its conversations in order; in place of one that can't be used, the reason."""
    return [str(c) if isinstance(c, Unusable) else c for c in source.conversations(source.rows)]


def contents(source: Source) -> list[list[str] | str]:
    """The same, each conversation as the contents of its messages."""
    return [c if isinstance(c, str) else [message["content"] for message in c.messages] for c in found(source)]
