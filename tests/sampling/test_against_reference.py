"""Every field of `sample` against the slow twin, on rows of every kind."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from teacher_logits.sampling import SamplingSettings, sample
from teacher_logits.sampling.nucleus import largest
from teacher_logits.sampling.rows import read_rows
from tests.codec.quick import quick
from tests.sampling.rows import DTYPES, KINDS, assert_like_reference, made_rows


def keys(rows: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, conversations (one of them negative) and positions of `rows` rows."""
    place = torch.arange(rows)
    return place * 5 % width, place * 1000 - 1, place * 3 + 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [128, 333])
def test_rows_of_every_kind(kind: str, dtype: torch.dtype, width: int):
    logits = made_rows(kind, 11, width, seed=width, dtype=dtype)
    for top_p, cap, sampled_n in ((0.98, 100, 24), (0.6, 3, 40)):
        assert_like_reference(logits, SamplingSettings(top_p, cap, sampled_n, 42, width), *keys(11, width))


@quick(80)
@given(
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from(DTYPES),
    width=st.integers(1, 200),
    used=st.integers(1, 200),
    top_p=st.floats(1e-6, 1) | st.sampled_from([0.98, 1.0, 1 - 2**-53]),
    cap=st.integers(1, 255),
    sampled_n=st.integers(1, 40),
    seed=st.integers(0, 2**64 - 1),
    index=st.integers(-(2**31), 2**31 - 1),
    position=st.integers(1, 2**31 - 1),
    token=st.integers(0, 199),
    rows_seed=st.integers(0, 1000),
)
def test_any_settings(kind, dtype, width, used, top_p, cap, sampled_n, seed, index, position, token, rows_seed):
    used = min(used, width)
    logits = made_rows(kind, 2, width, rows_seed, dtype)
    if not torch.isfinite(logits[:, :used]).any(-1).all():
        logits[:, 0] = 1.0
    if kind in ("equal", "tied", "negative zero") and top_p < 1:
        top_p = 0.7351  # no sum of whole ties comes to lie on this threshold
    settings = SamplingSettings(top_p, cap, sampled_n, seed, used)
    same = torch.ones(2, dtype=torch.int64)
    assert_like_reference(logits, settings, same * token, same * index, torch.tensor([position, 1]))


@pytest.mark.parametrize("width", [64, 100, 1024, 5000])
def test_vocabularies_of_many_blocks(width: int):
    logits = made_rows("tied", 3, width, seed=1)
    assert_like_reference(logits, SamplingSettings(0.98, 100, 24, 7, width), *keys(3, width))
    logits = made_rows("peaked", 3, width, seed=1, dtype=torch.bfloat16)
    assert_like_reference(logits, SamplingSettings(0.98, 100, 24, 7, width), *keys(3, width))


def test_ties_at_the_edge_of_the_cap_go_to_the_lower_ids():
    logits = torch.zeros(1, 640)
    logits[0, 70::7] = 1.0  # 82 of them over nine blocks, and the cap in their midst
    stored = assert_like_reference(logits, SamplingSettings(1.0, 50, 24, 3, 640), *keys(1, 640))
    assert stored.top_ids[0].tolist() == list(range(70, 640, 7))[:50]
    logits[0, [600, 5, 333]] = 2.0
    stored = assert_like_reference(logits, SamplingSettings(1.0, 85, 24, 3, 640), *keys(1, 640))
    above = [v for v in range(70, 640, 7) if v not in (600, 5, 333)]
    assert stored.top_ids[0].tolist() == [5, 333, 600, *above, *range(4)][:85]


def test_ties_at_the_threshold_go_to_the_lower_ids():
    logits = torch.full((1, 200), -torch.inf)
    logits[0, 3::4] = 0.0  # fifty equal tokens of 0.02 each
    for top_p, count in ((0.019, 1), (0.021, 2), (0.51, 26), (0.979, 49), (0.981, 50)):
        stored = assert_like_reference(logits, SamplingSettings(top_p, 100, 5, 3, 200), *keys(1, 200))
        assert stored.top_ids[0, : stored.top_counts[0]].tolist() == list(range(3, 200, 4))[:count]


