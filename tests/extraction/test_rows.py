"""Every value of every column against a recomputation that shares no code with the way there."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from teacher_logits.sampling.reference import reference_entry
from teacher_logits.shards import shard_schema
from tests.extraction.runs import Place, require_agreement, stored_rows
from tests.tiny import question_rows, write_jsonl

CAP, SAMPLED, SEED = 100, 24, 42


class Recomputed:
    """A teacher, one conversation at a time, by way of transformers alone."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    def tokens(self, row: dict[str, Any]) -> tuple[list[int], list[int]]:
        """Ids of a question and answer, and the positions of the assistant's."""
        messages = [
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": row["answer"]},
        ]
        found = self.tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
        return list(found["input_ids"]), [place for place, marked in enumerate(found["assistant_masks"]) if marked]

    def logits(self, ids: list[int]) -> torch.Tensor:
        """[T, V] in float32, whatever the model computes in."""
        with torch.inference_mode():
            return self.model(torch.tensor([ids]), use_cache=False).logits[0].float()


def unpacked(low: list[int], high: bytes) -> list[int]:
    """id = low | high << 16, with the high bits four to a byte, the first in the lowest."""
    assert len(high) == math.ceil(len(low) / 4)
    return [value | (high[place // 4] >> 2 * (place % 4) & 3) << 16 for place, value in enumerate(low)]


def dequantized(q: list[int], low: float, high: float) -> list[float]:
    return [low + value / 65535 * (high - low) for value in q]


def check_row(row: dict[str, Any], source: dict[str, Any], teacher: Recomputed, entries: int | None = None) -> None:
    """Compare a stored row with its recomputation (of the first `entries` entries only, where given)."""
    ids, positions = teacher.tokens(source)
    assert row["input_ids"] == ids and row["positions"] == positions
    assert row["num_tokens"] == len(positions) == len(row["top_counts"])
    logits = teacher.logits(ids)
    top_ids = unpacked(row["top_indices_low"], row["top_indices_high"])
    sampled_ids = unpacked(row["sampled_indices_low"], row["sampled_indices_high"])
    assert len(top_ids) == len(row["top_logits_quantized"]) == sum(row["top_counts"])
    assert len(sampled_ids) == len(row["sampled_logits_quantized"]) == SAMPLED * len(positions)
    begin = 0
    for entry, position in enumerate(positions[:entries]):
        x = logits[position - 1]
        expected = reference_entry(x.tolist(), ids[position], row["index"], position, 0.98, CAP, SAMPLED, SEED)
        past = begin + row["top_counts"][entry]
        assert top_ids[begin:past] == expected.top_ids
        drawn = sampled_ids[SAMPLED * entry : SAMPLED * (entry + 1)]
        assert drawn == expected.sampled_ids
        for kind, found, q in (
            ("top", expected.top_ids, row["top_logits_quantized"][begin:past]),
            ("sampled", drawn, row["sampled_logits_quantized"][SAMPLED * entry : SAMPLED * (entry + 1)]),
        ):
            low, high = row[f"{kind}_min"][entry], row[f"{kind}_max"][entry]
            true = x[found].double().numpy()
            assert (low, high) == pytest.approx((true.min(), true.max()), abs=2e-5)
            np.testing.assert_allclose(dequantized(q, low, high), true, rtol=0, atol=(high - low) / 131070 + 2e-5)
        assert row["logsumexp"][entry] == pytest.approx(expected.logsumexp, abs=2e-5)
        assert row["logsumexp_t2"][entry] == pytest.approx(expected.logsumexp_t2, abs=2e-5)
        assert row["logsumexp_t4"][entry] == pytest.approx(expected.logsumexp_t4, abs=2e-5)
        assert row["token_logprob"][entry] == pytest.approx(expected.token_logprob, abs=4e-5)
        begin = past


@pytest.fixture(scope="session")
def sources(tiny_chat: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in tiny_chat.read_text().splitlines()]


def test_all_columns(reference: Place, sources: list[dict[str, Any]]):
    table = stored_rows(reference.folder)
    assert table.schema.equals(shard_schema()) and len(table.schema) == 19
    assert table.column("index").to_pylist() == list(range(30))
    teacher = Recomputed(reference.teacher)
    for row in table.to_pylist():
        check_row(row, sources[row["index"]], teacher, entries=None if row["index"] < 8 else 3)
    assert any(count > 20 for counts in table["top_counts"].to_pylist() for count in counts)
    assert any(count < 4 for counts in table["top_counts"].to_pylist() for count in counts), "a test of both kinds"


def test_shards_and_checkpoint(reference: Place, sources: list[dict[str, Any]]):
    checkpoint = require_agreement(reference.folder)
    assert checkpoint["complete"] is True
    assert [entry["rows"] for _, entry in sorted(checkpoint["shards"].items())] == [7, 7, 7, 7, 2]
    prefix = f"data/train-{checkpoint['fingerprint'][:8]}-"
    assert sorted(checkpoint["shards"]) == [f"{prefix}{number:05d}.parquet" for number in range(5)]
    paths = sorted((reference.folder / "data").iterdir())
    lengths = [
        len(ids) for path in paths for ids in pq.read_table(path, columns=["input_ids"])["input_ids"].to_pylist()
    ]
    assert lengths == sorted(lengths, reverse=True), "longest first"
    for path in paths:
        carried = json.loads(pq.read_schema(path).metadata[b"teacher_logits"])
        indices = pq.read_table(path, columns=["index"])["index"].to_pylist()
        assert (carried.pop("min_index"), carried.pop("max_index")) == (min(indices), max(indices))
        assert "chat_template" not in carried
        assert carried == {k: v for k, v in checkpoint["metadata"].items() if k != "chat_template"}
        assert str(reference.teacher.parent) not in json.dumps(carried), "no path"
    metadata = checkpoint["metadata"]
    assert (metadata["vocab_size"], metadata["vocab_used"], metadata["tokenizer_length"]) == (400, 400, 384)
    assert (metadata["model_dtype"], metadata["logits_dtype"]) == ("float32", "float32")
    assert metadata["fingerprint"] == checkpoint["fingerprint"] and "generation" in metadata["chat_template"]
    assert checkpoint["config"]["upload_every"] == 7 and checkpoint["config"]["resume"] is False
    assert not reference.waiting() and reference.kept["complete"] is True


def test_ids_past_16_bits(save_tiny_teacher: Any, tmp_path: Path):
    rows = question_rows(3, longest=3)
    teacher = save_tiny_teacher(vocabulary=70_000, spread=3.0)
    place = Place(teacher, write_jsonl(tmp_path / "chat.jsonl", rows), tmp_path / "logits", tmp_path / "cache")
    place.run(max_batch_size=1)
    recomputed = Recomputed(teacher)
    table = stored_rows(place.folder)
    for row in table.to_pylist():
        check_row(row, rows[row["index"]], recomputed, entries=1)
    assert any(sum(high) for high in table["sampled_indices_high"].to_pylist())


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_other_types(place: Place, sources: list[dict[str, Any]], dtype: str):
    place.run(max_batch_size=1, limit=4, dtype=dtype)
    assert place.checkpoint["metadata"]["model_dtype"] == dtype == place.checkpoint["metadata"]["logits_dtype"]
    teacher = Recomputed(place.teacher, getattr(torch, dtype))
    for row in stored_rows(place.folder).to_pylist():
        check_row(row, sources[row["index"]], teacher, entries=6)


def test_same_bytes_twice(place: Place, reference: Place):
    place.run(max_batch_size=1)
    first, second = (sorted((each.folder / "data").iterdir()) for each in (reference, place))
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize("sizes", [{"max_batch_size": 7}, {"batch_tokens": 4096}, {"batch_thresholds": {"40": 3}}])
def test_batches_change_rounding_alone(place: Place, reference: Place, sizes: dict[str, Any]):
    place.run(**sizes)
    require_same_up_to_rounding(stored_rows(place.folder), stored_rows(reference.folder))


def require_same_up_to_rounding(found: pa.Table, expected: pa.Table) -> None:
    """Equal tokens; sums and logits close; nearly all ids equal (a draw at an edge may fall on its other side)."""
    for name in ("index", "num_tokens", "input_ids", "positions"):
        assert found[name].equals(expected[name]), name
    for name in ("logsumexp", "logsumexp_t2", "logsumexp_t4", "token_logprob", "top_max"):
        a, b = (np.concatenate([np.asarray(row) for row in table[name].to_pylist()]) for table in (found, expected))
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4, err_msg=name)
    for name in ("top_counts", "sampled_indices_low"):
        pairs = zip(found[name].to_pylist(), expected[name].to_pylist(), strict=True)
        equal = [x == y for left, right in pairs for x, y in zip(left, right, strict=True)]
        assert np.mean(equal) > 0.995, name
