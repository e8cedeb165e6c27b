"""Extract a teacher's logits over a chat dataset: `python extract_logits.py --model M --dataset D --output O`.

`python extract_logits.py --resume` continues the run of the cache folder. The names below can be imported from here;
they are loaded when they are first used, so that signal handlers stand before torch does.
"""

import importlib
import signal
from typing import Any

_HOMES = {
    "AsyncPostProcessor": "extraction.postprocess",
    "ConversationDataset": "conversations",
    "ExtractionConfig": "settings",
    "GPUBatchResult": "extraction.batches",
    "GracefulInterrupt": "extraction.stop",
    "StreamingHFUploader": "hub",
    "TimedShutdown": "extraction.stop",
    "TokenBudgetBatchSampler": "batching",
    "cpu_postprocess_batch": "extraction.batches",
    "get_transform_fn": "conversations",
    "gpu_process_batch": "extraction.batches",
    "pack_indices": "codec",
    "parse_args": "command_line.extract",
    "prepare_dataset": "conversations",
    "run_extraction": "extraction.extract",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'extract_logits' has no attribute {name!r}")
    return getattr(importlib.import_module(f"teacher_logits.{_HOMES[name]}"), name)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback until the program's own handlers stand

    from teacher_logits.command_line.extract import run

    run()
