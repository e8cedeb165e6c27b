"""What a run did, in numbers and in words."""

import shlex
from collections import Counter
from dataclasses import dataclass, field

from teacher_logits.settings import ExtractionConfig

SHOWN_REASONS = 10


@dataclass
class RunSummary:
    """Counted while a run works, shown at its end."""

    address: str
    """Where the output is."""
    command: str = "python extract_logits.py --resume"
    """Goes on with the run."""
    conversations: int = 0
    """Stored by this run."""
    tokens: int = 0
    nucleus_tokens: int = 0
    total_conversations: int = 0
    """In the output, with those of earlier runs."""
    total_tokens: int = 0
    bytes_per_token: float | None = None
    """As the shards of this run were written."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Conversations that were left out, by reason."""
    left: int = 0
    """Conversations still to do."""
    waiting: int = 0
    """Conversations that are computed and wait in the cache folder."""
    complete: bool = False
    seconds: float = 0.0
    """Spent on batches."""

    @property
    def mean_nucleus(self) -> float:
        """Tokens a nucleus, over this run's entries."""
        return self.nucleus_tokens / self.tokens if self.tokens else 0.0

    def text(self) -> str:
        """A few lines for the end of the run; the last says how to go on where something is left."""
        speed = f", {self.tokens / self.seconds:,.0f} tokens a second" if self.seconds and self.tokens else ""
        lines = [f"{self.conversations:,} conversations, {self.tokens:,} assistant tokens{speed}"]
        if not self.conversations and self.complete:
            lines = ["nothing left to do"]
        if self.tokens:
            size = f"{self.bytes_per_token:,.0f} bytes a token, " if self.bytes_per_token is not None else ""
            lines.append(f"{size}mean nucleus {self.mean_nucleus:.1f} tokens")
        for reason, count in self.skipped.most_common(SHOWN_REASONS):
            lines.append(f"skipped {count:,}: {reason}")
        if len(self.skipped) > SHOWN_REASONS:
            lines.append(f"skipped for {len(self.skipped) - SHOWN_REASONS:,} other reasons: see skipped.jsonl")
        lines.append(
            f"{self.address}: {self.total_conversations:,} conversations, {self.total_tokens:,} assistant tokens"
        )
        if self.left or self.waiting:
            waiting = f" and {self.waiting:,} that wait in the cache folder" if self.waiting else ""
            lines.append(f"stopped with {self.left:,} conversations left{waiting}; go on with: {self.command}")
        elif self.complete:
            lines.append("complete")
        return "\n".join(lines)


def resume_command(config: ExtractionConfig) -> str:
    """What to run to go on with the run of these options."""
    command = ["python", "extract_logits.py", "--resume"]
    if config.cache_dir != ExtractionConfig().cache_dir:
        command += ["--cache-dir", config.cache_dir]
    return shlex.join(command)
