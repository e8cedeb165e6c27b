"""The run that made a dataset: its options and metadata, from checkpoint.json or from a shard itself."""

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teacher_logits.errors import FormatError, SettingsError, TeacherError
from teacher_logits.exploring.sources import FolderSource, Source, open_source
from teacher_logits.progress import log
from teacher_logits.settings import ExtractionConfig, is_folder, local_folder, pattern_base
from teacher_logits.shards import FORMAT_VERSION, read_metadata

if TYPE_CHECKING:
    from teacher_logits import conversations

CHECKPOINT = "checkpoint.json"
_PATHS = ("model", "dataset")
_TEXTS = ("model", "dataset", "revision", "model_revision", "source", "logits_dtype", "tokenizer_sha256")


def load_extraction_config(source: str | Path, revision: str | None = None) -> dict[str, Any]:
    """What checkpoint.json tells of the run behind a dataset.

    source: a folder or a Hub dataset id.   revision: branch, tag or commit of the latter.
    Returns {"format_version", "fingerprint", "complete", "total_samples", "total_tokens", "shards", "config",
    "metadata"}; local paths in the config as they are seen from here, where that can be told. Without a
    checkpoint.json the metadata comes from the first shard, "config" and "shards" are empty, and "complete" and the
    totals are None. Raises FormatError where there is neither, or another format version.
    """
    return run_of_source(open_source(source, revision))


def run_of_source(source: Source) -> dict[str, Any]:
    """The run behind an opened dataset, as `load_extraction_config` returns it."""
    content = source.read(CHECKPOINT)
    if content is None:
        return _run_of_shard(source)
    try:
        run = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{CHECKPOINT} of {source.name} is not JSON ({error}).") from error
    if not isinstance(run, dict) or not all(isinstance(run.get(key), dict) for key in ("config", "metadata")):
        raise FormatError(f"{CHECKPOINT} of {source.name} is not one of a logits dataset (no config and metadata).")
    if run.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{source.name} has format version {run.get('format_version')!r}, and this reader knows version "
            f"{FORMAT_VERSION}. Update teacher-logits."
        )
    _require_types(run, source.name)
    return {**run, "config": seen_from_here(run["config"], source)}


def _require_types(run: Mapping[str, Any], name: str) -> None:
    """Raise FormatError where what is read of it is of another type."""
    shards = run.get("shards")
    if not isinstance(shards, dict) or not all(isinstance(entry, dict) for entry in shards.values()):
        raise FormatError(f"{CHECKPOINT} of {name} is damaged: shards is not an object of objects.")
    if not isinstance(run.get("complete"), bool):
        raise FormatError(f"{CHECKPOINT} of {name} is damaged: complete is {run.get('complete')!r}.")


def seen_from_here(options: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """The options of a folder's run, its model and dataset as they are seen from here.

    The run has written them as seen from the folder where it was started. Which that was, the output's own place tells.
    """
    output = options.get("output")
    if not isinstance(source, FolderSource) or not isinstance(output, str) or not is_folder(output):
        return dict(options)
    below, folder = Path(os.path.normpath(local_folder(output))).parts, source.folder.resolve()
    start = Path(*folder.parts[: -len(below)])
    if start.joinpath(*below) != folder:  # moved meanwhile, or called by its whole path
        return dict(options)
    paths = {name: options[name] for name in _PATHS if isinstance(options.get(name), str)}
    gone = {name: path for name, path in paths.items() if not _is_there(path) and _is_there(str(start / path))}
    return {**options, **{name: str(start / path) for name, path in gone.items()}}


def _is_there(path: str) -> bool:
    """Whether a path is there, or the folder that a pattern of files looks into."""
    return pattern_base(Path(path).expanduser()).exists()


def _run_of_shard(source: Source) -> dict[str, Any]:
    first = next(iter(source.splits().values()))[0]
    with source.shard(first) as stream:
        metadata = read_metadata(stream)
    return {
        "format_version": metadata["format_version"],
        "fingerprint": metadata.get("fingerprint"),
        "complete": None,
        "total_samples": None,
        "total_tokens": None,
        "shards": {},
        "config": {},
        "metadata": metadata,
    }


def told(run: Mapping[str, Any], name: str) -> Any:
    """The run's option `name`, else the value of that name in its metadata, else None.

    None, too, in place of a text's name that is no text: checkpoint.json may be somebody else's.
    """
    values = [(run.get(part) or {}).get(name) for part in ("config", "metadata")]
    return next(
        (value for value in values if value is not None and (name not in _TEXTS or isinstance(value, str))), None
    )


def config_of(options: Mapping[str, Any]) -> ExtractionConfig:
    """The options of a run, checked. No code of a model is trusted, whatever they say: somebody else wrote them.

    Raises SettingsError where they are none, or name no source dataset.
    """
    config = ExtractionConfig.from_mapping({**options, "trust_remote_code": False}, f"the config of {CHECKPOINT}")
    if not config.dataset:
        raise SettingsError(f"{CHECKPOINT} names no source dataset.")
    return config


def open_chats(config: ExtractionConfig, metadata: Mapping[str, Any]) -> "conversations.Source":
    """The source dataset as a resumed run opens it: at the commit that the run has read.

    Raises DatasetError where it can't be opened.
    """
    from teacher_logits import conversations

    revision = metadata.get("source_revision")
    return conversations.open_source(config, revision if isinstance(revision, str) else None)


def tokenizer_of(run: Mapping[str, Any]) -> Any:
    """The tokenizer of the run's teacher, from the Hub or the folder that `config["model"]` names.

    One that has changed since the run is told of in the log. Raises TeacherError where the run names no model or its
    tokenizer can't be loaded.
    """
    model = told(run, "model")
    if not model:
        raise TeacherError(
            "This sample doesn't tell which model it is from. Pass tokenizer=AutoTokenizer.from_pretrained(...)."
        )
    tokenizer, sha256 = _loaded(model, told(run, "model_revision") or told(run, "revision"))
    _warn_of_another(model, sha256, run)
    return tokenizer


def tokenizer_if_any(run: Mapping[str, Any]) -> Any:
    """The same, or None where it can't be had, which the log tells: for views that can do without texts."""
    try:
        return tokenizer_of(run)
    except TeacherError as error:
        log.info("Tokens are called by their ids. %s", error)
        return None


def load_tokenizer(model: str, revision: str | None = None, run: Mapping[str, Any] | None = None) -> Any:
    """The tokenizer of a Hub id or folder; code that comes with it isn't run. Raises TeacherError.

    run: whose tokens it is for; one that isn't the run's is told of in the log.
    """
    tokenizer, sha256 = _loaded(model, revision)
    _warn_of_another(model, sha256, run or {})
    return tokenizer


def _warn_of_another(model: str, sha256: str, run: Mapping[str, Any]) -> None:
    if sha256 != (run.get("metadata") or {}).get("tokenizer_sha256", sha256):
        log.warning("The tokenizer of %s is not the one this dataset was made with; texts may be wrong.", model)


@functools.lru_cache(maxsize=4)
def _loaded(model: str, revision: str | None) -> tuple[Any, str]:
    """The tokenizer, and its hash as it was before anyone used it."""
    from teacher_logits import conversations

    try:
        tokenizer = conversations.load_tokenizer(model, revision, trust_remote_code=False)
    except TeacherError as error:
        raise TeacherError(
            f"{str(error).rstrip('.')}. Give another: tokenizer= in Python, --tokenizer in a terminal."
        ) from error
    return tokenizer, conversations.tokenizer_sha256(tokenizer)
