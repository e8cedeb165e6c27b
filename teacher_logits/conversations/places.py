"""Where a dataset lies, and how its rows are opened there: on the Hub, or in local files; memory-mapped."""

import glob
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from teacher_logits.conversations.clear_errors import clear_errors
from teacher_logits.conversations.identity import hub_content, local_content
from teacher_logits.conversations.local_files import (
    DATA_SUFFIXES,
    data_files,
    data_suffix,
    is_pattern,
    local_path,
    matching_files,
    require_one_kind,
)
from teacher_logits.conversations.spooling import Spool
from teacher_logits.errors import DatasetError

if TYPE_CHECKING:
    import datasets

_HUB_SCHEME = "hf://"
_HUB_ADDRESS = re.compile(
    r"hf://datasets/(?P<id>[^/@]+/[^/@]+)(?:@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+))?(?:/(?P<pattern>.*))?"
)
_CONVERTED = {"~parquet": "refs/convert/parquet", "~duckdb": "refs/convert/duckdb"}


@dataclass(frozen=True)
class Place:
    """A dataset as the options name it."""

    address: str
    """Hub id, path, pattern of paths, or `hf://datasets/...`."""
    split: str = "train"
    """Without a slice."""
    config_name: str | None = None
    revision: str | None = None
    pattern: str | None = None
    """Which files of a Hub dataset or a folder: they make up the split, whatever the dataset says of its splits."""
    numbers: tuple[str, ...] = ("original_index", "length")
    """Columns of CSV files that hold whole numbers; all others hold text. CSV itself doesn't say."""
    spool: Spool | None = None
    """Where rows are kept that are read one after another, instead of making the whole split ready first."""


@dataclass(frozen=True)
class Rows:
    """A split of a dataset."""

    dataset: "datasets.Dataset"
    name: str
    """Hub id, or the name of the file or folder or pattern of files, without its path."""
    revision: str | None
    """The commit on the Hub; None for local files."""
    content: str
    """What the rows are, for the fingerprint."""
    files: int | None = None
    """How many files of a pattern they are from."""


def load_rows(place: Place) -> Rows:
    """Open a split. Raises DatasetError where it isn't there or can't be read."""
    if place.address.startswith(_HUB_SCHEME):
        return _load_hub_address(place)
    path = local_path(place.address)
    if path.exists() or is_pattern(place.address):
        for option, value in (("--dataset-revision", place.revision), ("--dataset-config", place.config_name)):
            if value is not None:
                raise DatasetError(
                    f"{option} is for datasets on the Hub, and {place.address} is on this machine: leave it out."
                )
        return _load_local(path, place)
    if place.address.startswith((".", "/", "~", "$", "file://")) or data_suffix(path):
        raise DatasetError(f"There is no file or folder {place.address}. Give a path that exists, or a Hub id.")
    if place.pattern is not None:
        return _load_hub_files(place, place.address, place.pattern, place.revision)
    return _load_from_hub(place, place.address, place.revision)


def _load_local(path: Path, place: Place) -> Rows:
    import datasets

    if path.is_file() and place.pattern is not None:
        raise DatasetError(f"--data-files chooses files of a Hub dataset or of a folder, and {path} is a file.")
    if path.is_file() and not data_suffix(path):
        raise DatasetError(f"{path} is not a kind of file that is read ({', '.join(DATA_SUFFIXES)}).")
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # else the library tells the Hub that a local file was read
    if not path.exists() or place.pattern is not None:
        files = matching_files(path / place.pattern if place.pattern is not None else path)
        rows = clear_errors(lambda: _load_files(files, place), place.address, place.split)
        return Rows(rows, path.resolve().name, None, local_content(files), len(files))
    rows = clear_errors(lambda: _load_path(path, place), str(path), place.split)
    return Rows(rows, path.resolve().name, None, local_content(data_files(path)))


def _load_path(path: Path, place: Place) -> "datasets.Dataset":
    import datasets

    if path.is_file():
        return _load_files([path], place)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        loaded = datasets.load_from_disk(str(path))
        return _choose_split(loaded, place.split, path) if isinstance(loaded, datasets.DatasetDict) else loaded
    found = data_files(path)
    if not found:
        raise DatasetError(f"The folder {path} holds no {', '.join(DATA_SUFFIXES)} files and no saved dataset.")
    require_one_kind(found, f"The folder {path} holds", str(path))
    # The library finds the files of each split. It is not asked to load the folder: it would take a folder of the
    # same name and shape, anywhere, for this one, and give the rows that it has kept of that.
    files = datasets.load_dataset_builder(str(path)).config.data_files
    return _load_files([Path(file) for file in _choose_split(files, place.split, path)], place)


def _load_files(files: Sequence[Path], place: Place) -> "datasets.Dataset":
    """The rows of local files of one kind, which make up the split."""

    suffix = data_suffix(files[0])
    assert suffix is not None
    kind = {".jsonl": "json", ".tsv": "csv"}.get(suffix, suffix.removeprefix("."))
    named = {place.split: [glob.escape(str(file)) for file in files]}
    options: dict[str, Any] = {}
    if kind == "csv":
        options = _csv_options(files, "\t" if suffix == ".tsv" else ",", place.numbers)
    elif kind == "json" and "parse_agent_traces" in inspect.signature(_json_config()).parameters:
        # Else a chat dataset with certain other columns is taken for a log of coding agents, and made over.
        options = {"parse_agent_traces": False}
    return _load(kind, place, data_files=named, **options)


