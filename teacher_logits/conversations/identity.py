"""What a source and a tokenizer are, whatever they are called and wherever they lie."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from teacher_logits.files import sha256_files

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

DATA_SUFFIXES = (".jsonl", ".json", ".parquet", ".arrow")


def tokenizer_sha256(tokenizer: "PreTrainedTokenizerFast") -> str:
    """A hash of all that decides how the tokenizer turns text into ids, and of its named special tokens.

    Truncation and padding are left out: each call sets them anew, and leaves them behind in the tokenizer.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    return text_sha256(json.dumps([backend, tokenizer.special_tokens_map], sort_keys=True))


def text_sha256(text: str) -> str:
    """SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def data_files(path: Path) -> list[Path]:
    """The files that hold a local dataset's rows: the file itself, what a saved dataset lists, or all data files."""
    if path.is_file():
        return [path]
    state = path / "state.json"
    if state.is_file():
        return [path / entry["filename"] for entry in json.loads(state.read_text())["_data_files"]]
    if (path / "dataset_dict.json").is_file():
        return sorted(path.glob("*/*.arrow"))
    return sorted(file for file in path.rglob("*") if file.suffix in DATA_SUFFIXES and file.parent.name != "assets")


def local_content(path: Path) -> str:
    """A hash of a local dataset's rows, as its files hold them; their names and place don't matter."""
    return "sha256:" + sha256_files(data_files(path))
