"""What the commands share: how they report, and how libraries are kept from talking over them."""

import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable

from teacher_logits.errors import TeacherLogitsError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class _BesideBars(logging.Handler):
    """Writes lines to stderr without tearing a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def set_up_reporting() -> None:
    """Show this package's messages as plain lines on stderr, and only the others' errors."""
    logger = logging.getLogger("teacher_logits")
    logger.handlers = [_BesideBars()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    warnings.filterwarnings("ignore", module="transformers|datasets|huggingface_hub")


def quiet_libraries() -> None:
    """Keep transformers and datasets from drawing bars and printing hints of their own."""
    import datasets
    import huggingface_hub
    import transformers
    from huggingface_hub.utils import disable_progress_bars

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
        disable_progress_bars()


def exit_code_of(command: Callable[[], int]) -> int:
    """Run a command; an error a user can act on becomes one line on stderr and its exit code."""
    try:
        return command()
    except TeacherLogitsError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.errno not in _FULL:
            raise
        print(
            f"error: the disk is full ({error.filename or error}). What was finished before is kept; make room and go "
            "on with --resume.",
            file=sys.stderr,
        )
        return 1


def leave(command: Callable[[], int]) -> None:
    """End the process with a command's code. A reader that closes the pipe early, as `head` does, is no error."""
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
