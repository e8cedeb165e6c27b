"""`python compute_lengths.py`."""

import signal
import sys
from collections.abc import Sequence

from teacher_logits.command_line.shell import exit_code_of, quiet_libraries, say, set_up_reporting


def run() -> None:
    """The program. Nothing is lost when it is stopped, so Ctrl+C ends it at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Options that can't be read leave through SystemExit(2)."""
    set_up_reporting()
    return exit_code_of(lambda: _compute(arguments))


def _compute(arguments: Sequence[str] | None) -> int:
    import tyro

    from teacher_logits.extraction.compute_lengths import LengthsConfig, compute_lengths

    options = tyro.cli(LengthsConfig, args=arguments, prog="compute_lengths.py")
    quiet_libraries()
    say(compute_lengths(options).text())
    return 0
