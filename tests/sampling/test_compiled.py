"""What is compiled on CUDA: the same results, and a way on where nothing can be compiled."""

import logging
import shutil

import pytest
import torch
from torch import Tensor

from teacher_logits.sampling.compiled import Compiled
from teacher_logits.sampling.noise import arrival_words
from teacher_logits.sampling.rows import pass_at_once, pass_by_parts
from tests.sampling.rows import KINDS, made_rows

BACKENDS = [
    "aot_eager",
    pytest.param("inductor", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")),
]


def assert_same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=1e-13, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", [64, 320, 333])
@pytest.mark.parametrize("kind", KINDS)
def test_pass_at_once_is_the_pass_by_parts(kind: str, width: int, dtype: torch.dtype):
    logits = made_rows(kind, 5, width, seed=3).to(dtype)
    assert_same(pass_at_once(logits), pass_by_parts(logits))


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_pass_gives_the_same(backend: str):
    both = Compiled(pass_at_once, otherwise=pass_by_parts, device="cpu", backend=backend)
    for rows in (3, 7, 20, 1):
        logits = made_rows("peaked", rows, 333, seed=rows).to(torch.bfloat16)
        logits[0, 5] = -2000.0  # beyond the reach
        assert_same(both(logits), pass_by_parts(logits))
    assert both.is_compiled


def test_compiled_noise_gives_the_same_bits():
    both = Compiled(arrival_words, otherwise=arrival_words, device="cpu", backend="aot_eager")
    for first, rows in ((0, 3), (32, 8), (64, 5), (0, 1), (0, 0)):
        keys = torch.arange(rows), torch.arange(rows) * 977 + 1, torch.arange(first, first + 32), 0xFFFFFFFE, 0x80000001
        assert all(map(torch.equal, both(*keys), arrival_words(*keys)))
    assert both.is_compiled


def doubled(x: Tensor) -> tuple[Tensor, ...]:
    return (x * 2,)


def plus_one(x: Tensor) -> tuple[Tensor, ...]:
    return (x + 1,)


def refuses_to_compile(x: Tensor) -> tuple[Tensor, ...]:
    return (x * 2 if x.tolist() else x,)


@pytest.mark.parametrize("function", [plus_one, refuses_to_compile])
def test_the_other_way_where_compiling_fails_or_gives_something_else(function, caplog: pytest.LogCaptureFixture):
    both = Compiled(function, otherwise=doubled, device="cpu", backend="aot_eager")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(both(torch.tensor([3.0, 4.0]))[0], torch.tensor([6.0, 8.0]))
    assert not both.is_compiled
    assert len(caplog.records) == 1 and function.__name__ in caplog.text


def test_the_other_way_where_a_later_call_cannot_be_compiled(caplog: pytest.LogCaptureFixture):
    def picky(x: Tensor) -> tuple[Tensor, ...]:
        if x.dtype == torch.float64:
            return (torch.tensor(x.tolist(), dtype=x.dtype) * 2,)
        return (x * 2,)

    both = Compiled(picky, otherwise=doubled, device="cpu", backend="aot_eager")
    assert torch.equal(both(torch.tensor([3.0, 4.0]))[0], torch.tensor([6.0, 8.0])) and both.is_compiled
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            wide = torch.tensor([3.0, 4.0, 5.0], dtype=torch.float64)
            assert torch.equal(both(wide)[0], wide * 2)
    assert not both.is_compiled and caplog.text.count("is not compiled here") == 1


def test_nothing_is_compiled_on_another_device():
    both = Compiled(plus_one, otherwise=doubled, device="cuda", backend="aot_eager")
    assert torch.equal(both(torch.tensor([3.0]))[0], torch.tensor([6.0]))
    assert not both.is_compiled
