"""checkpoint.json: what an output holds and how it was made."""

import json
from dataclasses import dataclass, field
from typing import Any

from teacher_logits.errors import OutputError
from teacher_logits.files import json_bytes
from teacher_logits.shards import FORMAT_VERSION, ShardFigures

CHECKPOINT_FILE = "checkpoint.json"
SKIPPED_FILE = "skipped.jsonl"
CARD_FILE = "README.md"


@dataclass
class Checkpoint:
    """The content of checkpoint.json."""

    fingerprint: str
    config: dict[str, Any]
    """Every option, by its field's name."""
    metadata: dict[str, Any]
    """As in the shards' schema, with the text of the chat template."""
    complete: bool = False
    shards: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Path -> rows, tokens, sha256, and figures for the card."""

    @property
    def shard_metadata(self) -> dict[str, Any]:
        """What every shard carries: the metadata without the text of the template, whose hash is enough there."""
        return {key: value for key, value in self.metadata.items() if key != "chat_template"}

    @property
    def total_samples(self) -> int:
        """Conversations in the shards."""
        return sum(shard["rows"] for shard in self.shards.values())

    @property
    def total_tokens(self) -> int:
        """Assistant tokens in the shards."""
        return sum(shard["tokens"] for shard in self.shards.values())

    @property
    def figures(self) -> ShardFigures | None:
        """The sums over the shards; None where they aren't known of all."""
        return ShardFigures.of_entries(self.shards.values())

    def content(self) -> bytes:
        """The file's bytes."""
        return json_bytes(
            {
                "format_version": FORMAT_VERSION,
                "fingerprint": self.fingerprint,
                "complete": self.complete,
                "total_samples": self.total_samples,
                "total_tokens": self.total_tokens,
                "shards": self.shards,
                "config": self.config,
                "metadata": self.metadata,
            }
        )

    @classmethod
    def parse(cls, content: bytes, where: str) -> "Checkpoint":
        """Read the file's bytes. Raises OutputError where they aren't a checkpoint of this format version."""
        try:
            values = json.loads(content)
            version = values["format_version"]
            read = cls(
                values["fingerprint"], values["config"], values["metadata"], values["complete"], values["shards"]
            )
            _require_shape(read)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise OutputError(
                f"The {CHECKPOINT_FILE} of {where} can't be read ({error!r}). Begin anew with --force-restart, or "
                "choose another --output."
            ) from error
        if version != FORMAT_VERSION:
            raise OutputError(
                f"{where} has format version {version!r}, and this program writes {FORMAT_VERSION}. Choose another "
                "--output, or the version of teacher-logits that began it."
            )
        return read


def _require_shape(read: Checkpoint) -> None:
    """Raise TypeError or KeyError where a part has another type than it should."""
    for part in (read.config, read.metadata, read.shards):
        if not isinstance(part, dict):
            raise TypeError(f"expected an object, found {type(part).__name__}")
    for shard in read.shards.values():
        int(shard["rows"]), int(shard["tokens"]), str(shard["sha256"])