def test_threshold_met_exactly_leaves_the_next_token_out_up_to_rounding():
    """Tokens before sum to top_p: they are not less than it. The sum itself is a float64, good to an ulp or two."""
    for width in (2, 4, 8, 64, 128):
        for halves in (0.25, 0.5, 0.75):
            exact = max(1, round(width * halves))
            stored = sample(torch.zeros(1, width), *keys(1, width), SamplingSettings(halves, 255, 3, 1, width))
            count = stored.top_counts[0]
            assert count in (exact, exact + 1)
            assert stored.top_ids[0, :count].tolist() == list(range(count))


def test_token_that_crosses_the_threshold_is_in():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for top_p, count in ((0.49, 1), (0.51, 2), (0.79, 2), (0.81, 3), (0.94, 3), (0.96, 4)):
        assert sample(logits, *keys(1, 4), SamplingSettings(top_p, 100, 2, 1, 4)).top_counts[0] == count


@pytest.mark.parametrize("cap", [1, 255])
def test_top_p_one_is_the_cap(cap: int):
    logits = made_rows("peaked", 4, 400, seed=9)
    logits[:, 300:] = -torch.inf
    stored = assert_like_reference(logits, SamplingSettings(1.0, cap, 24, 1, 400), *keys(4, 400))
    assert (stored.top_counts == cap).all()
    assert (
        assert_like_reference(logits, SamplingSettings(0.98, cap, 24, 1, 400), *keys(4, 400)).top_counts <= 255
    ).all()


def test_fewer_possible_tokens_than_the_cap_are_all_in_the_nucleus():
    logits = torch.full((1, 300), -torch.inf)
    logits[0, [7, 250, 90]] = torch.tensor([1.0, 3.0, 2.0])
    stored = assert_like_reference(logits, SamplingSettings(1.0, 100, 4, 1, 300), *keys(1, 300))
    assert stored.top_counts[0] == 3 and stored.top_ids[0, :3].tolist() == [250, 90, 7]
    assert stored.sampled_ids[0].tolist() == [7] * 4, "an empty tail repeats the last nucleus token"
    assert stored.sampled_logits[0].tolist() == [1.0] * 4


def test_short_tail_repeats_its_last_draw():
    logits = torch.full((1, 100), -torch.inf)
    logits[0, 40] = 10.0
    logits[0, [3, 64, 99]] = torch.tensor([1.0, 0.0, -1.0])
    stored = assert_like_reference(logits, SamplingSettings(0.5, 100, 24, 1, 100), *keys(1, 100))
    assert sorted(stored.sampled_ids[0, :3]) == [3, 64, 99]
    assert set(stored.sampled_ids[0, 3:]) == {stored.sampled_ids[0, 2]}


def test_tail_at_the_edge_of_the_reach():
    """exp(-700) is drawn, and with it the whole tail; anything lower counts as -inf, in every sum too."""
    logits = torch.full((1, 128), -900.0)
    logits[0, 50] = 0.0
    for low, drawn in ((-690.0, True), (-700.0, True), (-700.0001, False), (-900.0, False)):
        logits[0, [0, 63, 64, 127]] = low
        stored = assert_like_reference(logits, SamplingSettings(0.98, 100, 4, 1, 128), *keys(1, 128))
        assert stored.top_counts[0] == 1
        assert sorted(set(stored.sampled_ids[0].tolist())) == ([0, 63, 64, 127] if drawn else [50])
        assert stored.token_logprob[0] == (np.float32(low) if drawn else -np.inf), "token 0"


