"""What a source and a tokenizer are, whatever they are called and wherever they lie."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from teacher_logits.files import sha256_files

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def tokenizer_sha256(tokenizer: "PreTrainedTokenizerFast") -> str:
    """A hash of all that decides how the tokenizer turns text into ids, and of its named special tokens.

    Truncation and padding are left out: each call sets them anew, and leaves them behind in the tokenizer.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    return text_sha256(json.dumps([backend, tokenizer.special_tokens_map], sort_keys=True))


def text_sha256(text: str) -> str:
    """SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def local_content(files: list[Path]) -> str:
    """A hash of a local dataset's rows, as its files hold them in this order; their names and place don't matter."""
    return "sha256:" + sha256_files(files)


def hub_content(address: str, config_name: str | None, pattern: str | None, commit: str) -> str:
    """Which rows of the Hub: of a dataset, or of its subset, or of its files that fit a pattern, at a commit."""
    subset = f":{config_name}" if config_name else ""
    files = f"/{pattern}" if pattern else ""
    return f"hub:{address}{subset}{files}@{commit}"
