"""Noise that depends on (seed, conversation, position, arrival) and on nothing else.

A counter-based generator (Philox4x32-10, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns
those four numbers into random bits directly, so batch, worker, restart and device don't matter. The key is the
seed; the counter is (conversation index, position, arrival, 0). The four 32-bit words of an arrival give two
uniforms: the first chooses the token (the mark), the second the waiting time.
"""

import torch
from torch import Tensor

from teacher_logits.sampling.compiled import Compiled

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW32 = 0xFFFFFFFF


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Four words of random bits for each counter.

    counter: four int64 tensors of one (broadcastable) shape with values in [0, 2^32).   key: two such numbers.
    Returns four int64 tensors with values in [0, 2^32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = (high1 ^ c1).bitwise_xor_(k0), low1, (high0 ^ c3).bitwise_xor_(k1), low0
        k0, k1 = (k0 + _WEYL[0]) & _LOW32, (k1 + _WEYL[1]) & _LOW32
    return c0, c1, c2, c3


def arrival_uniforms(seed: int, index_P: Tensor, position_P: Tensor, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Uniforms in the open interval (0, 1) of the arrivals `first` ... `first + count - 1` of each position.

    index_P, position_P: int64 [P], each in [0, 2^32) (a negative index stands for index + 2^32).
    Returns marks and waits, float64 [P, count], multiples of 2^-53: with 53 random bits the largest would round to 1.
    """
    arrivals = torch.arange(first, first + count, dtype=torch.int64, device=index_P.device)
    words = _words(index_P, position_P, arrivals, seed & _LOW32, seed >> 32)
    return _uniform(words[0], words[1]), _uniform(words[2], words[3])


def arrival_words(index_P: Tensor, position_P: Tensor, arrivals_R: Tensor, key0: int, key1: int) -> tuple[Tensor, ...]:
    """The four words of each arrival, int64 [P, R]. Whole numbers, so the same to the bit however computed."""
    index, position = (index_P & _LOW32)[:, None], (position_P & _LOW32)[:, None]
    return philox((index, position, arrivals_R, torch.zeros_like(arrivals_R)), (key0, key1))


_words = Compiled(arrival_words, otherwise=arrival_words)


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a product. int64 wraps round, which leaves all 64 bits of the product right."""
    product = a * b
    return (product >> 32).bitwise_and_(_LOW32), product.bitwise_and_(_LOW32)


def _uniform(high: Tensor, low: Tensor) -> Tensor:
    bits52 = (high << 20) | (low >> 12)
    return (bits52.double() + 0.5) * 2.0**-52
