"""The files of a local dataset: which they are, of what kind, in what order."""

import glob
import json
import os
from collections.abc import Iterable
from pathlib import Path

from teacher_logits.errors import DatasetError

DATA_SUFFIXES = (".jsonl", ".json", ".parquet", ".arrow", ".csv", ".tsv")
LENGTHS_RECORD = "lengths.json"
"""At the root of a dataset that compute_lengths.py wrote: what its lengths were counted with."""
_NO_ROWS = (LENGTHS_RECORD, "checkpoint.json", "skipped.jsonl")
"""Files that this program puts beside rows."""
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


def data_suffix(path: Path) -> str | None:
    """Which of `DATA_SUFFIXES` a file's name has, before that of a compression; None where it has none."""
    suffix = Path(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix
    return suffix if suffix in DATA_SUFFIXES else None


def local_path(address: str) -> Path:
    """The path that an address means here. `$HOME` and `~` are replaced, as `datasets` does with every path it gets."""
    return Path(os.path.expandvars(address.removeprefix("file://"))).expanduser()


def is_pattern(address: str) -> bool:
    """Whether an address stands for all files that fit it."""
    return glob.has_magic(address)


def data_files(path: Path) -> list[Path]:
    """The files that hold a local dataset's rows: the file itself, what a saved dataset lists, or all data files."""
    if path.is_file():
        return [path]
    state = path / "state.json"
    if state.is_file():
        return [path / entry["filename"] for entry in json.loads(state.read_text())["_data_files"]]
    if (path / "dataset_dict.json").is_file():
        return sorted(path.glob("*/*.arrow"))
    beside = {path / name for name in _NO_ROWS}
    every = (file for file in path.rglob("*") if data_suffix(file) and file.parent.name != "assets")
    return sorted(file for file in every if file not in beside)


def matching_files(pattern: Path) -> list[Path]:
    """The data files that fit a pattern such as `data/*.jsonl` or `data/**/*.parquet`, by their paths' order.

    Raises DatasetError where there are none, or of several kinds.
    """
    files = sorted(Path(name) for name in glob.glob(str(pattern), recursive=True))  # noqa: PTH207 (of any folder)
    files = [file for file in files if file.is_file() and data_suffix(file)]
    if not files:
        raise DatasetError(f"No file fits {pattern} that is of a kind that is read ({', '.join(DATA_SUFFIXES)}).")
    require_one_kind(files, f"{pattern} fits", str(pattern.parent))
    return files


def require_one_kind(files: Iterable[Path], holder: str, folder: str) -> None:
    """Raise DatasetError where the files are of several kinds; `holder` says who has them, as 'The folder x holds'."""
    kinds = sorted({data_suffix(file) or file.suffix for file in files})
    if len(kinds) > 1:
        raise DatasetError(
            f"{holder} {', '.join(kinds[:-1])} and {kinds[-1]} files. Name one file, or a folder of one kind, or "
            f"some of the files: --dataset '{folder}/*{kinds[0]}'."
        )
