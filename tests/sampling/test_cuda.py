"""On a GPU: the same noise to the bit, and the same draws from the same logits."""

import numpy as np
import pytest
import torch

from teacher_logits.sampling import SamplingSettings, noise, rows, sample
from tests.sampling.rows import made_rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_same_noise():
    keys = torch.arange(500), torch.arange(500) * 31 + 1
    here = noise.arrival_uniforms(42, *keys, 32, 32)
    there = noise.arrival_uniforms(42, *(key.cuda() for key in keys), 32, 32)
    assert noise._words.is_compiled
    assert all(torch.equal(one, other.cpu()) for one, other in zip(here, there, strict=True))


@pytest.mark.parametrize("width", [6_144, 50_257, 151_936])
@pytest.mark.parametrize("kind", ["peaked", "flat"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_same_rows(width: int, kind: str, dtype: torch.dtype):
    count = 100
    logits, keys = made_rows(kind, count, width, seed=1).to(dtype), torch.arange(count)
    settings = SamplingSettings(0.98, 100, 24, 42, width)
    here = sample(logits, keys, keys, keys, settings)
    there = sample(logits.cuda(), keys.cuda(), keys.cuda(), keys.cuda(), settings)
    assert rows._pass.is_compiled
    member = np.arange(here.top_ids.shape[1]) < here.top_counts[:, None]
    np.testing.assert_array_equal(there.top_counts, here.top_counts)
    np.testing.assert_array_equal(there.top_ids[member], here.top_ids[member])
    np.testing.assert_array_equal(there.sampled_ids, here.sampled_ids)
    np.testing.assert_allclose(there.logsumexp, here.logsumexp, rtol=1e-14)


def test_memory_is_bounded():
    settings = SamplingSettings(0.98, 100, 24, 42, 151_936)

    def extra_bytes(count: int) -> int:
        logits = made_rows("peaked", 32, 151_936, seed=1).bfloat16().cuda().repeat(count // 32, 1)
        keys = torch.arange(count).cuda()
        sample(logits, keys, keys, keys, settings)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        sample(logits, keys, keys, keys, settings)
        return torch.cuda.max_memory_allocated() - before

    assert extra_bytes(32) <= 20e6
    assert extra_bytes(8192) <= 1.1 * extra_bytes(4096)
