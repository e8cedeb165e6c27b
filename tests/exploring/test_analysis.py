"""What the teacher thought of each token, against its whole distributions."""

import math
from pathlib import Path

import numpy as np
import pytest

from explore_logits import analyze_token_probabilities, decode_top_tokens, get_sample, load_logit_dataset
from teacher_logits.errors import FormatError, TeacherError
from teacher_logits.exploring import TokenProbability, most_surprising
from teacher_logits.exploring.text import percent, surprises_text
from tests.exploring.made import CAP, SMILE, TEXTS, Made
from tests.extraction.runs import Place
from tests.extraction.test_rows import Recomputed
from tests.tiny import messages, write_jsonl


@pytest.mark.parametrize("index", TEXTS)
def test_records_against_the_whole_distributions(made: Made, index: int):
    records = analyze_token_probabilities(load_logit_dataset(made.folder), index=index, tokenizer=made.tokenizer)
    probabilities, tokens = made.probabilities(index), made.tokens(index)
    assert [record.entry for record in records] == list(range(len(tokens)))
    assert [record.position for record in records] == made.examples[index].positions.tolist()
    assert [record.id for record in records] == tokens.tolist()
    for record, row in zip(records, probabilities, strict=True):
        assert record.probability == pytest.approx(row[record.id], rel=1e-5)
        assert record.log_probability == pytest.approx(math.log(row[record.id]), rel=1e-5)
        assert record.surprise_bits == pytest.approx(-math.log2(row[record.id]), rel=1e-5)
        assert record.surprise_nats == -record.log_probability
        order = np.argsort(-row, kind="stable")
        place = int(np.flatnonzero(order == record.id)[0])
        nucleus = min(CAP, int((np.cumsum(row[order]) - row[order] < 0.98).sum()))
        assert record.rank == (place + 1 if place < nucleus else None)
        assert (record.where == "nucleus") == (place < nucleus)
        count = min(5, nucleus)
        assert [choice.id for choice in record.alternatives] == order[:count].tolist()
        np.testing.assert_allclose([choice.probability for choice in record.alternatives], row[order[:count]])


def test_where_tokens_are_stored(made: Made):
    records = analyze_token_probabilities(load_logit_dataset(made.folder), index=9)
    assert [record.where for record in records][:3] == ["nucleus", "nucleus", "sample"]
    everywhere = analyze_token_probabilities(load_logit_dataset(made.folder), 0)
    assert {"nucleus", "neither"} <= {record.where for record in everywhere}
    for index in TEXTS:
        for record in analyze_token_probabilities(load_logit_dataset(made.folder), index=index):
            drawn = made.entries[index].sampled_ids[record.entry]
            assert (record.where == "sample") == (record.id in drawn)


def test_token_texts(made: Made):
    records = analyze_token_probabilities(load_logit_dataset(made.folder), index=5, alternatives=2)
    assert [record.token for record in records][-5:] == ["\\xf0", "\\x9f", "\\x99", "\\x82", "<|end|>"]
    assert SMILE in TEXTS[5][1]
    assert all(len(record.alternatives) <= 2 for record in records)
    assert records[0].alternatives[0].token.startswith("<id ")


def test_without_the_column_token_logprob(made: Made):
    sample = get_sample(load_logit_dataset(made.folder), index=9)
    exact = [record.log_probability for record in analyze_token_probabilities(sample)]
    del sample["token_logprob"]
    records = analyze_token_probabilities(sample)
    for record, wanted in zip(records, exact, strict=True):
        if record.where == "neither":
            assert math.isnan(record.log_probability)
        else:
            assert record.log_probability == pytest.approx(wanted, rel=1e-6)
    assert {"sample", "nucleus"} <= {record.where for record in records}


def test_shares_as_text():
    texts = [percent(share) for share in (0.0, 0.9876, 1e-7, 1.0, math.nan)]
    assert texts == ["0.00 %", "98.76 %", "1.0e-05 %", "100.00 %", "unknown"]


