"""All figures of a dataset, against its whole distributions."""

from collections.abc import Callable
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from explore_logits import compute_dataset_stats, get_sample, load_logit_dataset
from teacher_logits.codec import Contents, encode_rows
from teacher_logits.errors import FormatError
from teacher_logits.exploring.entropy import entropy_bounds
from teacher_logits.exploring.statistics import NucleusSizeStats, dataset_stats_text, first_choices_text, stats_warnings
from teacher_logits.exploring.statistics.spread import RunningSpread
from teacher_logits.records import Example, JoinedExamples, SparseDistribution
from teacher_logits.sampling import SamplingSettings, sample
from teacher_logits.shards import write_shard
from tests.exploring.damage import change_checkpoint, change_rows
from tests.exploring.made import CAP, IMPOSSIBLE, SAMPLED_N, TEXTS, VOCABULARY, Made
from tests.exploring.reference import Entry, des_raj, entries_of, highest_entropy, lowest_entropy, perplexity
from tests.exploring.test_nucleus_stats import FORMS

QUANTIZED = 2e-3
"""Nats that an entropy may be off, whose logits are stored in 65,535 steps and restored to bfloat16."""


@pytest.fixture(scope="module")
def entries(made: Made) -> list[Entry]:
    return entries_of(made)


@pytest.mark.parametrize("form", FORMS)
def test_figures(made: Made, entries: list[Entry], form: str):
    stats = compute_dataset_stats(FORMS[form](made.folder))
    lengths = [len(made.tokens(index)) for index in TEXTS]
    assert (stats.conversations, stats.entries) == (4, len(entries))
    assert (stats.lengths.mean, stats.lengths.largest) == (np.mean(lengths), max(lengths))
    assert stats.lengths.median == np.median(lengths)
    sizes = [len(entry.nucleus) for entry in entries]
    np.testing.assert_array_equal(stats.nucleus.histogram, np.bincount(sizes, minlength=256))
    for temperature in (1, 2, 4):
        masses = [entry.mass(temperature) for entry in entries]
        spread = stats.mass[temperature]
        assert spread.mean == pytest.approx(np.mean(masses), abs=1e-5)
        assert spread.smallest == pytest.approx(min(masses), abs=1e-5)
        assert spread.percentile(50) == pytest.approx(np.percentile(masses, 50), abs=1e-5)
    assert stats.surprise is not None and stats.surprise.perplexity == pytest.approx(perplexity(entries), rel=1e-5)
    assert stats.surprise.impossible == 0


def test_entropy_lies_between_its_bounds(made: Made, entries: list[Entry]):
    exact = np.array([entry.entropy for entry in entries])
    dataset = load_logit_dataset(made.folder)
    bounds = [entropy_bounds(get_sample(dataset, index=index)) for index in TEXTS]
    lowest, highest = (np.concatenate(sides) for sides in zip(*bounds, strict=True))
    assert (lowest <= exact + 1e-9).all() and (exact <= highest + 1e-9).all()
    assert (highest - lowest).max() < 3 and lowest.mean() > 0.9 * np.mean([entry.nucleus_entropy for entry in entries])
    entropy = compute_dataset_stats(made.folder).entropy
    for spread, twin in ((entropy.lowest, lowest), (entropy.highest, highest)):
        found = (spread.mean, spread.smallest, spread.largest)
        assert found == pytest.approx((twin.mean(), twin.min(), twin.max()), rel=1e-9), "as one sample after another"
    wanted = np.mean([entry.nucleus_entropy for entry in entries])
    assert entropy.nucleus.mean == pytest.approx(wanted, abs=QUANTIZED)
    assert entropy.estimate == pytest.approx(np.mean([entry.estimate() for entry in entries]), abs=QUANTIZED)


