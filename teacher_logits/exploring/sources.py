"""Where a logits dataset lies: a folder or a Hub dataset, with the few things that are read from either."""

import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa

from teacher_logits.errors import DamagedShardError, FormatError
from teacher_logits.files import git_blob_id
from teacher_logits.settings import is_folder, local_folder

_HUB_ID = re.compile(r"[\w.\-]+(/[\w.\-]+)?")
_SHARD = re.compile(r"(?P<split>\w+)-[0-9a-f]{8}(-w\d+)?-\d{5,}\.parquet")
_READ_AHEAD = 65536
"""Bytes fetched from the Hub at a time: columns are read in small pieces, and more would fetch the whole shard."""
_PIECE = 1 << 20
"""Bytes of a file that is fetched whole, at a time."""


class Source(ABC):
    """The files of one logits dataset. Names are relative to it: 'checkpoint.json', 'data/....parquet'."""

    name: str
    """How the user called it."""
    tries: int
    """How often to fetch a file before its content is believed to be wrong."""

    @abstractmethod
    def data_files(self) -> list[str]:
        """Names of the Parquet files under data/, sorted."""

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """A file for reading at any place. Raises FileNotFoundError where it isn't there."""

    @abstractmethod
    def fetched(self, name: str) -> AbstractContextManager[Path]:
        """A whole file on this disk, for as long as the block lasts. Raises as `open` does."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of a file."""

    def errors(self) -> AbstractContextManager[None]:
        """A block in which what the Hub's client raises becomes a FormatError."""
        return nullcontext()

    @contextmanager
    def shard(self, name: str) -> Iterator[IO[bytes]]:
        """`open` for reading a shard in a block that raises FormatError for damage, with the shard's name in it."""
        with damage_located(f"{name} of {self.name}", self.name), self.errors(), self.open(name) as stream:
            yield stream

    def read(self, name: str) -> bytes | None:
        """The content of a small file, or None where it isn't there."""
        try:
            with self.errors(), self.open(name) as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def splits(self) -> dict[str, list[str]]:
        """Each split's shards in their order, which is that of the rows.

        Raises FormatError where there is no shard at all.
        """
        splits: dict[str, list[str]] = {}
        for name in self.data_files():
            if match := _SHARD.fullmatch(Path(name).name):
                splits.setdefault(match["split"], []).append(name)
        if not splits:
            raise FormatError(
                f"{self.name} has no shards (data/<split>-<run>-<number>.parquet). Either it isn't a logits dataset, "
                "or its run has not finished a shard yet."
            )
        return splits

    def shards(self, split: str | None = None) -> tuple[str, list[str]]:
        """The split's name and shards; without `split` those of the only one. Raises FormatError."""
        splits = self.splits()
        return (chosen := choose_split(self.name, list(splits), split)), splits[chosen]


class FolderSource(Source):
    """A folder on this machine."""

    tries = 1

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name

    def data_files(self) -> list[str]:
        return sorted(f"data/{path.name}" for path in (self.folder / "data").glob("*.parquet"))

    def open(self, name: str) -> IO[bytes]:
        path = self.folder / name
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise FormatError(f"{path} is no file but a device or a pipe, which nobody reads from.")
        # A file of Arrow's own: its threads may still hold it when the interpreter ends, and a Python file would then
        # abort that.
        return cast(IO[bytes], pa.OSFile(str(path)))

    def fetched(self, name: str) -> AbstractContextManager[Path]:
        return nullcontext(self.folder / name)

    def size(self, name: str) -> int:
        return (self.folder / name).stat().st_size