def _load(what: str, place: Place, **options: Any) -> "datasets.Dataset":
    """The split, mapped: what the library makes ready of it and keeps, or what `place.spool` takes of it."""
    import datasets

    if place.spool is None:
        return datasets.load_dataset(what, split=place.split, **options)
    return place.spool.take(datasets.load_dataset(what, split=place.split, streaming=True, **options))


def _json_config() -> Any:
    from datasets.packaged_modules.json.json import JsonConfig

    return JsonConfig


def _csv_options(files: Sequence[Path], separator: str, numbers: tuple[str, ...]) -> dict[str, Any]:
    """How CSV files are read: every cell is text, though it be 007 or NA; an empty one is missing."""
    import datasets
    import pandas as pd

    header = pd.read_csv(files[0], sep=separator, nrows=0).columns
    features = {name: datasets.Value("int64" if name in numbers else "string") for name in header}
    return {
        "sep": separator,
        "features": datasets.Features(features),
        "keep_default_na": False,
        "na_values": [""],
    }


def _load_hub_address(place: Place) -> Rows:
    """`hf://datasets/user/name`, with a commit, with the path of files or a pattern of them."""
    address = _HUB_ADDRESS.fullmatch(place.address)
    if address is None:
        raise DatasetError(
            f"{place.address} is no address of a dataset; expected hf://datasets/user/name, or the same with a path "
            "such as data/*.parquet behind it."
        )
    revision = _CONVERTED.get(address["revision"], unquote(address["revision"])) if address["revision"] else None
    if revision and place.revision and not re.fullmatch(r"[0-9a-f]{40}", place.revision):
        raise DatasetError(f"--dataset-revision and the revision in {place.address} are two: give one of them.")
    pattern = address["pattern"] or None
    if pattern and place.pattern:
        raise DatasetError(f"--data-files and the path in {place.address} both choose files: give one of them.")
    if pattern or place.pattern:
        return _load_hub_files(place, address["id"], pattern or place.pattern or "", place.revision or revision)
    return _load_from_hub(place, address["id"], place.revision or revision)


def _load_from_hub(place: Place, address: str, revision: str | None) -> Rows:
    commit = _hub_commit(place, address, revision)
    rows = clear_errors(
        lambda: _load(address, place, name=place.config_name, revision=commit),
        address,
        place.split,
    )
    return Rows(rows, address, commit, hub_content(address, place.config_name, None, commit))


def _load_hub_files(place: Place, address: str, pattern: str, revision: str | None) -> Rows:
    """Some files of a Hub dataset: fetched into the Hub's cache, and read like local ones."""
    from huggingface_hub import HfFileSystem, snapshot_download

    if place.config_name is not None:
        raise DatasetError("--dataset-config and a choice of files are two ways to choose rows: give one of them.")
    commit = _hub_commit(place, address, revision)
    root = f"datasets/{address}@{commit}/"

    def load() -> Any:
        listing = HfFileSystem(skip_instance_cache=True).glob(root + pattern.strip("/"), detail=True).values()
        names = sorted(each["name"].removeprefix(root) for each in listing if each["type"] == "file")
        names = [name for name in names if data_suffix(Path(name))]
        if not names:
            raise DatasetError(
                f"No file of dataset {address} fits {pattern} that is of a kind that is read "
                f"({', '.join(DATA_SUFFIXES)}). Name files, or a pattern such as {pattern.rstrip('/')}/*.parquet."
            )
        require_one_kind(map(Path, names), f"{pattern} of dataset {address} fits", f"{_HUB_SCHEME}datasets/{address}")
        exactly = [glob.escape(name) for name in names]
        folder = snapshot_download(address, repo_type="dataset", revision=commit, allow_patterns=exactly)
        return _load_files([Path(folder, name) for name in names], place)

    rows = clear_errors(load, address, place.split)
    return Rows(rows, address, commit, hub_content(address, None, pattern.strip("/"), commit))


def _hub_commit(place: Place, address: str, revision: str | None) -> str:
    from huggingface_hub import HfApi

    return str(clear_errors(lambda: HfApi().dataset_info(address, revision=revision).sha, address, place.split))


def _choose_split(loaded: Any, split: str, path: Path) -> Any:
    if split not in loaded:
        raise DatasetError(
            f"{path} has no split {split!r}; it has {', '.join(repr(str(name)) for name in loaded)}. Pass --split."
        )
    return loaded[split]


def dataset_file(address: str, revision: str | None, name: str) -> bytes | None:
    """The content of a small file at the root of a dataset, a folder or one on the Hub; None where there is none.

    Raises DatasetError where the Hub doesn't answer.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    path = local_path(address)
    if path.is_dir():
        return (path / name).read_bytes() if (path / name).is_file() else None
    on_hub = _HUB_ADDRESS.fullmatch(address)
    if on_hub is None and (path.exists() or is_pattern(address)):
        return None

    def fetch() -> bytes | None:
        repository = on_hub["id"] if on_hub else address
        try:
            return Path(hf_hub_download(repository, name, repo_type="dataset", revision=revision)).read_bytes()
        except RemoteEntryNotFoundError:
            return None

    content: bytes | None = clear_errors(fetch, address, "")
    return content
