"""Decoded samples against the logits they were made of."""

import numpy as np
import pytest
import torch

from explore_logits import (
    dequantize_all_logits,
    dequantize_logits,
    dequantize_sampled_logits,
    dequantize_top_logits,
    get_nucleus_probability_mass,
    get_sample,
    load_logit_dataset,
    logits_to_probs,
)
from teacher_logits.shards import read_entries
from tests.exploring.made import CAP, RUN, SAMPLED_N, TEXTS, TOP_P, Made


def assert_restored(decoded: np.ndarray, exact: np.ndarray) -> None:
    """Equal, but for values near zero, which may miss by a step."""
    near_zero = np.abs(exact) < 0.1
    np.testing.assert_array_equal(decoded[~near_zero], exact[~near_zero])
    np.testing.assert_allclose(decoded, exact, rtol=0, atol=(exact.max() - exact.min()) / 65535)


@pytest.mark.parametrize("index", TEXTS)
def test_nucleus_is_the_top_of_the_teachers_distribution(made: Made, index: int):
    sample = get_sample(load_logit_dataset(made.folder), index=index)
    logits, probabilities = made.logits[index].float().numpy(), made.probabilities(index)
    assert sample["num_tokens"] == len(logits) == len(sample["top_indices"])
    decoded = dequantize_top_logits(sample)
    masses = get_nucleus_probability_mass(sample)
    for entry, ids in enumerate(sample["top_indices"]):
        order = np.argsort(-logits[entry], kind="stable")
        before = np.cumsum(probabilities[entry][order]) - probabilities[entry][order]
        wanted = order[before < TOP_P][:CAP]
        assert ids.tolist() == wanted.tolist()
        assert len(ids) == sample["top_counts"][entry]
        np.testing.assert_array_equal(decoded[entry], logits[entry][wanted])
        seen = logits_to_probs(decoded[entry], sample["logsumexp"][entry])
        np.testing.assert_allclose(seen, probabilities[entry][wanted], rtol=1e-9)
        assert masses[entry] == pytest.approx(probabilities[entry][wanted].sum())
    assert len({ids[0] for ids in map(tuple, sample["top_indices"])}) > 1, "the entries must differ to prove anything"
    assert max(ids.max() for ids in sample["top_indices"]) > 65535


@pytest.mark.parametrize("index", TEXTS)
def test_samples_are_the_draws_in_their_order(made: Made, index: int):
    sample = get_sample(load_logit_dataset(made.folder), index=index)
    logits = made.logits[index].float().numpy()
    decoded = dequantize_sampled_logits(sample)
    for entry, ids in enumerate(sample["sampled_indices"]):
        assert ids.tolist() == made.entries[index].sampled_ids[entry].tolist()
        assert len(set(ids.tolist())) == SAMPLED_N
        assert_restored(decoded[entry], logits[entry][ids])
    both = dequantize_all_logits(sample)
    for entry, (top, sampled) in enumerate(zip(sample["top_indices"], sample["sampled_indices"], strict=True)):
        np.testing.assert_array_equal(both[entry][: len(top)], logits[entry][top])
        assert_restored(both[entry][len(top) :], logits[entry][sampled])


def test_scalars_belong_to_their_tokens(made: Made):
    sample = get_sample(load_logit_dataset(made.folder), 0)
    logits = made.logits[17].double()
    for name, temperature in (("logsumexp", 1), ("logsumexp_t2", 2), ("logsumexp_t4", 4)):
        np.testing.assert_allclose(sample[name], torch.logsumexp(logits / temperature, 1).numpy(), rtol=1e-6)
    own = made.probabilities(17)[np.arange(len(logits)), made.tokens(17)]
    np.testing.assert_allclose(sample["token_logprob"], np.log(own), rtol=1e-5)
    np.testing.assert_array_equal(sample["input_ids"], made.examples[17].input_ids)
    np.testing.assert_array_equal(sample["positions"], made.examples[17].positions)


def test_the_same_as_the_shards_reader(made: Made):
    entries = read_entries(made.folder / f"data/train-{RUN}-00000.parquet")
    samples = [get_sample(load_logit_dataset(made.folder), place) for place in (0, 1)]
    decoded = np.concatenate([row for sample in samples for row in dequantize_top_logits(sample)])
    np.testing.assert_array_equal(decoded, entries.top_logits)
    drawn = np.concatenate([row for sample in samples for row in dequantize_sampled_logits(sample)])
    np.testing.assert_array_equal(drawn, entries.sampled_logits.reshape(-1))


def test_rounding_is_a_choice(made: Made):
    sample = dict(get_sample(load_logit_dataset(made.folder), 0), logits_dtype=None)
    unrounded = np.concatenate(dequantize_sampled_logits(sample))
    exact = (
        made.logits[17]
        .float()
        .numpy()[np.arange(sample["num_tokens"]).repeat(SAMPLED_N), np.concatenate(sample["sampled_indices"])]
    )
    steps = np.repeat((sample["sampled_max"] - sample["sampled_min"]) / 131070, SAMPLED_N)
    assert (np.abs(unrounded - exact) <= steps * 1.0001).all()
    assert (unrounded != exact).any()
    assert_restored(np.concatenate(dequantize_sampled_logits(sample, "bfloat16")), exact)


def test_elementary_dequantization():
    np.testing.assert_array_equal(dequantize_logits([0, 65535, 13107], -1.0, 4.0), [-1.0, 4.0, 0.0])
    rows = dequantize_logits(np.array([[0, 65535], [65535, 0]]), np.array([[1.0], [2.0]]), np.array([[3.0], [2.0]]))
    np.testing.assert_array_equal(rows, [[1, 3], [2, 2]])
    assert dequantize_logits([30000], 0.0, 1.0, "bfloat16")[0] == 0.45703125
    assert dequantize_logits([], 0.0, 1.0).shape == (0,)


def test_probabilities_take_the_logsumexp_of_their_token():
    logits, totals = np.log([[0.5, 0.25], [0.1, 0.2]]), np.log([1.0, 2.0])
    np.testing.assert_allclose(logits_to_probs(logits, totals), [[0.5, 0.25], [0.05, 0.1]])
    ragged = logits_to_probs([logits[0], logits[1][:1]], totals)
    np.testing.assert_allclose(ragged[0], [0.5, 0.25])
    np.testing.assert_allclose(ragged[1], [0.05])
    np.testing.assert_allclose(logits_to_probs(logits[1], totals[1]), [0.05, 0.1])
    with pytest.raises(ValueError):
        logits_to_probs([logits[0]], totals)
