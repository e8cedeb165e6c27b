"""The picture of how long conversations are."""

import io

import matplotlib.image
import numpy as np
import pytest

from teacher_logits.exploring.plots import plot_lengths, png_of
from teacher_logits.exploring.plots.lengths import _edges


def drawn(lengths: list[int], assistant: list[int], context: int | None = None) -> np.ndarray:
    """[height, width, 4] the picture."""
    given = np.array(lengths, np.int64), np.array(assistant, np.int64)
    png = png_of(plot_lengths(*given, context, "chats, tokens of $x_$"))
    return matplotlib.image.imread(io.BytesIO(png))


def test_is_drawn_whatever_the_lengths() -> None:
    plain = drawn([5, 6, 7, 7], [1, 2, 3, 3])
    assert plain.shape[1] == 1200 and plain.std() > 0.05, "not empty"
    for lengths, assistant in (([], []), ([1], [1]), ([4] * 50, [2] * 50), ([10_000, 20, 20, 20], [9_000, 1, 1, 2])):
        assert drawn(lengths, assistant).shape == plain.shape
    assert not np.array_equal(drawn([5, 6, 7, 7], [1, 2, 3, 3], context=8), plain), "the context is a line"
    assert np.array_equal(drawn([5, 6, 7, 7], [1, 2, 3, 3], context=100), plain), "unless it is far away"


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("most", [1, 7, 60, 61, 1_000, 123_456])
def test_every_bin_holds_whole_tokens(most: int, wide: bool) -> None:
    lengths = np.array([1, most], np.int64)
    edges = _edges(lengths, lengths, wide)
    assert edges[0] < 1 and edges[-1] > most and len(edges) <= 63
    assert all(edge % 1 == 0.5 for edge in edges)
    assert not wide or edges[0] > 0, "a logarithmic scale has no 0"