def test_bounds_are_those_of_the_definition(made: Made, copy: Path, entries: list[Entry]):
    """Without the columns for temperatures the upper bound is the even spread."""
    keep_columns(copy, lambda name: not name.startswith("logsumexp_t"))
    dataset = load_logit_dataset(copy)
    for index in TEXTS:
        lowest, highest = entropy_bounds(get_sample(dataset, index=index))
        for number, entry in enumerate(entry for entry in entries if entry.index == index):
            known = entry.probabilities[entry.nucleus + list(dict.fromkeys(entry.draws))].tolist()
            least = float(entry.probabilities[entry.nucleus[-1]])
            assert lowest[number] == pytest.approx(lowest_entropy(known, least), abs=QUANTIZED)
            assert lowest[number] <= lowest_entropy(known, least) + 1e-9
            even = highest_entropy(known, 262_144 - len(known))
            assert even - 1e-9 <= highest[number] <= even + QUANTIZED


def keep_columns(folder: Path, kept: Callable[[str], bool]) -> None:
    for shard in (folder / "data").iterdir():
        table = pq.read_table(shard)
        pq.write_table(table.select([name for name in table.column_names if kept(name)]), shard)


def test_a_tail_that_is_drawn_whole(tmp_path: Path):
    """Where all tokens are stored nothing is open, whether the tail has some tokens or none."""
    logits = torch.full((3, 12), -torch.inf)
    logits[0, :8] = torch.linspace(3, -3, 8)
    logits[1, :2] = torch.tensor([1.0, 0.0])
    logits[2, 5] = 1.0
    settings = SamplingSettings(0.9, 6, 10, 42, 12)
    positions = torch.tensor([1, 2, 3])
    stored = sample(logits, torch.zeros(3, dtype=torch.int64), torch.zeros_like(positions), positions, settings)
    example = Example(0, np.zeros(4, np.int32), np.array([1, 2, 3], np.int32))
    table = encode_rows(stored, JoinedExamples.of([example]), Contents())
    (tmp_path / "data").mkdir()
    metadata = {"format_version": 1, "logits_dtype": "float32", "vocab_used": 12}
    write_shard(table, tmp_path / "data/train-01234567-00000.parquet", metadata)
    probabilities = torch.softmax(logits.double(), 1).tolist()
    exact = [-sum(p * log(p) for p in row if p) for row in probabilities]
    lowest, highest = entropy_bounds(get_sample(load_logit_dataset(tmp_path), 0))
    np.testing.assert_allclose(lowest, exact, atol=2e-3)
    np.testing.assert_allclose(highest, exact, atol=2e-3)
    entropy = compute_dataset_stats(tmp_path).entropy
    kept = [stored.top_ids[row, :count].tolist() for row, count in enumerate(stored.top_counts)]
    estimates = []
    for row, ids in enumerate(kept):
        nucleus = [probabilities[row][token] for token in ids]
        tail = des_raj(1 - sum(nucleus), [probabilities[row][token] for token in stored.sampled_ids[row]])
        estimates.append(-sum(p * log(p) for p in nucleus) + tail)
    assert entropy.estimate == pytest.approx(np.mean(estimates), abs=2e-3)


def test_entropy_along_the_turns(made: Made, entries: list[Entry]):
    found = compute_dataset_stats(made.folder).entropy_by_position
    assert found.counted_from == "turn" and found.count.sum() == len(entries)
    for place in (0, 1, 5):
        exact = [entry.entropy for entry in entries if entry.number == place]
        column = found.first.tolist().index(place)
        assert found.count[column] == len(exact)
        assert found.lowest[column] <= np.mean(exact) <= found.highest[column]
    exact = [entry.entropy for entry in entries if 16 <= entry.number < 18]
    column = found.first.tolist().index(16)
    assert found.lowest[column] <= np.mean(exact) <= found.highest[column] < found.lowest[column] + 3


@pytest.mark.parametrize("count", [0, 1, 7, 500])
def test_most_surprising_tokens(made: Made, entries: list[Entry], count: int):
    surprise = compute_dataset_stats(made.folder, surprising=count).surprise
    assert surprise is not None
    ordered = sorted(entries, key=lambda entry: (np.float32(log(entry.probabilities[entry.token])), entry.index))
    found = [(token.index, token.entry, token.position, token.id) for token in surprise.most_surprising]
    assert found == [(e.index, e.number, e.position, e.token) for e in ordered[:count]]
    logs = [token.log_probability for token in surprise.most_surprising]
    assert logs == pytest.approx([log(e.probabilities[e.token]) for e in ordered[:count]], rel=1e-5)


