"""Comparing a dataset with its teacher, conversation by conversation."""

from pathlib import Path
from typing import Any

import numpy as np

from teacher_logits.errors import SettingsError
from teacher_logits.exploring.fidelity.figures import Figure
from teacher_logits.exploring.fidelity.measures import EXTREMES, Measures, stored_ids
from teacher_logits.exploring.fidelity.report import FidelityReport, NucleusCounts
from teacher_logits.exploring.fidelity.teacher import ComparedTeacher, open_teacher
from teacher_logits.exploring.fidelity.verdict import allowed_rounding, nucleus_tolerance, problems
from teacher_logits.exploring.retokenizing import retokenized
from teacher_logits.exploring.runs import run_of_source
from teacher_logits.exploring.samples import count_samples, iter_samples
from teacher_logits.exploring.sources import Source, open_source
from teacher_logits.progress import progress

CONVERSATIONS = 20
"""How many are compared where nobody says."""


def compare_with_teacher(
    source: str | Path | Source,
    model: str | Path,
    conversations: int = CONVERSATIONS,
    dtype: str = "auto",
    device: str = "auto",
    seed: int = 0,
    tokenizer: Any = None,
    *,
    any_model: bool = False,
    dataset: str | None = None,
    split: str | None = None,
    revision: str | None = None,
) -> FidelityReport:
    """Run the teacher again over some conversations, and say how what is stored differs from what it says.

    source: a folder, a Hub dataset id, or what `exploring.open_source` gives; split and revision of it.
    model: a Hub id or folder; it must hold what the run's model held, unless `any_model`.   tokenizer: by default the
    model's own.
    conversations: at most so many, evenly spread over the dataset; `seed` chooses them.
    dataset: where the run's source dataset is now, which conversations stored without tokens are rendered from.
    dtype: type to compute in; auto: that of the run.   device: auto, cpu, cuda, mps, ...

    One conversation is read at a time, without padding. Memory holds the teacher, one row group, up to 2 GiB of logits
    and about 1 kB for each entry compared. Conversations of a dataset without tokens are rendered again.
    Raises TeacherError where the model is another or can't be loaded, FormatError where the dataset can't be read.
    """
    if conversations < 1:
        raise SettingsError(f"conversations is {conversations}; expected at least 1.")
    opened = source if isinstance(source, Source) else open_source(source, revision)
    total = count_samples(opened, split)
    compared = open_teacher(run_of_source(opened), model, dtype, device, tokenizer, any_model)
    places = spread_places(total, conversations, seed)
    measures = Measures()
    with progress("comparing", len(places), "conversations") as shown:
        for sample in iter_samples(opened, split, places):
            _compare(sample, compared, measures, dataset)
            shown.advance(note=f"{measures.entries:,} tokens")
    return _report(opened.name, total, compared, measures)


def spread_places(total: int, wanted: int, seed: int) -> list[int]:
    """`wanted` places of `total`, rising: one at random in each of as many equal parts; all where there are fewer."""
    if wanted >= total:
        return list(range(total))
    bounds = np.arange(wanted + 1) * total // wanted
    return np.random.default_rng(seed).integers(bounds[:-1], bounds[1:]).tolist()


def _compare(sample: dict[str, Any], compared: ComparedTeacher, measures: Measures, dataset: str | None) -> None:
    if not sample["num_tokens"]:
        return
    whole = retokenized(sample, dataset)
    measures.add(whole, compared.truth(whole, stored_ids(whole, compared.vocab_used)))


def _report(name: str, total: int, compared: ComparedTeacher, measures: Measures) -> FidelityReport:
    allowed = allowed_rounding(compared.run_dtype, compared.dtype)
    figures = {name: gathered.figure() for name, gathered in measures.gathered.items()}
    figures = {name: figure for name, figure in figures.items() if figure.count}
    extremes = figures.setdefault(EXTREMES, measures.gathered[EXTREMES].figure())
    estimates = {name: gathered.estimate() for name, gathered in measures.estimates.items()}
    tolerance = nucleus_tolerance(extremes, allowed)
    nuclei = _nuclei(measures, tolerance)
    wrong = problems(figures, estimates, allowed) | _wrong_nuclei(nuclei) | _not_compared(measures)
    return FidelityReport(
        name=name,
        model=compared.name,
        differences=compared.differences,
        run_dtype=compared.run_dtype,
        dtype=compared.dtype,
        conversations=measures.conversations,
        of=total,
        entries=measures.entries,
        figures=figures,
        largest_steps=measures.largest_steps,
        nuclei=nuclei,
        mean_mass=(measures.masses[0] / max(1, measures.entries), measures.masses[1] / max(1, measures.entries)),
        costs={name: gathered.figure() for name, gathered in measures.costs.items()},
        estimates=estimates,
        problems=wrong,
    )


def _nuclei(measures: Measures, tolerance: float) -> NucleusCounts:
    rounding: Figure = measures.nuclei.figure()
    wrong = measures.nuclei.count_above(tolerance)
    return NucleusCounts(
        same=measures.entries - rounding.count,
        tied=rounding.count - wrong,
        wrong=wrong,
        tolerance=tolerance,
        rounding=rounding,
    )


def _wrong_nuclei(nuclei: NucleusCounts) -> dict[str, str]:
    if not nuclei.wrong:
        return {}
    worst = nuclei.rounding.error
    return {
        "nuclei": f"nuclei: {nuclei.wrong:,} are not the teacher's; the worst, at conversation {worst.index}, position "
        f"{worst.position}, would take logits that are off by {worst.worst:.2g}"
    }


def _not_compared(measures: Measures) -> dict[str, str]:
    found: dict[str, str] = {}
    if measures.not_finite:
        index, position = measures.not_finite[0]
        found["not finite"] = (
            f"the teacher gives NaN, +inf or nothing finite for {len(measures.not_finite):,} entries, the first at "
            f"conversation {index}, position {position}; their conversations were left out"
        )
    if not measures.entries:
        found["nothing"] = "no token was compared"
    return found
