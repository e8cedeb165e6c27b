"""What the commands share: how they report, and how libraries are kept from talking over them."""

import contextlib
import errno
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from teacher_logits.command_line.stopping import Stopped
from teacher_logits.errors import SettingsError, TeacherLogitsError
from teacher_logits.printable import visible

_FULL = (errno.ENOSPC, errno.EDQUOT)


class _BesideBars(logging.Handler):
    """Writes lines to stderr without tearing a progress bar. What they tell of the data can't steer the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with contextlib.suppress(OSError, ValueError):  # nobody reads any more: no reason to stop working
            tqdm.write(visible(self.format(record)), file=sys.stderr)


def share_cores() -> None:
    """Let torch's threads sleep soon while they wait for each other. To be called before torch is imported.

    OpenMP's own choice is to keep the core busy for milliseconds: that gains one per cent on an idle machine, and
    takes several times as long where other programs use the cores, too. What the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def set_up_reporting(level: int = logging.INFO) -> None:
    """Show this package's messages from a level on as plain lines on stderr, and only the others' errors."""
    logger = logging.getLogger("teacher_logits")
    logger.handlers = [_BesideBars()]
    logger.setLevel(level)
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
    datasets.logging.set_verbosity(logging.CRITICAL)  # its errors are raised, too
    huggingface_hub.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
        disable_progress_bars()


def exit_code_of(command: Callable[[], int], advice: str = "") -> int:
    """Run a command; an error a user can act on becomes one line on stderr and its exit code.

    advice: what to say beside an error of the operating system.
    """
    try:
        return command()
    except TeacherLogitsError as error:
        _complain(f"error: {error}")
        return error.exit_code
    except BrokenPipeError:
        _nobody_reads()
        return 1
    except Stopped as stopped:
        print(f"stopped by {signal.Signals(stopped.number).name}; run it again to begin anew", file=sys.stderr)
        return 128 + stopped.number
    except RuntimeError as error:
        if "home directory" not in str(error):  # what pathlib says of ~nobody
            raise
        _complain(f"error: {error} Give a path without ~.")
        return 2
    except OSError as error:
        logging.getLogger("teacher_logits").debug("failed", exc_info=True)
        told = f"the disk is full ({error.filename or 'of the output'})" if error.errno in _FULL else str(error)
        _complain(f"error: {told}. {advice}".rstrip())
        return 1


def _complain(text: str) -> None:
    print(visible(text), file=sys.stderr)


def leave(code: int) -> NoReturn:
    """End the process, with all that was printed.

    Not through the interpreter: the threads of libraries that read Parquet files can abort it while it ends, after all
    was right.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


def place_of(place: int | None, index: int | None) -> int | None:
    """The row that was asked for, by default the first; None where a number of the source was.

    Raises SettingsError for both.
    """
    if place is not None and index is not None:
        raise SettingsError(f"Give a place ({place}) or --index ({index}), not both.")
    return 0 if place is None and index is None else place


def say(text: str, result: bool = False, coloured: bool = False) -> None:
    """Print to stdout. A reader that has closed it, as `head` does, is no error.

    Nor is a full disk that it was to go to, or a terminal that is gone: the work is done. Unless the text is itself the
    `result`, for which nothing else stands.
    coloured: whether the text has colours of its own; then whoever painted it has made the data in it visible.
    """
    try:
        print(text if coloured else visible(text), flush=True)
    except OSError as error:
        _nobody_reads()
        if result and not isinstance(error, BrokenPipeError):
            raise


def _nobody_reads() -> None:
    """Point stdout elsewhere, so that nothing fails when the interpreter flushes it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
