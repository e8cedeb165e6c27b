"""The source dataset: rows from the Hub or from local files, memory-mapped, numbered, with what identifies them."""

import glob
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from teacher_logits.conversations.identity import DATA_SUFFIXES, data_files, local_content
from teacher_logits.conversations.masks import Unusable
from teacher_logits.conversations.shapes import Columns, find_columns, read_messages, require_column
from teacher_logits.errors import DatasetError
from teacher_logits.records import Conversation, Int64
from teacher_logits.settings import SourceOptions

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

_MAX_INDEX = 2**31 - 1
_ORIGINAL_INDEX = "original_index"


@dataclass(frozen=True)
class Source:
    """An opened source dataset."""

    dataset: "datasets.Dataset"
    name: str
    """As given: a Hub id, or the file's or folder's own name without its path."""
    revision: str | None
    """The commit on the Hub; None for local files."""
    content: str
    """What the rows are, for the fingerprint: Hub id and commit, or a hash of the files."""
    split: str
    """The split's own name, without a slice."""
    rows: Int64
    """Rows of the split that its slice selects, ascending."""
    columns: Columns
    index: Int64
    """[rows of the split] each row's number: `original_index`, `--index-col`, or the row's place in the split."""
    index_column: str | None

    def conversations(self, rows: Sequence[int] | Int64) -> Iterator[Conversation | Unusable]:
        """The conversations of some rows, in that order; in place of one that can't be used, the reason."""
        wanted = [name for name in (*self.columns.names().values(), "tools") if name in self.dataset.column_names]
        dataset = self.dataset.select_columns(wanted)
        try:
            chosen = dataset[np.asarray(rows).tolist()]
        except UnicodeDecodeError as error:
            if len(rows) == 1:
                yield Unusable(f"not UTF-8: {error.reason}")
            else:  # one row spoils the reading of all; alone, only itself
                for row in rows:
                    yield from self.conversations([row])
            return
        for place, row in enumerate(rows):
            try:
                values = {name: chosen[name][place] for name in wanted}
                tools = values.get("tools") or None
                yield Conversation(int(self.index[row]), read_messages(values, self.columns), tools)
            except Unusable as reason:
                yield reason

    def column(self, name: str, option: str) -> "pa.ChunkedArray":
        """A column of all rows of the split, as Arrow holds it. Raises DatasetError where there is none."""
        require_column(name, self.dataset.column_names, option)
        return arrow_column(self.dataset, name)


def prepare_dataset(config: SourceOptions) -> Source:
    """Open the source that the options name. Raises DatasetError where it can't be used."""
    return open_source(config)


def open_source(config: SourceOptions, revision: str | None = None) -> Source:
    """Open the source that the options name, at `revision` (a stored commit) where given.

    Raises DatasetError where the dataset, the split or a column isn't there, or the numbers are not unique int32.
    """
    assert config.dataset is not None
    base_split = config.split.split("[")[0]
    dataset, name, commit, content = load_rows(
        config.dataset, base_split, config.dataset_config, revision or config.dataset_revision
    )
    if len(dataset) == 0:
        raise DatasetError(f"Split {base_split!r} of {config.dataset} has no rows.")
    columns = find_columns(dataset.column_names, config)
    index_column = config.index_col
    if index_column is None and _ORIGINAL_INDEX in dataset.column_names:
        index_column = _ORIGINAL_INDEX
    return Source(
        dataset=dataset,
        name=name,
        revision=commit,
        content=content,
        split=base_split,
        rows=_slice_rows(config.split, base_split, len(dataset)),
        columns=columns,
        index=_read_index(dataset, index_column),
        index_column=index_column,
    )


def load_rows(
    address: str, split: str, config_name: str | None, revision: str | None
) -> tuple["datasets.Dataset", str, str | None, str]:
    """A split of a dataset on the Hub or on disk: the rows, its name, its commit (Hub), its content's identity."""
    path = Path(address).expanduser()
    if path.exists():
        return _load_local(path, split), path.resolve().name, None, local_content(path)
    if address.startswith((".", "/", "~")) or path.suffix in DATA_SUFFIXES:
        raise DatasetError(f"There is no file or folder {address}. Give a path that exists, or a Hub id.")
    return _load_from_hub(address, split, config_name, revision)


def _load_local(path: Path, split: str) -> "datasets.Dataset":
    import datasets

    if path.is_file() and path.suffix not in DATA_SUFFIXES:
        raise DatasetError(f"{path} is not a kind of file that is read ({', '.join(DATA_SUFFIXES)}).")
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # else the library tells the Hub that a local file was read

    def load() -> Any:
        if path.is_file():
            return _load_files([str(path)], split, split)
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(str(path))
            return _choose_split(loaded, split, str(path)) if isinstance(loaded, datasets.DatasetDict) else loaded
        kinds = sorted({file.suffix for file in data_files(path)})
        if not kinds:
            raise DatasetError(f"The folder {path} holds no {', '.join(DATA_SUFFIXES)} files and no saved dataset.")
        if len(kinds) > 1:
            raise DatasetError(
                f"The folder {path} holds {' and '.join(kinds)} files. Name one file, or a folder of one kind."
            )
        # The library finds the files of each split. It is not asked to load the folder: it would take a folder of the
        # same name and shape, anywhere, for this one, and give the rows that it has kept of that.
        files = datasets.load_dataset_builder(str(path)).config.data_files
        base = split.split("[")[0]
        return _load_files(_choose_split(files, base, str(path)), base, split)

    return _clear_errors(load, str(path), split)