def test_ranks(made: Made, entries: list[Entry]):
    ranks = compute_dataset_stats(made.folder).ranks
    assert ranks is not None
    wanted = np.bincount([entry.rank for entry in entries if entry.rank], minlength=256)
    np.testing.assert_array_equal(ranks.ranks, wanted)
    outside = [entry for entry in entries if entry.rank is None]
    assert ranks.in_sample == sum(entry.token in entry.draws for entry in outside) >= 1
    assert ranks.elsewhere == len(outside) - ranks.in_sample
    for rank in (1, 2, 4, 5):
        known = sum(entry.rank is not None and entry.rank <= rank for entry in entries) / len(entries)
        possible = sum(len(entry.nucleus) < rank for entry in outside) / len(entries)
        assert (ranks.share(rank), ranks.share_at_most(rank)) == pytest.approx((known, known + possible))
        least, most = (f"{100 * share:.2f} %" for share in (known, known + possible))
        assert first_choices_text(ranks, rank) == (f"{least} to {most}" if possible else least)
    assert ranks.share_at_most(5) > ranks.share(5), "some nuclei are smaller"
    assert f"{first_choices_text(ranks, 5)} of the first five" in dataset_stats_text(compute_dataset_stats(made.folder))
    assert ranks.share(2) == pytest.approx(wanted[1:3].sum() / len(entries))
    assert ranks.share_in_nucleus == pytest.approx(wanted.sum() / len(entries))


def test_tokens_without_a_probability(copy: Path, made: Made):
    """-inf is counted apart, NaN not at all."""
    for shard in (copy / "data").iterdir():
        table = pq.read_table(shard)
        rows = [[-np.inf, np.nan, *row[2:]] for row in table["token_logprob"].to_pylist()]
        column = pa.array(rows, pa.list_(pa.float32()))
        pq.write_table(table.set_column(table.column_names.index("token_logprob"), "token_logprob", column), shard)
    stats = compute_dataset_stats(copy)
    left = [entry for entry in entries_of(made) if entry.number > 1]
    assert stats.surprise is not None and stats.surprise.impossible == 4
    assert stats.surprise.nats.count == len(left)
    assert stats.surprise.perplexity == pytest.approx(perplexity(left), rel=1e-5)
    assert "4 tokens of the texts have no probability" in dataset_stats_text(stats)


def test_what_is_not_stored(copy: Path, tokenless: Made, made: Made):
    stats = compute_dataset_stats(tokenless.folder)
    whole = compute_dataset_stats(made.folder)
    assert stats.ranks is None and stats.surprise is not None and whole.surprise is not None
    assert stats.surprise.perplexity == whole.surprise.perplexity
    assert stats.surprise.most_surprising[0].position is None and stats.surprise.most_surprising[0].id is None
    assert "stored token" in dataset_stats_text(stats) and "ranks          not stored" in dataset_stats_text(stats)
    keep_columns(copy, lambda name: not name.startswith(("logsumexp_t", "token_logprob")))
    stats = compute_dataset_stats(copy)
    assert stats.surprise is None and list(stats.mass) == [1] and stats.ranks is not None
    text = dataset_stats_text(stats)
    assert "perplexity     not stored" in text and "T = 4: not stored" in text and "have to guess" in text
    keep_columns(copy, lambda name: name != "logsumexp")
    with pytest.raises(FormatError, match="lacks the columns logsumexp"):
        compute_dataset_stats(copy)


def test_a_warning_for_hot_trainers(made: Made):
    stats = compute_dataset_stats(made.folder)
    text = dataset_stats_text(stats, made.tokenizer)
    for temperature in (1, 2, 4):
        told = f"note: At T = {temperature} the nuclei hold"
        assert (told in text) == (stats.mass[temperature].mean < 0.5)
    assert stats.mass[4].mean < 0.01, "70,000 tokens of noise"


