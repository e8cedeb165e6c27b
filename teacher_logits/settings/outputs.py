"""What an `--output` means: a folder on this machine, or a dataset on the Hub."""

import fnmatch
import glob
from pathlib import Path


def is_folder(output: str) -> bool:
    """Whether `--output` names a folder on this machine and not a Hub dataset."""
    return output.startswith((".", "/", "~", "file://"))


def local_folder(output: str) -> Path:
    """The folder that an `--output` for which `is_folder` holds means."""
    return Path(output.removeprefix("file://")).expanduser()


def same_output(one: str, other: str) -> bool:
    """Whether two `--output`s mean the same place."""
    if is_folder(one) and is_folder(other):
        return local_folder(one).resolve() == local_folder(other).resolve()
    return one == other


def absolute_output(output: str) -> str:
    """An `--output` that means the same place from any working folder."""
    return str(local_folder(output).resolve()) if is_folder(output) else output


def pattern_base(pattern: Path) -> Path:
    """The folder below which everything lies that fits a pattern of files; a path that is no pattern, as it is."""
    while glob.has_magic(str(pattern)):
        pattern = pattern.parent
    return pattern


def touches(dataset: str, output: str) -> bool:
    """Whether an `--output` is the `--dataset` itself, or one of them lies inside the other, so that writing the one
    would change the other."""
    if not is_folder(output):
        owner_and_name = dataset.removeprefix("hf://datasets/").split("/")[:2]
        return "/".join(owner_and_name).split("@")[0] == output
    source, folder = Path(dataset.removeprefix("file://")).expanduser(), local_folder(output).resolve()
    if glob.has_magic(str(source)) and not source.exists():
        return _pattern_touches(source, folder)
    source = source.resolve()
    return source.exists() and (source == folder or folder in source.parents or source in folder.parents)


def _pattern_touches(pattern: Path, folder: Path) -> bool:
    """Whether a file that fits the pattern, now or later, lies in the folder; links that are there are followed."""
    base = pattern_base(pattern)
    rest, base = pattern.relative_to(base).parts, base.resolve()
    if not base.exists():
        return False
    if base == folder or folder in base.parents:
        return True
    if base in folder.parents and _fits_inside(rest, folder.relative_to(base).parts):
        return True
    there = glob.iglob(str(pattern), recursive=True)  # noqa: PTH207 (of any folder)
    return any(folder in Path(name).resolve().parents for name in there)


def _fits_inside(pattern: tuple[str, ...], folder: tuple[str, ...]) -> bool:
    """Whether some path inside a folder fits a pattern, as `glob` takes it; both part by part, from one base on."""
    if not folder or not pattern:
        return bool(pattern)  # what is left of it fits something in there
    if pattern[0] == "**":
        return _fits_inside(pattern[1:], folder) or (_fits("*", folder[0]) and _fits_inside(pattern, folder[1:]))
    return _fits(pattern[0], folder[0]) and _fits_inside(pattern[1:], folder[1:])


def _fits(pattern: str, name: str) -> bool:
    """Hidden names fit only what begins with a dot itself."""
    return (pattern.startswith(".") or not name.startswith(".")) and fnmatch.fnmatchcase(name, pattern)