def test_large_logits_keep_their_distances():
    """The largest that float16 holds. (Near 1e14 a float64 log-sum-exp can't tell two tokens from one any more.)"""
    logits = torch.tensor([[65504.0, -65504.0, 65504.0, 0.0], [-65504.0, -65504.0, -65000.0 - 504.0, -60000.0]])
    stored = assert_like_reference(logits, SamplingSettings(0.98, 100, 2, 1, 4), *keys(2, 4))
    assert stored.top_counts.tolist() == [2, 1]
    stored = assert_like_reference(logits[:, :3], SamplingSettings(0.98, 100, 2, 1, 3), *keys(2, 3))
    assert stored.top_counts.tolist() == [2, 3]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_float64_logits_are_rounded_to_float32_first():
    logits = torch.tensor([[1.0 + 1e-12, 1.0, 1.0 - 1e-12, 0.5, -1e300, 1e-50]], dtype=torch.float64)
    stored = assert_like_reference(logits, SamplingSettings(1.0, 3, 6, 1, 6), *keys(1, 6))
    assert stored.top_ids[0].tolist() == [0, 1, 2], "equal in float32, so by id"


def test_negative_zero_ties_with_zero():
    logits = torch.tensor([[-0.0, 0.0, -0.0, -1.0]])
    stored = assert_like_reference(logits, SamplingSettings(1.0, 2, 2, 1, 4), *keys(1, 4))
    assert stored.top_ids[0].tolist() == [0, 1]


@pytest.mark.parametrize("used", [1, 63, 64, 65, 130])
def test_ids_from_vocab_used_on_are_impossible(used: int):
    logits = made_rows("peaked", 5, 200, seed=4)
    logits[:, used:] = 50.0
    logits[0, used:] = torch.nan
    logits[1, used:] = torch.inf
    settings = SamplingSettings(0.98, 100, 24, 1, used)
    place = torch.arange(5)
    tokens = torch.tensor([0, used - 1, used, 199, 5000])
    stored = assert_like_reference(logits, settings, tokens, place, place)
    assert (stored.token_logprob[2:] == -np.inf).all()
    narrow = sample(logits[:, :used], tokens, place, place, settings)
    assert (narrow.sampled_ids == stored.sampled_ids).all() and (narrow.logsumexp == stored.logsumexp).all()


def test_strided_logits_are_read_where_they_lie():
    wide = made_rows("peaked", 6, 300, seed=8)
    settings = SamplingSettings(0.98, 20, 6, 1, 150)
    assert_like_reference(wide[:, ::2], settings, *keys(6, 150))
    assert_like_reference(wide.T.contiguous().T[::2, 7:157], settings, *keys(3, 150))


def test_logits_are_left_as_they_were():
    logits = made_rows("negative zero", 5, 128, seed=8)
    before = logits.clone()
    sample(logits, *keys(5, 128), SamplingSettings(0.98, 20, 6, 1, 128))
    assert torch.equal(logits.view(torch.int32), before.view(torch.int32))


@quick(60)
@given(st.integers(1, 5), st.integers(1, 330), st.integers(1, 5), st.integers(0, 10**6))
def test_largest_is_a_sort(blocks: int, count: int, distinct: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-distinct, distinct, (3, blocks * 64), generator=generator).float()
    x = torch.where(torch.rand(x.shape, generator=generator) < 0.3, -torch.inf, x)
    x[:, 0] = 0.0  # a row has something finite
    count = min(count, x.shape[1])
    expected = [sorted(range(x.shape[1]), key=lambda v: (-row[v], v))[:count] for row in x.tolist()]
    ids, logits = largest(read_rows(x), torch.tensor([2, 0]), count)
    assert ids.tolist() == [expected[2], expected[0]]
    assert torch.equal(logits, x[[2, 0]].gather(1, ids))


@pytest.mark.parametrize("cap", [20, 200])
def test_no_rows_have_the_shapes_of_some(cap: int):
    settings = SamplingSettings(0.98, cap, 6, 1, 70)
    stored, one = (sample(torch.zeros(rows, 70), *keys(rows, 70), settings) for rows in (0, 1))
    assert len(stored) == 0
    for name, value in vars(stored).items():
        like = getattr(one, name)
        assert (value.dtype, value.shape) == (like.dtype, (0, *like.shape[1:])), name
