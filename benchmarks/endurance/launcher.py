"""The fork server of the trials: its runs wait hundredths of a second where the program waits seconds.

What is tried, how often, and what follows is the program's own; only the pauses between attempts and between commits
are short, so that hundreds of faults fit into minutes. Where QUICK_EXIT is in the environment, the interpreter isn't
taken down at the end of a run, which takes longer than all else in it.
"""

import gc
import importlib
import os
import sys
import time
from types import SimpleNamespace

SHORT = 0.02
"""Seconds."""
QUICK_EXIT = "ENDURANCE_QUICK_EXIT"
COMMIT_SECONDS = "ENDURANCE_COMMIT_SECONDS"
"""How far apart commits are, in seconds: one of these, by the number of the process. Nothing: 0."""


def hasten() -> None:
    """Shorten the client's waits and ours."""
    import huggingface_hub.file_download
    import huggingface_hub.utils._http

    from teacher_logits.hub import hub_repository, patience, retries

    hasty = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: time.sleep(min(seconds, SHORT))})
    huggingface_hub.utils._http.time = huggingface_hub.file_download.time = hasty
    waits = {"_FIRST_WAIT": SHORT / 2, "_LONGEST_WAIT": SHORT, "_PATIENT_WAITS": (SHORT / 2,) * 4}
    for name, value in waits.items():
        if hasattr(retries, name):
            setattr(retries, name, value)
    patience.SILENCE_SECONDS = float(os.environ["HF_HUB_DOWNLOAD_TIMEOUT"])
    seconds = [float(each) for each in os.environ.get(COMMIT_SECONDS, "0").split()]
    chosen = property(lambda self: seconds[os.getpid() % len(seconds)], lambda self, value: None)
    hub_repository.HubRepository.seconds_between_commits = chosen  # type: ignore[assignment,method-assign]


def quick_exit(code: int = 0) -> None:
    """End the process at once, with what it has printed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    from tests.extraction.forking import serve

    for name in ("extraction.extract", "command_line.extract"):
        importlib.import_module(f"teacher_logits.{name}")
    importlib.import_module("transformers.models.llama.modeling_llama")
    hasten()
    if QUICK_EXIT in os.environ:
        sys.exit = quick_exit  # type: ignore[assignment]
    gc.collect()
    gc.freeze()  # what is here stays shared with the runs
    serve()


if __name__ == "__main__":
    main()
