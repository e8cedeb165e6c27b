"""One shard after another to the output: uploaded, committed, removed from the spool, in that order."""

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from teacher_logits.errors import UploadError
from teacher_logits.hub.checkpoint import CHECKPOINT_FILE, SKIPPED_FILE, Checkpoint
from teacher_logits.hub.repository import Addition, Repository, Snapshot
from teacher_logits.hub.retries import keep_trying
from teacher_logits.journal import ShardState, SkippedLog, Spool, SpooledShard

Card = Callable[[Checkpoint], Mapping[str, bytes]]
"""README.md and its pictures, by their paths."""


class Committer:
    """Brings spooled shards to the output, with the card, the list of what was left out, and checkpoint.json.

    What fails and may pass is tried again for `retry_seconds`. Raises UploadErrors for what doesn't pass; whatever the
    output hasn't taken is still in the spool then.
    """

    def __init__(
        self,
        repository: Repository,
        spool: Spool,
        checkpoint: Checkpoint,
        skipped: SkippedLog,
        card: Card,
        retry_seconds: float,
    ) -> None:
        """checkpoint: what the output holds already.   card: makes README.md and its pictures."""
        self._repository, self._spool = repository, spool
        self._skipped, self._card, self._retry_seconds = skipped, card, retry_seconds
        self.checkpoint = checkpoint
        """What the output holds."""
        self.hurry = threading.Event()
        """Once set, nothing is waited for between two attempts."""
        self.busy = False
        """Whether something is under way to the output."""

    def announce(self) -> None:
        """Where a commit's files appear one by one, say whose the output is before its first shard appears."""
        if not (self._repository.whole_commits or self.checkpoint.shards):
            self.commit([], complete=False)

    def upload(self, shard: SpooledShard) -> None:
        """Bring a shard's bytes to the output, which doesn't show them yet. Doing it again is harmless."""
        self._try(lambda: self._repository.upload(shard.name, shard.path), lambda: False)
        shard.state = ShardState.UPLOADED

    def commit(self, shards: Sequence[SpooledShard], complete: bool) -> None:
        """Have the output show some shards, all in one step, and drop them from the spool.

        complete: whether the output has everything then.
        """
        checkpoint = dataclasses.replace(
            self.checkpoint,
            shards=self.checkpoint.shards | {shard.name: shard.entry() for shard in shards},
            complete=complete,
        )
        additions = self._additions(shards, checkpoint)
        title = f"Add {len(shards)} shards, {checkpoint.total_samples:,} conversations"
        title += " (complete)" if complete else ""
        self._require_what_was_committed()

        def landed() -> bool:
            found = self._repository.snapshot()
            self._refuse_foreign(found, checkpoint.shards)
            self._wait_for_ours(found)
            return found.checkpoint == additions[CHECKPOINT_FILE] and all(shard.name in found.files for shard in shards)

        self._try(lambda: self._repository.commit(additions, [], title), landed)
        self.checkpoint = checkpoint
        for shard in shards:
            shard.state = ShardState.COMMITTED
            self._spool.remove(shard)

    def _additions(self, shards: Sequence[SpooledShard], checkpoint: Checkpoint) -> dict[str, Addition]:
        additions: dict[str, Addition] = {shard.name: shard.path for shard in shards}
        additions |= self._card(checkpoint)
        if self._skipped.worth_listing:
            additions[SKIPPED_FILE] = self._skipped.content()
        additions[CHECKPOINT_FILE] = checkpoint.content()
        return additions

    def _try(self, action: Callable[[], None], landed: Callable[[], bool]) -> None:
        self.busy = True
        try:
            keep_trying(action, landed, self._retry_seconds, self.hurry)
        finally:
            self.busy = False

    def _require_what_was_committed(self) -> None:
        """Raise UploadError where committed shards are gone."""
        gone = self._repository.missing(self.checkpoint.shards)
        if gone:
            raise UploadError(f"{self._gone(gone)}. Go on with --resume, which computes their conversations again.")

    def _wait_for_ours(self, found: Snapshot) -> None:
        """Raise an error that may pass where committed shards are gone: what is read may lag behind the commits."""
        gone = [path for path in self.checkpoint.shards if path not in found.files]
        if gone:
            raise ConnectionError(self._gone(gone))

    def _gone(self, shards: Sequence[str]) -> str:
        return f"{shards[0]} is not in {self._repository.address} any more ({len(shards)} shards are gone)"

    def _refuse_foreign(self, found: Snapshot, ours: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise UploadError where the output has shards that this run didn't write: by their names, or, since another
        machine with the same run gives the same names, by their content."""
        known = {shard.name: shard.entry() for shard in self._spool.shards} | dict(ours)
        foreign = [
            path for path in found.shards if path not in known or found.files[path] not in (None, known[path]["sha256"])
        ]
        if foreign:
            raise UploadError(
                f"Another run writes to {self._repository.address}: {foreign[0]} appeared meanwhile. Stop one of them, "
                "then go on with --resume, which takes over what the other has done."
            )