class HubSource(Source):
    """A dataset on the Hub as it is when this is made, read by ranges without a copy on this disk."""

    tries = 2

    def __init__(self, repo_id: str, revision: str | None) -> None:
        from huggingface_hub import HfApi, HfFileSystem

        self.name = repo_id
        with self.errors():
            # One commit for all files: a run may be writing to the dataset.
            commit = HfApi().dataset_info(repo_id, revision=revision).sha
            tree = list(HfApi().list_repo_tree(repo_id, recursive=True, repo_type="dataset", revision=commit))
        # Folders have no size.
        self._sizes: dict[str, int] = {entry.path: entry.size for entry in tree if hasattr(entry, "size")}
        self._blobs: dict[str, str] = {entry.path: entry.blob_id for entry in tree if getattr(entry, "lfs", 1) is None}
        self._files: Any = HfFileSystem()
        self._root = f"datasets/{repo_id}@{commit}"

    def data_files(self) -> list[str]:
        return sorted(name for name in self._sizes if name.startswith("data/") and name.endswith(".parquet"))

    def open(self, name: str) -> IO[bytes]:
        if name not in self._sizes:
            raise FileNotFoundError(f"{self.name} has no {name}")
        with self.errors():
            return self._files.open(f"{self._root}/{name}", "rb", block_size=_READ_AHEAD)

    def read(self, name: str) -> bytes | None:
        for _ in range(1 + self.tries):
            content = super().read(name)
            if content is None or git_blob_id(content) == self._blobs.get(name, git_blob_id(content)):
                return content
        raise FormatError(f"{name} of {self.name} arrives damaged: it isn't what the Hub lists. Try again later.")

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        if name not in self._sizes:
            raise FileNotFoundError(f"{self.name} has no {name}")
        with tempfile.TemporaryDirectory(prefix="teacher-logits-") as folder:
            path = Path(folder) / "fetched"
            with (
                self.errors(),
                self._files.open(f"{self._root}/{name}", "rb", block_size=0) as stream,
                path.open("wb") as file,
            ):
                shutil.copyfileobj(stream, file, _PIECE)
            yield path

    def size(self, name: str) -> int:
        return self._sizes[name]

    def errors(self) -> AbstractContextManager[None]:
        return hub_errors(self.name)


def open_source(source: str | Path, revision: str | None = None) -> Source:
    """The dataset that `source` names: a folder where it begins like one or exists, else a dataset on the Hub.

    Raises FormatError where there is no such folder or dataset, or it can't be reached.
    """
    if not isinstance(source, str | Path):
        raise FormatError(f"Expected a folder or the id of a Hub dataset, and got a {type(source).__name__}.")
    text = str(source)
    folder = local_folder(text)
    if os.path.isdir(folder):  # noqa: PTH112 (no error for what is too long for a path)
        return FolderSource(folder, text)
    if isinstance(source, Path) or is_folder(text):
        raise FormatError(f"There is no folder {text}. Give the --output of an extraction.")
    if not _HUB_ID.fullmatch(text):
        raise FormatError(f"{text!r} is neither a folder that exists nor the id of a Hub dataset (owner/name).")
    return HubSource(text, revision)


def choose_split(name: str, splits: list[str], wanted: str | None) -> str:
    """`wanted`, or the only split there is. Raises FormatError where that leaves none."""
    if wanted is None and len(splits) == 1:
        return splits[0]
    if wanted in splits:
        return str(wanted)
    problem = "has several splits" if wanted is None else f"has no split {wanted!r}"
    raise FormatError(f"{name} {problem}. Choose one of: {', '.join(splits)}.")


@contextmanager
def damage_located(shard: str, dataset: str) -> Iterator[None]:
    """A block in which a DamagedShardError gets the name of the shard, which is read as a stream without one."""
    try:
        yield
    except DamagedShardError as error:
        raise DamagedShardError(
            f"{shard}: {error} `explore_logits.py verify {dataset}` tells all that is wrong, and what to do."
        ) from error


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """A block in which what the Hub's client raises becomes a FormatError."""
    from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except GatedRepoError as error:
        raise FormatError(f"{repo_id} is gated on the Hub: ask its owner for access, then hf auth login.") from error
    except RepositoryNotFoundError as error:
        raise FormatError(
            f"There is no folder {repo_id} here, and no such dataset on the Hub that this account may read. For a "
            "private one: hf auth login, or set HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise FormatError(f"{repo_id} has no such revision on the Hub.") from error
    except FileNotFoundError:
        raise
    except (OSError, HTTPError) as error:
        told = str(error).split(" for url")[0].splitlines()[:1]  # addresses may carry signatures
        reason = ": ".join([type(error).__name__, *told])
        raise FormatError(f"{repo_id} can't be read from the Hub ({reason}). Try again later.") from error