@pytest.mark.parametrize(
    ("at_cap", "cap", "advice"),
    [
        (3, 6, "a larger --top-p (1 fills every nucleus up to the cap), which takes more bytes a token."),
        (24, 6, "a larger --top-p (1 fills"),
        (25, 6, "a larger --top-p-max, which takes more bytes a token."),
        (90, 255, "train at a lower one. This counts"),
        (90, None, "a larger --top-p or --top-p-max, which"),
    ],
)
def test_what_keeps_the_nuclei_small(made: Made, at_cap: int, cap: int | None, advice: str):
    """A larger cap changes nothing where few nuclei reach it."""
    histogram = np.bincount([2] * (100 - at_cap) + [cap or 6] * at_cap, minlength=256)
    stats = replace(compute_dataset_stats(made.folder), nucleus=NucleusSizeStats(histogram, 4, cap))
    (warning,) = (line for line in stats_warnings(stats) if line.startswith("At T = 4"))
    assert advice in warning and "counts the nuclei alone; trainers use the draws, too" in warning


def test_text(made: Made, entries: list[Entry]):
    text = dataset_stats_text(compute_dataset_stats(made.folder), made.tokenizer)
    lines = text.splitlines()
    assert lines[0] == "conversations  4" and lines[1].startswith(f"entries        {len(entries)}, ")
    assert f"perplexity     {perplexity(entries):,.2f} of the texts' own tokens" in lines
    share = np.mean([entry.rank == 1 for entry in entries])
    assert f"{share:.2%} are the first choice".replace("%", " %", 1) in text
    table = text.split("most surprising tokens\n")[1].splitlines()
    first = min(entries, key=lambda entry: entry.probabilities[entry.token])
    assert (
        len(table) == 12
        and table[11] == f"show --index {first.index} shows the first of them"
        and table[1].split()[:2] == [str(first.index), str(first.position)]
    )
    assert "\x1b" not in text


@pytest.mark.parametrize("damage", ["empty nucleus", "positions"])
def test_damage(copy: Path, damage: str):
    shard = min((copy / "data").iterdir())
    table = pq.read_table(shard)
    name = "top_counts" if damage == "empty nucleus" else "positions"
    rows = table[name].to_pylist()
    if damage == "positions":
        rows[0][0] = 10**6
    else:
        rows[0][0], rows[0][1] = 0, rows[0][0] + rows[0][1]
    changed: Any = pa.array(rows, table[name].type)
    pq.write_table(table.set_column(table.column_names.index(name), name, changed), shard)
    with pytest.raises(FormatError, match="is damaged"):
        compute_dataset_stats(copy)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name", ["logsumexp", "logsumexp_t2", "logsumexp_t4", "top_min", "top_max", "sampled_min", "sampled_max"]
)
def test_numbers_that_are_none(copy: Path, name: str, number: float):
    """The second conversation of the second file is named."""
    index = list(TEXTS)[3]

    def change(rows: list[dict[str, Any]]) -> None:
        row = next(row for row in rows if row["index"] == index)
        row[name][0] = number

    change_rows(copy, change, 1)
    for dataset in (copy, load_logit_dataset(copy)):
        with pytest.raises(
            FormatError, match=rf"is damaged \({name} is {number} in the conversation with index {index}\)"
        ):
            compute_dataset_stats(dataset)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "number"), IMPOSSIBLE)
def test_finite_numbers_that_can_not_be(copy: Path, name: str, number: float):
    """They are refused before an exp of them overflows."""

    def change(rows: list[dict[str, Any]]) -> None:
        rows[1][name][0] = number

    change_rows(copy, change, 1)
    with pytest.raises(FormatError, match=rf"is damaged \({name} .*in the conversation with index {list(TEXTS)[3]}\)"):
        compute_dataset_stats(copy)


@pytest.mark.filterwarnings("error")
def test_surprise_that_is_unknown_or_absurd(copy: Path, made: Made):
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0]["token_logprob"][:3] = [float("nan"), float("nan"), -1e38]

    change_rows(copy, change, 1)
    stats, whole = (compute_dataset_stats(folder).surprise for folder in (copy, made.folder))
    assert stats is not None and whole is not None and (stats.unknown, whole.unknown) == (2, 0)
    assert (stats.nats.count, stats.nats.largest) == (whole.nats.count - 2, pytest.approx(1e38))
    assert stats.nats.percentile(1) < 1 and stats.nats.percentile(99) > 1e30
    (told,) = [line for line in stats_warnings(compute_dataset_stats(copy)) if "unknown probability" in line]
    assert told.startswith("Perplexity and surprise are without 2 tokens of unknown probability")


