"""What stands in the plots, and that they need neither a display nor pyplot."""

import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import explore_logits
from explore_logits import (
    analyze_nucleus_sizes,
    compute_dataset_stats,
    get_sample,
    load_logit_dataset,
    plot_logit_distribution,
    plot_nucleus_size_analysis,
    plot_nucleus_sizes,
    plot_nucleus_vs_sampled,
)
from teacher_logits.errors import SettingsError
from teacher_logits.exploring import MissingLibraryError, plot_entropy_along_position
from teacher_logits.exploring.entropy import entropy_bounds
from teacher_logits.exploring.plots import png_of, style
from teacher_logits.exploring.plots.style import printable, share_text, theme_of
from tests.exploring.made import CAP, Made
from tests.exploring.reference import entries_of

ROOT = Path(explore_logits.__file__).parent
PNG = b"\x89PNG\r\n"


@pytest.fixture(autouse=True)
def warnings_are_errors():
    """A letter that the font lacks is a warning of matplotlib's."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture(scope="module")
def sample(made: Made) -> dict[str, Any]:
    return get_sample(load_logit_dataset(made.folder), index=17)


def all_plots(made: Made, sample: dict[str, Any], theme: str) -> dict[str, Figure]:
    sizes = analyze_nucleus_sizes(made.folder, per_sample=True, per_position=True)
    return {
        "distribution": plot_logit_distribution(sample, 2, theme=theme),
        "draws": plot_nucleus_vs_sampled(sample, 2, theme=theme),
        "sizes": plot_nucleus_sizes(sample, theme=theme),
        "analysis": plot_nucleus_size_analysis(sizes, theme=theme),
        "entropy": plot_entropy_along_position(sample, theme=theme),
        "entropies": plot_entropy_along_position(compute_dataset_stats(made.folder), theme=theme),
    }


def named_ticks(labels: list[Any]) -> list[str]:
    return [label.get_text() for label in labels]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_plot_is_a_picture(made: Made, sample: dict[str, Any], theme: str):
    before = dict(matplotlib.rcParams)
    for name, figure in all_plots(made, sample, theme).items():
        assert isinstance(figure, Figure), name
        assert png_of(figure).startswith(PNG) and figure._repr_png_().startswith(PNG), "Jupyter asks for the latter"
        assert to_hex(figure.get_facecolor()) == theme_of(theme).background
        for ax in figure.axes:
            assert ax.get_title(loc="left") and (ax.get_xlabel() or ax.get_ylabel())
            assert (ax.get_xlabel() and ax.get_ylabel()) or name in ("distribution", "draws"), "tokens name themselves"
            assert to_hex(ax.get_facecolor()) == theme_of(theme).background
    assert dict(matplotlib.rcParams) == before


def test_pyplot_is_left_alone(made: Made):
    code = (
        "import sys; from explore_logits import *\n"
        f"sample = get_sample(load_logit_dataset({str(made.folder)!r}), 0)\n"
        "plot_nucleus_sizes(sample); plot_logit_distribution(sample, 0)\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout.strip() == "False", done.stderr


def test_bars_of_a_distribution(made: Made, sample: dict[str, Any]):
    """Lengths are probabilities, labels the tokens, and the token of the text is marked."""
    entry = entries_of(made)[1]
    figure = plot_logit_distribution(sample, 1, made.tokenizer, k=3)
    (ax,) = figure.axes
    ends = [10 ** (bar.get_x() + bar.get_width()) for bar in ax.patches]
    np.testing.assert_allclose(ends, entry.probabilities[entry.nucleus[:3]], rtol=1e-3)
    labels = named_ticks(ax.get_yticklabels())
    assert entry.rank == 1 and len(labels) == 3
    assert labels[0] == f"'{made.tokenizer.decode([entry.token])}'"
    marked = theme_of("light").marked
    assert [to_hex(bar.get_facecolor()) == marked for bar in ax.patches] == [True, False, False]
    shown = [share_text(float(p)) for p in entry.probabilities[entry.nucleus[:3]]]
    texts = [text.get_text() for text in ax.texts]
    assert set(shown) <= set(texts)
    assert any(f"nucleus of {len(entry.nucleus)} tokens" in text and "first 3 shown" in text for text in texts)
    # The axis above has the logits.
    (above,) = ax.child_axes
    figure.draw_without_rendering()
    logit = float(made.logits[17][1, entry.nucleus[0]])
    low, high = above.get_xlim()
    assert low < logit < high
    place = (logit - low) / (high - low)
    left, right = ax.get_xlim()
    assert left + place * (right - left) == pytest.approx(np.log10(ends[0]), abs=1e-3)


def test_draws_stand_behind_the_nucleus(made: Made, sample: dict[str, Any]):
    entry = entries_of(made)[2]
    (ax,) = plot_nucleus_vs_sampled(sample, 2, made.tokenizer).axes
    ends = [10 ** (bar.get_y() + bar.get_height()) for bar in ax.patches]
    drawn = sorted(entry.probabilities[list(set(entry.draws))].tolist(), reverse=True)
    wanted = [*entry.probabilities[entry.nucleus].tolist(), *drawn]
    np.testing.assert_allclose(ends, wanted, rtol=2e-2)
    colours = [to_hex(bar.get_facecolor()) for bar in ax.patches]
    theme = theme_of("light")
    assert colours[len(entry.nucleus) :] == [theme.sampled] * len(drawn)
    assert set(colours[: len(entry.nucleus)]) <= {theme.nucleus, theme.marked}
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend[0].startswith(f"nucleus: {len(entry.nucleus)} tokens, {share_text(entry.mass(1))}")
    assert f": {len(drawn)} tokens, which have " in legend[1] and legend[1].startswith("drawn from the other ")


def test_what_is_told_of_a_choice_fits(sample: dict[str, Any]):
    """Of the largest nucleus of a conversation far on, too."""
    size = 100
    logits = np.full(size, np.float32(np.log(0.95 / size)))
    far = {
        "index": 123_456_789,
        "num_tokens": 1,
        "positions": np.array([131_071]),
        "top_indices": [np.arange(size)],
        "top_logits_quantized": [np.full(size, 65535, np.uint16)],
        "top_min": logits[:1] - 1,
        "top_max": logits[:1],
        "logsumexp": np.zeros(1, np.float32),
    }
    figure = plot_logit_distribution({key: far.get(key) for key in sample if key in far}, 0, k=20)
    figure.draw_without_rendering()
    (told,) = [text for text in figure.axes[0].texts if "first 20 shown" in text.get_text()]
    assert told.get_window_extent().x1 < figure.bbox.x1


def test_sizes_along_the_conversation(made: Made, sample: dict[str, Any]):
    (ax,) = plot_nucleus_sizes(sample).axes
    (steps,) = ax.patches
    values, edges, _ = steps.get_data()
    positions = made.examples[17].positions
    assert values.tolist() == made.entries[17].top_counts.tolist()
    np.testing.assert_array_equal(edges, np.arange(positions[0], positions[-1] + 2) - 0.5)
    assert ax.lines[0].get_ydata()[0] == CAP and ax.get_yscale() == "log"


def test_turns_are_apart(sample: dict[str, Any]):
    """What lies between two turns is shaded, and nothing is drawn there."""
    positions = sample["positions"].copy()
    positions[10:] += 7
    changed = {**sample, "positions": positions}
    for figure in (plot_nucleus_sizes(changed), plot_entropy_along_position(changed)):
        steps = [patch for patch in figure.axes[0].patches if hasattr(patch, "get_data")]
        edges = sorted({(patch.get_data()[1][0], patch.get_data()[1][-1]) for patch in steps})
        gap = (positions[9] + 0.5, positions[10] - 0.5)
        assert edges == [(positions[0] - 0.5, gap[0]), (gap[1], positions[-1] + 0.5)]
        (shade,) = (patch for patch in figure.axes[0].patches if not hasattr(patch, "get_data"))
        assert (shade.get_x(), shade.get_x() + shade.get_width()) == gap


def filled(count: Any) -> list[int]:
    """Bins with at least ten entries, or with as many as there are turns."""
    return [place for place, entries in enumerate(count) if entries >= min(10, count[0])]


def test_analysis_of_sizes(made: Made):
    stats = analyze_nucleus_sizes(made.folder, per_sample=True, per_position=True)
    shares, cumulative, by_place, by_sample = plot_nucleus_size_analysis(stats).axes
    heights = [bar.get_height() for bar in shares.patches]
    np.testing.assert_allclose(heights[:CAP], 100 * stats.histogram[1 : CAP + 1] / stats.count)
    assert to_hex(shares.patches[CAP - 1].get_facecolor()) == theme_of("light").marked
    values = cumulative.patches[0].get_data()[0]
    np.testing.assert_allclose(values[:CAP], 100 * np.cumsum(stats.histogram)[1 : CAP + 1] / stats.count)
    assert sum(bar.get_height() for bar in by_sample.patches) == stats.conversations
    assert stats.per_position is not None
    x, means = by_place.lines[1].get_data()
    shown = filled(stats.per_position.count)
    np.testing.assert_allclose(means, stats.per_position.mean[shown])
    assert x.tolist() == (stats.per_position.first[shown] + 1).tolist() and x[0] == 1
    assert len(plot_nucleus_size_analysis(analyze_nucleus_sizes(made.folder)).axes) == 2


def test_entropies(made: Made, sample: dict[str, Any]):
    lowest, highest = (bound / np.log(2) for bound in entropy_bounds(sample))
    (ax,) = plot_entropy_along_position(sample).axes
    middle, band = ax.patches
    np.testing.assert_allclose(middle.get_data()[0], (lowest + highest) / 2)
    np.testing.assert_allclose(band.get_data()[0], highest)
    np.testing.assert_allclose(band.get_data()[2], lowest)
    stats = compute_dataset_stats(made.folder)
    (ax,) = plot_entropy_along_position(stats).axes
    x, y = ax.lines[0].get_data()
    shown = filled(stats.entropy_by_position.count)
    np.testing.assert_allclose(y, stats.entropy_by_position.lowest[shown] / np.log(2))
    assert x.tolist() == (stats.entropy_by_position.first[shown] + 1).tolist()
    (nats,) = ax.child_axes
    ax.figure.draw_without_rendering()
    assert nats.get_ylim()[1] == pytest.approx(ax.get_ylim()[1] * np.log(2))


def test_of_few_conversations_the_first_places_are_shown_too(made: Made):
    found = compute_dataset_stats(made.folder)
    count = np.minimum(found.entropy_by_position.count, 4)
    few = replace(found, entropy_by_position=replace(found.entropy_by_position, count=count))
    places = plot_entropy_along_position(few).axes[0].lines[0].get_xdata()
    assert places.tolist() == (found.entropy_by_position.first[count == 4] + 1).tolist() and places[0] == 1


@pytest.mark.parametrize("rising", [False, True])
def test_the_legend_covers_no_entropies(made: Made, rising: bool):
    stats = compute_dataset_stats(made.folder)
    found = stats.entropy_by_position
    slope = np.linspace(*((1, 9) if rising else (9, 1)), len(found.first))
    stats = replace(stats, entropy_by_position=replace(found, lowest=slope, highest=slope + 1))
    figure = plot_entropy_along_position(stats)
    figure.draw_without_rendering()
    (ax,) = figure.axes
    covered = ax.get_legend().get_window_extent()
    assert covered.y1 <= ax.get_window_extent().y1
    assert covered.y0 > ax.transData.transform((1, ax.dataLim.y1))[1]


def test_axes_that_are_given(made: Made, sample: dict[str, Any]):
    figure = Figure()
    one, other = figure.subplots(1, 2)
    assert plot_nucleus_sizes(sample, ax=one) is figure and one.patches
    assert plot_nucleus_size_analysis(analyze_nucleus_sizes(made.folder), axes=[one, other]) is figure
    with pytest.raises(SettingsError, match="into 2 axes, and 1 were given"):
        plot_nucleus_size_analysis(analyze_nucleus_sizes(made.folder), axes=one)


def test_letters_that_no_font_has(sample: dict[str, Any]):
    """Any text can be drawn: other scripts, formulas, control characters, long tokens. Errors are warnings here."""

    class Strange:
        names = ("日本語", "$x^{2", "\\frac{1}{2}$", "مرحبا", "\x1b[31m", "🙂", "\ud800", "x" * 500, "नमस्ते", "a\nb")

        def convert_ids_to_tokens(self, token: int) -> str:
            return self.names[token % len(self.names)]

    for theme in ("light", "dark"):
        assert png_of(plot_logit_distribution(sample, 4, Strange(), theme=theme)).startswith(PNG)
    figure = plot_nucleus_vs_sampled(sample, 4, Strange())
    assert png_of(figure).startswith(PNG)
    labels = named_ticks(figure.axes[0].get_xticklabels())
    assert max(map(len, labels)) <= 24 and not any("\x1b" in label or "\n" in label for label in labels)
    assert printable("a\U000f0000b") == "a\\U000f0000b" and printable("été 42") == "été 42"


def test_without_a_tokenizer_or_tokens(tokenless: Made, sample: dict[str, Any]):
    """Tokens are called by their ids where nobody knows their texts."""
    bare = get_sample(load_logit_dataset(tokenless.folder), index=17)
    for known in (bare, sample):
        (ax,) = plot_logit_distribution({**known, "run": {}}, 0).axes
        assert named_ticks(ax.get_yticklabels())[0] == f"id {known['top_indices'][0][0]}"
    assert plot_nucleus_sizes(bare).axes[0].get_xlabel() == "stored token"


def test_what_can_not_be_drawn(sample: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(IndexError):
        plot_logit_distribution(sample, 10_000)
    with pytest.raises(SettingsError, match="no theme 'blue'; choose one of light, dark"):
        plot_nucleus_sizes(sample, theme="blue")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    style._picture_class.cache_clear()
    with pytest.raises(MissingLibraryError, match="viz"):
        plot_nucleus_vs_sampled(sample, 0)


def test_a_conversation_without_entries(sample: dict[str, Any]):
    bare = {name: value[:0] if isinstance(value, list | np.ndarray) else value for name, value in sample.items()}
    bare["num_tokens"] = 0
    for figure in (plot_nucleus_sizes(bare), plot_entropy_along_position(bare)):
        assert png_of(figure).startswith(PNG)


def test_probabilities_as_text():
    shares = {1.0: "100 %", 0.19023: "19.0 %", 0.000213: "0.0213 %", 2.9e-9: "2.9e-07 %", 0.0: "0.00 %"}
    assert {share: share_text(share) for share in shares} == shares