def _load_files(files: Sequence[str], base: str, split: str) -> "datasets.Dataset":
    """The rows of files of one kind, which make the split `base`."""
    import datasets

    suffix = Path(files[0]).suffix
    kind = {".jsonl": "json"}.get(suffix, suffix.removeprefix("."))
    return datasets.load_dataset(kind, data_files={base: [glob.escape(file) for file in files]}, split=split)


def _load_from_hub(
    address: str, split: str, config_name: str | None, revision: str | None
) -> tuple["datasets.Dataset", str, str | None, str]:
    import datasets
    from huggingface_hub import HfApi

    def commit() -> Any:
        return HfApi().dataset_info(address, revision=revision).sha

    sha = _clear_errors(commit, address, split)
    rows = _clear_errors(lambda: datasets.load_dataset(address, config_name, split=split, revision=sha), address, split)
    subset = f":{config_name}" if config_name else ""
    return rows, address, sha, f"hub:{address}{subset}@{sha}"


def _clear_errors(load: Callable[[], Any], address: str, split: str) -> Any:
    """Run `load`, turning what libraries raise for unusable input into a DatasetError that says what to do."""
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return load()
    except (GatedRepoError, RepositoryNotFoundError, DatasetNotFoundError) as error:
        raise DatasetError(
            f"There is no dataset {address!r} on the Hub that you may read, and no such file or folder here. Check the "
            "name; for a private or gated dataset log in with `hf auth login` or set HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise DatasetError(f"Dataset {address!r} has not the revision asked for ({_first_line(error)}).") from error
    except HFValidationError as error:
        raise DatasetError(
            f"{address!r} is neither a file or folder here nor a Hub id ({_first_line(error)})."
        ) from error
    except DatasetGenerationError as error:
        cause = _first_line(error.__cause__ or error)
        raise DatasetError(f"{address} can't be read as a dataset: {cause}. Mend the file and run again.") from error
    except (StopIteration, IndexError) as error:  # what the library makes of files without any
        raise DatasetError(f"{address} holds no rows.") from error
    except HfHubHTTPError as error:
        raise DatasetError(f"The Hub did not give dataset {address!r}: {_first_line(error)}") from error
    except (ValueError, OSError) as error:
        raise DatasetError(f"Split {split!r} of {address} can't be loaded: {_first_line(error)}") from error
    except Exception as error:
        # Broken connections are errors of whichever HTTP library the Hub's client uses.
        if not type(error).__module__.startswith("httpx"):
            raise
        raise DatasetError(
            f"The Hub can't be reached for dataset {address!r}: {_first_line(error)}. Check the connection and the "
            "name; there is no such file or folder here."
        ) from error


def _choose_split(loaded: Any, split: str, address: str) -> Any:
    if split not in loaded:
        raise DatasetError(
            f"{address} has no split {split!r}; it has {', '.join(repr(str(name)) for name in loaded)}. Pass --split."
        )
    return loaded[split]


def _slice_rows(split: str, base: str, total: int) -> Int64:
    """The rows that a split such as 'train[10:20]' or 'train[:5%]' selects."""
    from datasets import ReadInstruction

    if split == base:
        return np.arange(total, dtype=np.int64)
    try:
        (part,) = ReadInstruction.from_spec(split).to_absolute({base: total})
    except (ValueError, AssertionError) as error:
        raise DatasetError(f"--split {split!r} is not a slice of split {base!r} ({_first_line(error)}).") from error
    return np.arange(part.from_ or 0, total if part.to is None else part.to, dtype=np.int64)


def _read_index(dataset: "datasets.Dataset", column: str | None) -> Int64:
    if column is None:
        return np.arange(len(dataset), dtype=np.int64)
    require_column(column, dataset.column_names, "--index-col")
    import pyarrow as pa
    import pyarrow.compute as pc

    values = arrow_column(dataset, column)
    if not pa.types.is_integer(values.type) or values.null_count:
        raise DatasetError(
            f"Column {column!r} numbers the conversations and must hold whole numbers without gaps; it holds "
            f"{values.type} with {values.null_count} missing. Name another with --index-col."
        )
    least, largest = pc.min_max(values).as_py().values()
    if least < 0 or largest > _MAX_INDEX:
        raise DatasetError(
            f"Column {column!r} holds {least if least < 0 else largest}; numbers of conversations are "
            f"stored as int32, from 0 to {_MAX_INDEX:,}. Name another with --index-col."
        )
    index = values.to_numpy().astype(np.int64)
    sorted_index = np.sort(index)
    twice = sorted_index[1:][sorted_index[1:] == sorted_index[:-1]]
    if len(twice):
        raise DatasetError(
            f"Column {column!r} holds {twice[0]} more than once; each conversation needs a number of its own. Name "
            "another with --index-col."
        )
    return index


def arrow_column(dataset: "datasets.Dataset", name: str) -> "pa.ChunkedArray":
    """One column of a dataset as Arrow holds it."""
    return dataset.select_columns([name]).with_format("arrow")[:].column(name)


def _first_line(error: BaseException) -> str:
    lines = re.sub(r"\s+\n", "\n", str(error)).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
