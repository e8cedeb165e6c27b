"""What a run keeps on this machine until the output has it: spooled shards, rows waiting for one, the run's options.

The state of a row has few words: it waits in the buffer (or, when a run stops, in `pending/`), is `written` in a
spooled shard, then committed to the output, and only then leaves the spool.
"""

from teacher_logits.journal.buffer import RowBuffer
from teacher_logits.journal.cache import RunCache
from teacher_logits.journal.known import KnownShards
from teacher_logits.journal.skipped import SkippedLog
from teacher_logits.journal.spool import ShardState, Spool, SpooledShard

__all__ = ["KnownShards", "RowBuffer", "RunCache", "ShardState", "SkippedLog", "Spool", "SpooledShard"]
