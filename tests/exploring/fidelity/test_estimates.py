"""What the samples say of the tail: unbiased where a run drew them, and seen where somebody has touched them."""

import dataclasses
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tyro

from teacher_logits.command_line.compare import CompareOutput, run_compare
from teacher_logits.command_line.explore import main
from teacher_logits.exploring.fidelity.figures import Gathered, GatheredEstimates
from teacher_logits.exploring.fidelity.measures import ESTIMATES
from tests.exploring.damage import Row
from tests.exploring.fidelity.test_compare import compared, in_all
from tests.extraction.runs import Place

SMALL_NUCLEI = {"top_p": 0.7, "top_p_max_elements": 5, "sampled_n": 6}
"""They leave much to the tail."""


@pytest.fixture(scope="module")
def drawn(tiny_teacher: Path, tiny_chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with large tails. Not to be changed."""
    folder = tmp_path_factory.mktemp("drawn")
    Place(tiny_teacher, tiny_chat, folder / "logits", folder / "cache").run(**SMALL_NUCLEI)
    return folder / "logits"


def by_probability(row: Row) -> None:
    """The same draws, but in the order of their probability: what breaks the estimate, and nothing else."""
    shape = (row["num_tokens"], -1)
    ids, logits = (np.array(row[name]).reshape(shape) for name in ("sampled_indices_low", "sampled_logits_quantized"))
    order = np.argsort(-logits, axis=1, kind="stable")
    for name, values in (("sampled_indices_low", ids), ("sampled_logits_quantized", logits)):
        row[name] = np.take_along_axis(values, order, 1).ravel().tolist()


def test_estimates_of_many_seeds_follow_their_standard_errors(tiny_teacher: Path, tiny_chat: Path, tmp_path: Path):
    scores = []
    for seed in range(8):
        place = Place(tiny_teacher, tiny_chat, tmp_path / f"{seed}", tmp_path / f"{seed}-cache")
        place.run(seed=seed, dtype=("float32", "bfloat16")[seed % 2], **SMALL_NUCLEI)
        report = compared(place.folder, tiny_teacher)
        assert report.problems == {}
        for name, each in report.estimates.items():
            assert each.exact > 0.01 and 0 < each.standard_error < 0.1 * each.exact, name
            scores.append(each.z)
    assert len(scores) == 8 * len(ESTIMATES)
    # Of 16 standard normal numbers the sum of squares lies between these but once in a thousand.
    assert 3.9 < np.sum(np.square(scores)) < 40
    assert abs(np.mean(scores)) < 3.3 / np.sqrt(len(scores))


def test_draws_that_were_sorted_are_seen_by_the_estimate_alone(drawn: Path, tiny_teacher: Path, tmp_path: Path):
    folder = Path(shutil.copytree(drawn, tmp_path / "sorted"))
    in_all(folder, by_probability)
    report = compared(folder, tiny_teacher)
    assert set(report.problems) <= set(ESTIMATES) and "tail cross-entropy" in report.problems
    assert abs(report.estimates["tail cross-entropy"].z) > 5


def test_rare_large_differences_are_judged_by_their_spread():
    gathered = GatheredEstimates()
    generator = np.random.default_rng(0)
    exact = np.full(10_000, 0.1)
    estimated = exact * generator.exponential(size=10_000)
    gathered.add(estimated[:4000], exact[:4000], np.full(4000, 1e-3))
    gathered.add(estimated[4000:], exact[4000:], np.full(6000, 0.0))
    found = gathered.estimate()
    assert found.estimated == pytest.approx(estimated.mean()) and found.exact == pytest.approx(0.1)
    assert found.standard_error == pytest.approx((estimated - exact).std(ddof=1) / 100)
    assert found.z == pytest.approx((estimated.mean() - 0.1) / found.standard_error)
    assert found.room == pytest.approx(4e-4)
    assert GatheredEstimates().estimate().z == 0


def test_figures_of_differences():
    gathered = Gathered("nats")
    gathered.add(8, np.array([5, 6, 7]), np.array([0.5, -3.0, 1.0]), np.array([1.0, 1.0, 1.0]))
    gathered.add(9, np.array([2]), np.array([2.5]))
    found = gathered.figure()
    assert (found.count, found.bias, found.within) == (4, 0.25, 0.5)
    assert dataclasses.astuple(found.error) == (1.75, 2.5, 3.0, 3.0, 8, 6)
    assert dataclasses.astuple(found.beyond) == (1.125, 2.0, 2.5, 2.5, 9, 2)
    assert gathered.count_above(2.5) == 1 and gathered.count_above(0.9) == 3
    nothing = Gathered("nats").figure()
    assert (nothing.count, nothing.error.worst, nothing.error.index, nothing.within) == (0, 0.0, None, 1.0)
    infinite = Gathered("nats")
    infinite.add(1, np.array([1, 2]), np.array([np.inf, 1.0]))
    assert infinite.figure().error.worst == np.inf and infinite.figure().error.position == 1
    mixed = Gathered("nats")
    mixed.add(1, np.array([1, 2, 3, 4]), np.array([1.0, np.nan, -np.inf, np.inf]), np.array([0.0, 0.0, np.nan, np.inf]))
    found = mixed.figure()
    assert (found.error.worst, found.error.position) == (found.beyond.worst, found.beyond.position) == (np.inf, 2)
    assert found.within == 0 and mixed.count_above(1e300) == 3


def test_the_command(drawn: Path, tiny_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = [str(drawn), "--model", str(tiny_teacher), "--conversations", "5", "--device", "cpu"]
    options = tyro.cli(CompareOutput, args=arguments)
    assert (options.dtype, options.seed, options.any_model) == ("auto", 0, False)
    assert run_compare(options) == 0
    printed = capsys.readouterr().out
    assert "5 of 30 conversations" in printed and printed.endswith(f"{drawn}: sound\n")
    folder = Path(shutil.copytree(drawn, tmp_path / "altered"))
    in_all(folder, by_probability)
    altered = dataclasses.replace(options, output=str(folder), conversations=30)
    assert run_compare(altered) == 1
    assert capsys.readouterr().out.endswith("NOT sound, see above\n")


def test_the_command_stops(
    drawn: Path, tiny_teacher: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """As with Ctrl+C while the teacher works."""
    from teacher_logits.exploring.fidelity.teacher import ComparedTeacher

    def stopped(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ComparedTeacher, "truth", stopped)
    assert main(["compare", str(drawn), "--model", str(tiny_teacher), "--device", "cpu"]) == 130
    assert capsys.readouterr().err.endswith("stopped by SIGINT; run it again to begin anew\n")
