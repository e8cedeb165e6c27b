"""What the teacher is, found out before its weights are loaded."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teacher_logits.errors import TeacherError
from teacher_logits.settings import SourceOptions

_SAMPLE_BYTES = 256
_CONFIG_FILES = ("config.json", "generation_config.json")


@dataclass(frozen=True)
class TeacherIdentity:
    """A model by what it holds."""

    name: str
    """Hub id, or the folder's own name without its path."""
    address: str
    """What transformers loads: Hub id or path."""
    commit: str | None
    """The commit on the Hub; None for a folder."""
    content: str
    """For the fingerprint: Hub id and commit, or a hash of the folder's config and weights."""
    context: int | None
    """Longest sequence the model is made for; None where it doesn't say."""
    vocabulary: int | None
    """Rows of the output embedding, as the config tells."""
    end_ids: tuple[int, ...]
    """End tokens of config and generation config."""


def identify_teacher(config: SourceOptions, revision: str | None = None) -> TeacherIdentity:
    """Read the model's config. revision: a stored commit, which wins over the option.

    Raises TeacherError where there is no such model, or one that needs --trust-remote-code.
    """
    from transformers import AutoConfig, GenerationConfig

    assert config.model is not None
    folder = Path(config.model).expanduser()
    address = str(folder) if folder.is_dir() else config.model
    revision = revision or config.revision
    try:
        settings = AutoConfig.from_pretrained(address, revision=revision, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise TeacherError(_cannot_open(config.model, error)) from error
    commit = None if folder.is_dir() else getattr(settings, "_commit_hash", None)
    text = settings.get_text_config()
    end_ids = _ids(getattr(text, "eos_token_id", None))
    try:
        generation = GenerationConfig.from_pretrained(address, revision=commit or revision)
        end_ids |= _ids(generation.eos_token_id)
    except (OSError, ValueError) as error:
        if folder.is_dir() and (folder / "generation_config.json").is_file():
            raise TeacherError(_cannot_open(config.model, error)) from error
        # a model needs no generation config
    return TeacherIdentity(
        name=folder.resolve().name if folder.is_dir() else config.model,
        address=address,
        commit=commit,
        content=_readable_content(folder) if folder.is_dir() else f"hub:{config.model}@{commit}",
        context=getattr(text, "max_position_embeddings", None),
        vocabulary=getattr(text, "vocab_size", None),
        end_ids=tuple(sorted(end_ids)),
    )


def _readable_content(folder: Path) -> str:
    try:
        return folder_content(folder)
    except OSError as error:
        raise TeacherError(f"The model in {folder} can't be read: {error}. Check its files' permissions.") from error


def folder_content(folder: Path) -> str:
    """A hash of a model folder: config, and of each weight file its size, header and a sample of every tensor.

    Headers and sizes alone are equal for all checkpoints of one training run; a few bytes from the middle of each
    tensor tell them apart without reading gigabytes.
    """
    digest = hashlib.sha256()
    for name in _CONFIG_FILES:
        if (folder / name).is_file():
            digest.update(_without_versions(folder / name))
    for weights in sorted(folder.glob("*.safetensors")):
        digest.update(str(weights.stat().st_size).encode())
        header, begin = _header(weights)
        digest.update(header)
        with weights.open("rb") as stream:
            for name, tensor in sorted(json.loads(header).items()):
                if name != "__metadata__":
                    first, past = tensor["data_offsets"]
                    stream.seek(begin + first + max(0, (past - first) // 2 - _SAMPLE_BYTES))
                    digest.update(stream.read(min(past - first, 2 * _SAMPLE_BYTES)))
    return f"sha256:{digest.hexdigest()}"


def _header(weights: Path) -> tuple[bytes, int]:
    """The header of a safetensors file, and where its numbers begin. Raises TeacherError where it isn't whole."""
    size = weights.stat().st_size
    with weights.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length) if 8 + length <= size else b""
    try:
        tensors = json.loads(header)
        past = max((tensors[name]["data_offsets"][1] for name in tensors if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError):
        past = -1
    if size != 8 + length + past:
        raise TeacherError(
            f"{weights} is not a whole .safetensors file ({size:,} bytes). Download it again; after `git clone` "
            "without Git LFS there is only a pointer in its place."
        )
    return header, 8 + length


def _without_versions(path: Path) -> bytes:
    """A config file's content without the version of transformers that wrote it."""
    content = json.loads(path.read_text())
    content.pop("transformers_version", None)
    return json.dumps(content, sort_keys=True).encode()


def _ids(value: Any) -> set[int]:
    if value is None:
        return set()
    return set(value) if isinstance(value, list | tuple) else {int(value)}


def _cannot_open(model: str, error: BaseException) -> str:
    text = str(error)
    if "trust_remote_code" in text:
        return (
            f"The model {model} comes with Python code of its own, which can do anything you can. If you trust its "
            "authors, pass --trust-remote-code."
        )
    if model.startswith((".", "/", "~")) and not Path(model).expanduser().exists():
        return f"There is no folder {model} with a model (config.json). Give a path that exists, or a Hub id."
    first = (text.strip().splitlines() or [type(error).__name__])[0]
    return (
        f"The model {model!r} can't be opened: {first} Expected a Hub id, or a folder with config.json; for a private "
        "or gated model log in with `hf auth login` or set HF_TOKEN."
    )
