"""The colours can be read in both themes, and told apart by eyes that see fewer of them."""

import re

import numpy as np
import pytest

from teacher_logits.exploring.page.frame import source
from teacher_logits.exploring.page.palette import BANDS, IMPOSSIBLE, UNKNOWN, band_codes

THEMES = ("light", "dark")
TEXT, GRAPHICS = 4.5, 3.0
"""Least contrast of text and of what isn't text: WCAG 2.2, 1.4.3 and 1.4.11."""
SIGHT = {
    "all three": np.eye(3),
    "no red": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "no blue": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]
    ),
}
"""What is left of a colour without one kind of cones: Machado, Oliveira and Fernandes 2009, severity 1."""


def linear(colour: str) -> np.ndarray:
    """[3]: red, green and blue light of #rrggbb."""
    values = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def lab(light: np.ndarray) -> np.ndarray:
    """[3]: CIELAB of red, green and blue light, in which equal distances look about equal."""
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    ratios = np.clip(matrix @ light, 0, None) / [0.9505, 1.0, 1.089]
    x, y, z = np.where(ratios > 0.008856, np.cbrt(ratios), 7.787 * ratios + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def css_colours(theme: str) -> dict[str, str]:
    """The variables of the style sheet that are colours."""
    found = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", source("page.css"))
    return {name: colours[THEMES.index(theme)] for name, *colours in found}


def test_measures():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=0.01)
    np.testing.assert_allclose(lab(linear("#ff0000")), [53.24, 80.09, 67.2], atol=0.2)


@pytest.mark.parametrize("theme", THEMES)
def test_text_on_the_scale_can_be_read(theme: str):
    for band in BANDS:
        paint = getattr(band, theme)
        assert contrast(paint.fill, paint.ink) >= TEXT, band.label


@pytest.mark.parametrize("theme", THEMES)
def test_everything_else_can_be_read(theme: str):
    colours = css_colours(theme)
    assert {"page", "card", "ink", "soft", "mark", "bars", "accent", "track"} <= set(colours)
    for ground in ("page", "card"):
        for text in ("ink", "soft", "mark"):
            assert contrast(colours[text], colours[ground]) >= TEXT, (text, ground)
        for shape in ("bars", "accent", "mark"):
            assert contrast(colours[shape], colours[ground]) >= GRAPHICS, (shape, ground)
    assert contrast(colours["bars"], colours["track"]) >= GRAPHICS
    assert contrast(colours["mark"], colours["track"]) >= GRAPHICS


@pytest.mark.parametrize("theme", THEMES)
def test_scale_runs_one_way(theme: str):
    """From near the page to far from it, so that it is read by lightness alone."""
    away = [contrast(getattr(band, theme).fill, css_colours(theme)["card"]) for band in BANDS]
    assert (np.diff(away) > 0).all() and away[0] < 1.3 and away[-1] > 7


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("theme", THEMES)
def test_steps_are_told_apart(theme: str, sight: str):
    seen = [lab(np.clip(SIGHT[sight] @ linear(getattr(band, theme).fill), 0, 1)) for band in BANDS]
    distances = [np.linalg.norm(a - b) for place, a in enumerate(seen) for b in seen[place + 1 :]]
    assert min(distances) > 10  # 2.3 is what a trained eye just notices


def test_bands_of_probabilities():
    probabilities = [1, 0.9, 0.8999, 0.5, 0.4999, 0.1, 0.0999, 0.01, 0.00999, 0.001, 0.00099, 1e-300]
    assert band_codes(np.log(probabilities)) == "001122334455"
    assert band_codes(np.array([-np.inf, np.nan, -0.01])) == f"{IMPOSSIBLE}{UNKNOWN}0"
    assert band_codes(np.array([])) == ""
