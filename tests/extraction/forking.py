"""The process behind `runs.ForkServer`: reads JSON lists from stdin, forks for each "run", answers on stdout."""

import importlib
import json
import os
import signal
import sys
import time


def become(face: str, typed: str, out: str, err: str, arguments: list[str]) -> None:
    """Be the command from here on: its standard streams, its arguments, its clock."""
    for descriptor, path in ((0, typed), (1, out), (2, err)):
        opened = os.open(path, os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(opened, descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    sys.argv = [f"{face}.py", *arguments]
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as the face does
    stop = importlib.import_module("teacher_logits.extraction.stop")
    stop.TimedShutdown.__init__.__defaults__ = (0.0, time.monotonic())
    importlib.import_module(f"teacher_logits.command_line.{face}").run()


def serve() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("extraction.extract", "extraction.compute_lengths", "command_line.extract", "command_line.lengths"):
        importlib.import_module(f"teacher_logits.{name}")
    importlib.import_module("transformers.models.llama.modeling_llama")
    importlib.import_module("datasets")
    child = 0
    for line in sys.stdin:
        what, *words = json.loads(line)
        if what == "run":
            child = os.fork()
            if child == 0:
                face, typed, out, err, *arguments = words
                become(face, typed, out, err, arguments)
                os._exit(99)
            answer = str(child)
        else:
            answer = str(os.waitpid(child, 0)[1]) if what == "wait" else what
        os.write(1, f"{answer}\n".encode())


if __name__ == "__main__":
    serve()
