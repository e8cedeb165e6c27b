"""What an `--output` means: a folder on this machine, or a dataset on the Hub."""

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


def touches(dataset: str, output: str) -> bool:
    """Whether an `--output` is the `--dataset` itself, or one of them lies inside the other, so that writing the one
    would change the other."""
    if not is_folder(output):
        owner_and_name = dataset.removeprefix("hf://datasets/").split("/")[:2]
        return "/".join(owner_and_name).split("@")[0] == output
    source, folder = Path(dataset.removeprefix("file://")).expanduser(), local_folder(output).resolve()
    while glob.has_magic(str(source)) and not source.exists():
        source = source.parent
    source = source.resolve()
    return source.exists() and (source == folder or folder in source.parents or source in folder.parents)
