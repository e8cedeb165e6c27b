"""The fingerprint: a hash over what decides a row's content given its index, and over nothing else."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

FINGERPRINT_FIELDS = (
    "format_version",
    "model_content",
    "tokenizer_sha256",
    "model_dtype",
    "source_content",
    "source_split",
    "source_columns",
    "chat_template_sha256",
    "pinned_date",
    "mask_method",
    "turns",
    "exclusions",
    "system_prompt",
    "top_p",
    "top_p_max_elements",
    "sampled_n",
    "vocab_limit",
    "seed",
    "store_tokens",
)
"""Keys of a run's metadata that are hashed. `model_content` and `source_content` stand for a Hub id and commit, or
for hashes of local files; never for a path."""


def fingerprint(metadata: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the metadata's `FINGERPRINT_FIELDS`. Raises KeyError where one is missing."""
    content = {field: metadata[field] for field in FINGERPRINT_FIELDS}
    return hashlib.sha256(_canonical(content).encode()).hexdigest()


def differing_fields(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The `FINGERPRINT_FIELDS` in which two runs differ, each as 'name (stored ..., now ...)'.

    They are compared as they are hashed: a tuple is the list that JSON makes of it, and 1 is not 1.0.
    """
    return [
        f"{field} (stored {stored.get(field)!r}, now {wanted.get(field)!r})"
        for field in FINGERPRINT_FIELDS
        if _canonical(stored.get(field)) != _canonical(wanted.get(field))
    ]


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
