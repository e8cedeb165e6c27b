"""A shard of format version 1 as it was once written decodes to the same values for ever."""

import json

import numpy as np
import pytest

from teacher_logits.shards import read_entries, read_indices, read_metadata, read_table
from tests.shards.golden.make import FOLDER, decoded_by_loops, golden_entries

SHARD = FOLDER / "v1.parquet"


@pytest.fixture(scope="module")
def expected() -> dict:
    return json.loads((FOLDER / "v1.json").read_text())


def test_small_enough_to_keep():
    assert SHARD.stat().st_size < 20_000


def test_metadata(expected: dict):
    assert read_metadata(SHARD) == expected["metadata"]


def test_entries(expected: dict):
    decoded = read_entries(SHARD)
    entries = [entry for row in expected["rows"] for entry in row["entries"]]
    assert decoded.counts.tolist() == [len(entry["top_ids"]) for entry in entries]
    assert decoded.top_ids.tolist() == [token for entry in entries for token in entry["top_ids"]]
    assert decoded.top_logits.tolist() == [logit for entry in entries for logit in entry["top_logits"]]
    assert decoded.sampled_ids.tolist() == [entry["sampled_ids"] for entry in entries]
    assert decoded.sampled_logits.tolist() == [entry["sampled_logits"] for entry in entries]
    assert decoded.logsumexp.tolist() == [entry["logsumexp"] for entry in entries]


def test_other_columns(expected: dict):
    table = read_table(SHARD)
    assert read_indices(SHARD).tolist() == [3, 1003, 2003] == [row["index"] for row in expected["rows"]]
    for name in ("num_tokens", "input_ids", "positions"):
        assert table.column(name).to_pylist() == [row[name] for row in expected["rows"]]
    for name in ("logsumexp_t2", "logsumexp_t4", "token_logprob"):
        of_rows = [[entry[name] for entry in row["entries"]] for row in expected["rows"]]
        assert table.column(name).to_pylist() == of_rows


def test_loops_and_the_entries_it_was_made_from_say_the_same(expected: dict):
    assert decoded_by_loops(SHARD) == expected["rows"]
    made = golden_entries()
    entries = [entry for row in expected["rows"] for entry in row["entries"]]
    for place, entry in enumerate(entries):
        count = made.top_counts[place]
        assert entry["top_ids"] == made.top_ids[place, :count].tolist()
        assert entry["top_logits"] == made.top_logits[place, :count].tolist()
        assert entry["sampled_ids"] == made.sampled_ids[place].tolist()
        assert entry["sampled_logits"] == made.sampled_logits[place].tolist()
    assert {id_ >> 16 for entry in entries for id_ in entry["top_ids"]} == {0, 1, 2, 3}
    assert np.isclose(entries[0]["logsumexp"], 12 + 1 / 3, rtol=0, atol=0)
