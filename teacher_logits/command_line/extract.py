"""`python extract_logits.py`. Nothing heavy is imported before the signal handlers stand."""

import contextlib
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from teacher_logits.command_line.shell import exit_code_of, quiet_libraries, say, set_up_reporting, share_cores
from teacher_logits.errors import SettingsError
from teacher_logits.extraction.stop import GracefulInterrupt

if TYPE_CHECKING:
    from teacher_logits.extraction.preview import MaskPreview
    from teacher_logits.settings import ExtractionConfig

_PROGRAM = "extract_logits.py"
_KEPT = "What is in shards or in the cache folder is kept; mend it and go on with --resume."


def run() -> None:
    """The program."""
    share_cores()
    if hasattr(signal, "SIGUSR1"):  # a warning that comes when all is done must not kill what is still being taken down
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with GracefulInterrupt() as stop:
        sys.exit(main(None, stop))


def main(arguments: Sequence[str] | None = None, stop: GracefulInterrupt | None = None) -> int:
    """Run the command and return its exit code. Options that can't be read leave through SystemExit(2)."""
    stop = stop or GracefulInterrupt()
    set_up_reporting()
    return exit_code_of(lambda: _extract(arguments, stop), _KEPT)


def _extract(arguments: Sequence[str] | None, stop: GracefulInterrupt) -> int:
    config = parse_args(arguments)
    quiet_libraries()
    from teacher_logits.extraction.extract import run_extraction
    from teacher_logits.extraction.preview import preview_mask

    if config.verify_mask_only:
        _show(preview_mask(config))
        return 0
    summary = run_extraction(config, stop, _confirm)
    say(summary.text())
    return stop.exit_code or int(config.upload_on_stop and summary.waiting > 0)


def parse_args(arguments: Sequence[str] | None = None) -> "ExtractionConfig":
    """The options of a command line: over those of --config, over those kept for --resume, over the defaults.

    Raises SettingsError for values that can't be used; a command line that can't be read leaves through
    SystemExit(2) with its reason.
    """
    import dataclasses

    from teacher_logits.settings import ExtractionConfig

    named = _parse(arguments, ExtractionConfig()).config
    filed = {} if named is None else _read_yaml(named)
    given = _parse(arguments, ExtractionConfig(**filed))
    base = _kept_options(given) if given.resume else ExtractionConfig()
    base = dataclasses.replace(base, **filed)
    if given.full_dataset:
        base = base.without_limits()
    return _parse(arguments, base).require_complete()


def _kept_options(given: "ExtractionConfig") -> "ExtractionConfig":
    """The options of the run that --resume continues; the defaults where it has none, but all options are given."""
    import dataclasses

    from teacher_logits.extraction.resume import stored_config
    from teacher_logits.settings import ExtractionConfig

    kept = stored_config(given.cache_dir, given.output)
    if kept is not None:
        # Whatever an output says, in whatever spelling: whether to trust a model's code is said anew.
        stored = ExtractionConfig.from_mapping(kept, "the stored run")
        return dataclasses.replace(stored, cache_dir=given.cache_dir, trust_remote_code=False)
    if given.output is None:
        raise SettingsError(
            f"--resume alone continues the run of the cache folder, but {given.cache_dir} holds none. Add --output "
            "to continue from what it holds, or give --model, --dataset and --output."
        )
    if not (given.model and given.dataset):
        _require_no_other(given)
        raise SettingsError(
            f"{given.output} holds no run, and neither does the cache folder {given.cache_dir}: nothing was written "
            "before it stopped. Continue with the run's own cache folder (--cache-dir), or begin again with --model, "
            "--dataset and --output."
        )
    return ExtractionConfig()


def _require_no_other(given: "ExtractionConfig") -> None:
    """Raise SettingsError where the cache folder holds the run of another output."""
    from pathlib import Path

    from teacher_logits.journal import RunCache

    kept = RunCache(Path(given.cache_dir).expanduser()).checkpoint()
    if kept is not None:
        raise SettingsError(
            f"{given.output} holds no run; the cache folder {given.cache_dir} holds one into {kept['output']}. "
            "Continue that with --resume alone, or give the right --output."
        )


def _parse(arguments: Sequence[str] | None, default: "ExtractionConfig") -> "ExtractionConfig":
    import tyro

    from teacher_logits.settings import ExtractionConfig

    return tyro.cli(ExtractionConfig, args=arguments, default=default, prog=_PROGRAM)


def _read_yaml(path: str) -> dict[str, Any]:
    """The options of a file, by field."""
    from pathlib import Path

    import yaml

    from teacher_logits.settings import ExtractionConfig

    try:
        content = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"--config {path} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"--config {path} should hold options such as 'limit: 1000', one a line.")
    return ExtractionConfig.read_options(content, f"--config {path}")


def _show(preview: "MaskPreview") -> None:
    """Print marked conversations: in colour on a terminal, else (and without termcolor) between [[ and ]]."""
    if not sys.stdout.isatty() or _coloured("x", "marked") == "x":
        say(preview.text())
        return
    legend = "  ".join(_coloured(words, kind) for kind, (words, *_) in _COLOURS.items())
    say(f"{legend}\n{preview.text(lambda seen: seen.painted(_coloured))}", coloured=True)


_COLOURS = {
    "marked": ("marked: their distributions are stored", "black", "on_green"),
    "assistant": ("the assistant's, not marked", "red"),
    "user": ("user", "cyan"),
    "system": ("system", "yellow"),
    "tool": ("others", "magenta"),
    "template": ("the template's", "dark_grey"),
}
"""By kind of token: its name in the legend, and termcolor's colours."""


def _coloured(text: str, kind: str) -> str:
    """The text in the colour of its kind, line by line; as it is without termcolor, or where that is told not to."""
    with contextlib.suppress(ImportError):
        from termcolor import colored

        _, *colours = _COLOURS.get({"developer": "system"}.get(kind, kind), _COLOURS["tool"])
        shown = text.replace("\n", "↵\n") if kind == "marked" else text  # a coloured line break can't be seen
        return "\n".join(colored(line, *colours) if line else line for line in shown.split("\n"))
    return text


def _confirm(preview: "MaskPreview") -> bool:
    """Show marked conversations; ask only where there is somebody to answer."""
    _show(preview)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    print("\nGo on? [Y/n] ", end="", flush=True)  # input() would ask on stderr, which may go elsewhere
    try:
        return input().strip().lower() in ("", "y", "yes")
    except EOFError:
        return False
