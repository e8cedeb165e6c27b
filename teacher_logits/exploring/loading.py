"""A logits dataset as a `datasets.Dataset`, which remembers the run it came from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teacher_logits.codec import CONTRACT_COLUMNS
from teacher_logits.errors import FormatError, SettingsError
from teacher_logits.exploring.runs import run_of_source
from teacher_logits.exploring.sources import FolderSource, Source, choose_split, open_source
from teacher_logits.exploring.streams import row_counts
from teacher_logits.shards import read_schema

if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset

_RUN_KEY = "teacher_logits"


def load_logit_dataset(
    source: str | Path, split: str | None = None, streaming: bool = False, revision: str | None = None
) -> "Dataset | IterableDataset":
    """The rows of a logits dataset, in their stored form; `get_sample` decodes them.

    source: a folder (it begins with '.', '/', '~' or 'file://', or exists) or a Hub dataset id.
    split: by default the only one.   streaming: read rows as they are asked for, and keep no copy.
    revision: branch, tag or commit on the Hub.
    The run's options and metadata travel with the dataset, through `select`, `filter` and the like.
    Raises FormatError where it isn't there, has no shards, or lacks the columns of the format.
    """
    opened = open_source(source, revision)
    run = run_of_source(opened)
    dataset = _load(opened, split, streaming, revision)
    names = dataset.column_names
    missing = [name for name in CONTRACT_COLUMNS if names is not None and name not in names]
    if missing:
        raise FormatError(f"{opened.name} is not a logits dataset: it lacks the columns {', '.join(missing)}.")
    kept = {key: value for key, value in run.items() if key != "shards"}
    dataset.info.description = json.dumps({_RUN_KEY: kept}, ensure_ascii=False)
    return dataset


def run_of_dataset(dataset: Any) -> dict[str, Any]:
    """The run that `load_logit_dataset` attached to a dataset; {} for any other dataset."""
    try:
        description = json.loads(dataset.info.description or "")
    except (ValueError, RecursionError):
        return {}
    run = description.get(_RUN_KEY) if isinstance(description, dict) else None
    return run if isinstance(run, dict) else {}


def require_rows(dataset: Any, done: str) -> None:
    """Raises SettingsError for what is no opened dataset of one split.   done: what is to be done with it."""
    if isinstance(dataset, Mapping):
        raise SettingsError(
            f"{done} of one split (dataset['train']), or of what load_logit_dataset gives; this is a "
            f"{type(dataset).__name__} of {', '.join(map(str, list(dataset)[:5]))}."
        )
    if not hasattr(dataset, "with_format"):
        raise SettingsError(
            f"{done} of a folder, a Hub dataset id, a Dataset or an IterableDataset, not of a {type(dataset).__name__}."
        )


def _load(source: Source, split: str | None, streaming: bool, revision: str | None) -> Any:
    import datasets

    options: dict[str, Any] = {"streaming": streaming}
    if streaming:
        options["features"] = _features(source)
    if isinstance(source, FolderSource):
        name, shards = source.shards(split)
        rows = row_counts(shards, source.shard)
        # The library takes a file without rows for a damaged one.
        filled = [shard for shard in shards if rows[shard]]
        if not filled:
            return _empty(_features(source), name, streaming)
        files = {name: [str((source.folder / shard).resolve()) for shard in filled]}
        return _loaded(source, "parquet", data_files=files, split=name, **options)
    source.splits()
    with source.errors():
        every = _loaded(source, source.name, revision=revision, **options)
    assert isinstance(every, datasets.DatasetDict | datasets.IterableDatasetDict)
    return every[choose_split(source.name, list(every), split)]


def _empty(columns: "Features", split: str, streaming: bool) -> Any:
    import datasets

    name = datasets.NamedSplit(split)
    if streaming:
        return datasets.IterableDataset.from_generator(lambda: iter(()), features=columns, split=name)
    return datasets.Dataset.from_dict({column: [] for column in columns}, columns, split=name)


def _features(source: Source) -> "Features":
    """The columns, as the first shard has them. The library would begin to read rows to find them out, and threads that
    it leaves behind can abort the interpreter when that ends."""
    import datasets

    first = next(iter(source.splits().values()))[0]
    with source.shard(first) as stream:
        return datasets.Features.from_arrow_schema(read_schema(stream))


def _loaded(source: Source, path: str, **options: Any) -> Any:
    import datasets
    import pyarrow as pa

    try:
        return datasets.load_dataset(path, **options)
    except (datasets.exceptions.DatasetGenerationError, pa.ArrowInvalid) as error:
        cause = error.__cause__ or error
        raise FormatError(f"A shard of {source.name} is damaged ({cause}).") from error
