"""The colours of the page: one scale of probability for light and dark, and the test's measure of what can be read.

The scale runs along blue and yellow and from near the page's background to far from it, so that it is read by
lightness alone: what the teacher expected recedes, what surprised it stands out. Six steps, since more can't be told
apart in running text. The cuts are those of the terminal view and one more.
"""

from dataclasses import dataclass

import numpy as np

from teacher_logits.records import Float64


@dataclass(frozen=True)
class Paint:
    """Background and text of one theme, as #rrggbb."""

    fill: str
    ink: str


@dataclass(frozen=True)
class Band:
    """One step of the scale."""

    least: float
    """The smallest probability that belongs to it."""
    label: str
    light: Paint
    dark: Paint


BANDS = (
    Band(0.9, "90 % and more", Paint("#f3f5e6", "#161b2b"), Paint("#1e2a44", "#eef1f8")),
    Band(0.5, "50 to 90 %", Paint("#cde5a4", "#161b2b"), Paint("#23457a", "#f7f9fd")),
    Band(0.1, "10 to 50 %", Paint("#96d2b0", "#161b2b"), Paint("#22669a", "#ffffff")),
    Band(0.01, "1 to 10 %", Paint("#5fb9c3", "#0c1120"), Paint("#3aa0ad", "#0a0e18")),
    Band(0.001, "0.1 to 1 %", Paint("#2a71a8", "#ffffff"), Paint("#8dd0a4", "#0a0e18")),
    Band(0.0, "less than 0.1 %", Paint("#20286e", "#ffffff"), Paint("#f3efa0", "#0a0e18")),
)
IMPOSSIBLE = "i"
"""The teacher gave the token no probability at all."""
UNKNOWN = "u"
"""The dataset doesn't tell."""


def band_codes(log_probabilities: Float64) -> str:
    """One letter a token: the number of its band, `IMPOSSIBLE` for -inf, `UNKNOWN` for NaN. In nats."""
    with np.errstate(invalid="ignore"):
        steps = np.sum([log_probabilities < np.log(band.least) for band in BANDS[:-1]], axis=0, dtype=np.int64)
    codes = np.where(np.isnan(log_probabilities), UNKNOWN, np.char.mod("%d", steps))
    return "".join(np.where(np.isneginf(log_probabilities), IMPOSSIBLE, codes))