def test_most_surprising(made: Made):
    records = analyze_token_probabilities(load_logit_dataset(made.folder), 0)
    worst = most_surprising(records, 5)
    own = made.probabilities(17)[np.arange(len(records)), made.tokens(17)]
    assert [record.entry for record in worst] == np.argsort(own, kind="stable")[:5].tolist()


@pytest.mark.parametrize("index", TEXTS)
def test_tokens_of_unknown_probability_are_the_least_surprising(made: Made, index: int):
    sample = get_sample(load_logit_dataset(made.folder), index=index)
    del sample["token_logprob"]
    records = analyze_token_probabilities(sample)
    ranked = most_surprising(records, len(records))
    known = [record for record in records if record.where != "neither"]
    assert ranked[: len(known)] == sorted(known, key=lambda record: (record.log_probability, record.entry))
    unknown = [record for record in records if record.where == "neither"]
    assert [record.entry for record in ranked[len(known) :]] == [record.entry for record in unknown]
    text = surprises_text(ranked)
    assert "nan" not in text.split() and text.split().count("unknown") == 2 * len(unknown)


def test_top_tokens(made: Made):
    sample = get_sample(load_logit_dataset(made.folder), index=5)
    row = made.probabilities(5)[1]
    choices = decode_top_tokens(sample, 1, made.tokenizer, k=2)
    assert [choice.id for choice in choices] == np.argsort(-row, kind="stable")[:2].tolist()
    assert choices[0].id == made.tokens(5)[1] and choices[0].token == "es"[: len(choices[0].token)]
    np.testing.assert_allclose([choice.probability for choice in choices], np.sort(row)[::-1][:2])
    assert decode_top_tokens(sample, -1)[0].id == sample["top_indices"][-1][0]
    assert len(decode_top_tokens(sample, 0, made.tokenizer, k=99)) == sample["top_counts"][0]
    with pytest.raises(IndexError):
        decode_top_tokens(sample, sample["num_tokens"], made.tokenizer)


def test_what_can_not_be_told(made: Made, tokenless: Made):
    with pytest.raises(FormatError, match="--no-store-tokens"):
        analyze_token_probabilities(load_logit_dataset(tokenless.folder))
    sample = dict(get_sample(load_logit_dataset(made.folder), 0), run={})
    with pytest.raises(TeacherError, match="tokenizer="):
        analyze_token_probabilities(sample)


def test_several_turns_in_one_row(tiny_teacher: Path, tmp_path: Path):
    """Each turn's tokens are told apart by their positions, and stand by what the teacher thought there."""
    said = ["What is it?", "the river", "why", "the old bridge", "how many", "There are four."]
    data = write_jsonl(tmp_path / "chat.jsonl", [{"messages": messages(*said, system="Be kind.")}])
    Place(tiny_teacher, data, tmp_path / "logits", tmp_path / "cache").run(max_batch_size=1)
    records = analyze_token_probabilities(load_logit_dataset(tmp_path / "logits"))
    turns: list[list[TokenProbability]] = []
    for before, record in zip([None, *records], records, strict=False):
        if before is None or record.position != before.position + 1:
            turns.append([])
        turns[-1].append(record)
    assert ["".join(record.token for record in turn) for turn in turns] == [f"{text}<|im_end|>" for text in said[1::2]]
    assert [record.entry for record in records] == list(range(len(records)))
    sample = get_sample(load_logit_dataset(tmp_path / "logits"), 0)
    probabilities = Recomputed(tiny_teacher).logits(sample["input_ids"].tolist()).double().softmax(-1)
    for record in records:
        expected = probabilities[record.position - 1]
        assert record.id == sample["input_ids"][record.position]
        assert record.probability == pytest.approx(float(expected[record.id]), rel=1e-4)
        assert record.alternatives[0].id == int(expected.argmax())
