"""The fingerprint: the same for ever for the same content, another for any field that decides the rows."""

import json
from typing import Any

import pytest

from teacher_logits.settings import FINGERPRINT_FIELDS, differing_fields, fingerprint

METADATA: dict[str, Any] = {
    "format_version": 1,
    "model_content": "a/b@0123",
    "tokenizer_sha256": "11" * 32,
    "model_dtype": "bfloat16",
    "source_content": "c/d@4567",
    "source_split": "train",
    "source_columns": {"user": "question", "assistant": "answer", "index": None},
    "chat_template_sha256": "22" * 32,
    "pinned_date": None,
    "mask_method": "generation",
    "turns": "all",
    "exclusions": ["think"],
    "system_prompt": "Sei höflich.",
    "top_p": 0.98,
    "top_p_max_elements": 100,
    "sampled_n": 24,
    "vocab_limit": None,
    "seed": 42,
    "store_tokens": True,
}
KNOWN = "45bf4a6d04616252a72bdde7de67da21ba0d57215f63f9f169862b4462fdf8d9"


def test_known_answer():
    """Were this to change, no unfinished run could be resumed any more."""
    assert fingerprint(METADATA) == KNOWN


def test_fields_are_the_documented_ones():
    assert tuple(METADATA) == FINGERPRINT_FIELDS


@pytest.mark.parametrize("field", FINGERPRINT_FIELDS)
def test_each_field_counts(field: str):
    others = ["other", None, 7, 0.5, False, ["think", "end"], {"user": "text"}]
    changed = [{**METADATA, field: value} for value in others if value != METADATA[field]]
    prints = {fingerprint(metadata) for metadata in changed}
    assert len(prints | {KNOWN}) == len(changed) + 1
    for metadata in changed:
        assert differing_fields(METADATA, metadata) == [
            f"{field} (stored {METADATA[field]!r}, now {metadata[field]!r})"
        ]


def test_nothing_else_counts():
    more = {"torch_version": "9", "limit": 5, "min_index": 3, "fingerprint": "x", "vocab_size": 7}
    backwards = dict(reversed({**METADATA, **more}.items()))
    assert fingerprint(backwards) == KNOWN
    assert differing_fields(METADATA, backwards) == []


def test_what_json_writes_the_same_is_the_same():
    """A run's metadata is compared with what checkpoint.json gives back: lists for tuples, nothing more."""
    now = {
        **METADATA,
        "exclusions": ("think",),
        "source_columns": {"index": None, "assistant": "answer", "user": "question"},
    }
    stored = json.loads(json.dumps(now))
    assert fingerprint(now) == fingerprint(stored) == KNOWN
    assert differing_fields(stored, now) == []


def test_fields_that_differ_for_the_fingerprint_are_named():
    """1 and 1.0, or 1 and True, are equal in Python but not to the fingerprint."""
    for field, one, other in (("top_p", 1, 1.0), ("seed", 1, True)):
        stored, now = {**METADATA, field: one}, {**METADATA, field: other}
        assert (fingerprint(stored) != fingerprint(now)) == bool(differing_fields(stored, now))


def test_missing_fields():
    for field in FINGERPRINT_FIELDS:
        less = {name: value for name, value in METADATA.items() if name != field}
        with pytest.raises(KeyError, match=field):
            fingerprint(less)
    assert differing_fields({}, {**METADATA}) == [
        f"{field} (stored None, now {value!r})" for field, value in METADATA.items() if value is not None
    ]


def test_numbers_that_json_cant_hold():
    with pytest.raises(ValueError):
        fingerprint({**METADATA, "top_p": float("nan")})
