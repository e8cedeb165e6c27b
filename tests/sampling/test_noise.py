"""The generator against its published answers, its slow twin and the law of its uniforms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from teacher_logits.sampling import noise
from teacher_logits.sampling.noise import arrival_uniforms, philox
from teacher_logits.sampling.reference import reference_philox, reference_uniforms
from tests.codec.quick import quick
from tests.sampling.statistics import ALPHA, chi_square_p, uniform_p

WORD = st.integers(0, 2**32 - 1)
ONES = 0xFFFFFFFF

# The known answers of Philox4x32-10 that come with Random123.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def fast(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    return tuple(word.item() for word in philox(tuple(torch.tensor(word) for word in counter), key))


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter, key, answer):
    assert fast(counter, key) == answer
    assert reference_philox(counter, key) == answer


@quick(100)
@given(st.tuples(WORD, WORD, WORD, WORD), st.tuples(WORD, WORD))
def test_philox_like_its_twin(counter, key):
    assert fast(counter, key) == reference_philox(counter, key)


@quick(60)
@given(
    seed=st.integers(0, 2**64 - 1) | st.sampled_from([0, 2**32, 2**64 - 1]),
    index=st.integers(-(2**31), 2**31 - 1),
    position=st.integers(0, 2**31 - 1),
    first=st.integers(0, 10**6),
)
def test_uniforms_like_their_twin(seed, index, position, first):
    marks, waits = arrival_uniforms(seed, torch.tensor([index, 5]), torch.tensor([position, 6]), first, 3)
    for place, key in enumerate([(index, position), (5, 6)]):
        expected = [reference_uniforms(seed, *key, first + number) for number in range(3)]
        assert list(zip(marks[place].tolist(), waits[place].tolist(), strict=True)) == expected


def test_uniforms_never_reach_zero_or_one(monkeypatch: pytest.MonkeyPatch):
    zero, one = torch.zeros(1, 1, dtype=torch.int64), torch.full((1, 1), ONES)
    for words, expected in (((zero,) * 4, 2.0**-53), ((one,) * 4, 1 - 2.0**-53)):
        monkeypatch.setattr(noise, "philox", lambda counter, key, words=words: words)
        marks, waits = arrival_uniforms(1, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), 0, 1)
        assert marks.item() == waits.item() == expected
        assert 0 < expected < 1 and -torch.tensor(expected, dtype=torch.float64).log() > 0


@pytest.mark.parametrize("varied", ["seed", "index", "position", "arrival"])
def test_uniform_and_independent_whatever_is_counted(varied: str):
    """Neighbouring keys give unrelated uniforms: each alone, marks with waits, and one key with the next."""
    count = 16_000
    still, running = torch.full((count,), 3), torch.arange(count)
    if varied == "seed":
        one = torch.tensor([3])
        pairs = [arrival_uniforms(seed << 20, one, one, 0, 1) for seed in range(2000)]
        marks, waits = (torch.cat(parts).flatten() for parts in zip(*pairs, strict=True))
    elif varied == "arrival":
        marks, waits = (part[0] for part in arrival_uniforms(3, still[:1], still[:1], 0, count))
    else:
        keys = (running, still) if varied == "index" else (still, running)
        marks, waits = (part[:, 0] for part in arrival_uniforms(3, *keys, 0, 1))
    assert len(marks.unique()) == len(marks)
    for values in (marks, waits):
        assert uniform_p(values) > ALPHA
        assert pairs_p(values[:-1], values[1:]) > ALPHA
    assert pairs_p(marks, waits) > ALPHA
    assert pairs_p(marks, marks) < ALPHA, "the statistic sees dependence"


def pairs_p(first: torch.Tensor, second: torch.Tensor) -> float:
    """p-value of the hypothesis that pairs lie evenly in the unit square, by a chi-square of 8 x 8 cells."""
    cells = (first * 8).long() * 8 + (second * 8).long()
    return chi_square_p(torch.bincount(cells, minlength=64), torch.full((64,), 1 / 64))