@pytest.mark.parametrize("nonsense", ["many", -1, 1e300, True, [6]])
def test_a_run_that_tells_nonsense(copy: Path, made: Made, nonsense: Any):
    """Its cap and vocabulary are then not known."""

    def change(checkpoint: dict[str, Any]) -> None:
        checkpoint["config"]["top_p_max_elements"] = checkpoint["metadata"]["vocab_used"] = nonsense

    change_checkpoint(copy, change)
    stats = compute_dataset_stats(copy)
    assert stats.nucleus.cap is None and stats.nucleus.share_at_cap is None
    assert stats.entropy.highest.mean >= compute_dataset_stats(made.folder).entropy.lowest.mean
    assert "retained mass" in dataset_stats_text(stats)


def test_no_entries(tmp_path: Path, made: Made):
    none = SparseDistribution(**{name: values[:0] for name, values in vars(made.entries[9]).items()})
    example = Example(9, made.examples[9].input_ids, np.zeros(0, np.int32))
    table = encode_rows(none, JoinedExamples.of([example]), Contents())
    (tmp_path / "data").mkdir()
    write_shard(table, tmp_path / "data/train-01234567-00000.parquet", {"format_version": 1, "logits_dtype": "float32"})
    stats = compute_dataset_stats(tmp_path)
    assert (stats.conversations, stats.entries) == (1, 0) and np.isnan(stats.entropy.estimate)
    assert dataset_stats_text(stats) == "conversations  1\nentries        0"


SPREADS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "nats": lambda rng: rng.gamma(2.0, 1.0, 100_000),
    "surprise at what a sure teacher expected": lambda rng: np.exp(rng.normal(-9, 3, 100_000)).clip(2e-6),
    "surprise up to the farthest logits": lambda rng: rng.uniform(0, 712, 5000) ** 2 / 712,
    "masses near 1": lambda rng: 1 - rng.beta(0.5, 40, 100_000),
}


@pytest.mark.parametrize("kind", SPREADS)
def test_percentiles_are_right_relative_to_themselves(kind: str):
    values = SPREADS[kind](np.random.default_rng(0))
    running = RunningSpread()
    for part in np.array_split(values, 7):
        running.add(part)
    spread = running.result()
    assert (spread.count, spread.smallest, spread.largest) == (len(values), values.min(), values.max())
    assert spread.mean == pytest.approx(values.mean())
    for percent in (0, 1, 5, 25, 50, 90, 99, 99.9, 100):
        assert spread.percentile(percent) == pytest.approx(np.percentile(values, percent), rel=2.0**-14)


def test_whole_numbers_have_exact_percentiles():
    values = np.random.default_rng(0).integers(1, 1 << 15, 5000)
    running = RunningSpread()
    running.add(values)
    for percent in (1, 25, 50, 99):
        assert running.result().percentile(percent) == np.percentile(values, percent)


def test_numbers_past_all_bins_are_the_largest_and_smallest():
    running = RunningSpread()
    running.add([-1e-9, 0.0, 1.0, 2.0, 1e38])
    spread = running.result()
    assert [spread.percentile(percent) for percent in (0, 50, 75, 100)] == [-1e-9, 1.0, 2.0, 1e38]
    assert np.isnan(RunningSpread().result().median)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0, 100))
def test_percentiles_of_few_numbers_that_lie_bins_apart(values: list[float], percent: float):
    running = RunningSpread()
    running.add(values)
    spread = running.result()
    assert spread.percentile(percent) == pytest.approx(np.percentile(values, percent), rel=2.0**-14, abs=2.0**-20)
    assert (spread.percentile(0), spread.percentile(100)) == (min(values), max(values))


def test_the_made_dataset_is_a_hard_one(entries: list[Entry]):
    """Nuclei at the cap, tokens of every kind, draws: what the tests above rely on."""
    assert {len(entry.nucleus) for entry in entries} >= {2, CAP}
    assert all(len(entry.draws) == SAMPLED_N for entry in entries) and VOCABULARY > 65_536
