"""`python compute_lengths.py`."""

import signal
from collections.abc import Sequence

from teacher_logits.command_line.shell import exit_code_of, leave, quiet_libraries, say, set_up_reporting
from teacher_logits.command_line.stopping import unwinding


def run() -> None:
    """The program. Until it works on something, Ctrl+C ends it at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    leave(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Options that can't be read leave through SystemExit(2)."""
    set_up_reporting()
    return exit_code_of(lambda: _compute(arguments), "Temporary files lie where TMPDIR says.")


def _compute(arguments: Sequence[str] | None) -> int:
    import tyro

    from teacher_logits.extraction.compute_lengths import LengthsConfig, compute_lengths

    options = tyro.cli(LengthsConfig, args=arguments, prog="compute_lengths.py")
    quiet_libraries()
    with unwinding():
        summary = compute_lengths(options)
    say(summary.text())
    return 0
