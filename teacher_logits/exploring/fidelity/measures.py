"""The differences of one conversation after another.

Legend: n entries of a conversation, K width of its nuclei, S samples an entry, M nucleus tokens of all its entries.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teacher_logits.codec.quantize import STEPS
from teacher_logits.errors import FormatError
from teacher_logits.exploring.decoding import Sample, dequantize_sampled_logits, dequantize_top_logits
from teacher_logits.exploring.fidelity.figures import Gathered, GatheredEstimates
from teacher_logits.exploring.fidelity.truth import StoredIds, Truth
from teacher_logits.records import Float64

EXTREMES = "extreme logits"
"""Of each nucleus and sample the largest and smallest, which are stored in float32 without quantization. So they tell
what the teacher itself rounds otherwise."""
UNITS = {
    EXTREMES: "nats",
    "nucleus logits": "nats",
    "sampled logits": "nats",
    "logsumexp": "nats",
    "logsumexp_t2": "nats",
    "logsumexp_t4": "nats",
    "nucleus mass": "probability",
    "tail mass": "probability",
    "actual token": "nats",
}
"""The kinds of numbers that are compared. Of the optional columns only what is stored is there."""
COSTS = ("nucleus renormalised", "remainder spread evenly")
ESTIMATES = ("tail cross-entropy", "tail mass of odd ids")
_FLOAT32 = 1.001 * 2.0**-24
"""Half a unit in the last place, relative to the number."""
_FLOAT64 = 1e-12


class Measures:
    """What has been compared so far."""

    def __init__(self) -> None:
        self.gathered = {name: Gathered(unit) for name, unit in UNITS.items()}
        self.nuclei = Gathered("nats")
        """Rounding that would explain each nucleus that isn't the teacher's own."""
        self.costs = {name: Gathered("nats") for name in COSTS}
        self.estimates = {name: GatheredEstimates() for name in ESTIMATES}
        self.largest_steps = {"nucleus logits": (0.0, 0.0), "sampled logits": (0.0, 0.0)}
        """Largest error in steps of the quantization, and how many nats such a step is."""
        self.conversations = self.entries = 0
        self.masses = np.zeros(2)
        """Sums over the entries: mass of the nuclei as stored, and of the teacher's own ones."""
        self.not_finite: list[tuple[int, int]] = []
        """Conversation and position of logits that can't be compared."""

    def add(self, sample: Sample, truth: Truth) -> None:
        """Compare a conversation."""
        self.conversations += 1
        if not truth.finite.all():
            positions = sample["positions"][~truth.finite].tolist()
            self.not_finite += [(sample["index"], position) for position in positions]
            return
        self.entries += sample["num_tokens"]
        with np.errstate(invalid="ignore", over="ignore"):
            self._add_logits(sample, truth)
            self._add_sums(sample, truth)
            self._add_estimates(sample, truth)
        differing = ~truth.same_nucleus
        self.nuclei.add(sample["index"], sample["positions"][differing], truth.rounding_needed[differing])
        for name, values in zip(COSTS, (-np.log(truth.nucleus_mass), truth.spread_kl), strict=True):
            self.costs[name].add(sample["index"], sample["positions"], values)

    def _add_logits(self, sample: Sample, truth: Truth) -> None:
        counts, width = sample["top_counts"], truth.top_logits.shape[1]
        entry_M = np.arange(len(counts)).repeat(counts)
        true_M = truth.top_logits[np.arange(width) < counts[:, None]]
        drawn = truth.sampled_logits.shape[1]
        parts: tuple[tuple[str, Sequence[Float64], Float64, NDArray[np.intp]], ...] = (
            ("top", dequantize_top_logits(sample), true_M, entry_M),
            (
                "sampled",
                dequantize_sampled_logits(sample),
                truth.sampled_logits.ravel(),
                np.arange(len(counts)).repeat(drawn),
            ),
        )
        for kind, logits, true, entry in parts:
            name = {"top": "nucleus logits", "sampled": "sampled logits"}[kind]
            difference = _difference(np.concatenate(logits), true)
            half_step = _half_steps(sample, kind)[entry]
            room = half_step + _half_place(true, sample["logits_dtype"]) + _FLOAT64 * _finite(true)
            self.gathered[name].add(sample["index"], sample["positions"][entry], difference, room)
            step = 2 * half_step[half_step > 0]
            if len(step):
                steps = np.abs(difference[half_step > 0]) / step
                largest = float(steps.max()), float(step[steps.argmax()])
                self.largest_steps[name] = max(self.largest_steps[name], largest)
            self._add_extremes(sample, kind, true, entry)

    def _add_extremes(self, sample: Sample, kind: str, true: Float64, entry: NDArray[np.intp]) -> None:
        """Compare the largest and the smallest logit of each nucleus or sample."""
        quantized = np.concatenate(sample[f"{kind}_logits_quantized"])
        single = (sample[f"{kind}_max"] == sample[f"{kind}_min"])[entry]
        for bound, extreme in ((f"{kind}_max", (quantized == STEPS) | single), (f"{kind}_min", quantized == 0)):
            entries = entry[extreme]
            differences = _difference(sample[bound].astype(np.float64)[entries], true[extreme])
            # Of several within half a step of it, the one that it is.
            order = np.lexsort((np.abs(differences), entries))
            own, first = np.unique(entries[order], return_index=True)
            self.gathered[EXTREMES].add(sample["index"], sample["positions"][own], differences[order][first])

    def _add_sums(self, sample: Sample, truth: Truth) -> None:
        index, positions = sample["index"], sample["positions"]
        for name in ("logsumexp", "logsumexp_t2", "logsumexp_t4"):
            if name in sample:
                true = getattr(truth, name)
                room = (_FLOAT64 if name == "logsumexp" else _FLOAT32) * np.abs(true)
                self.gathered[name].add(index, positions, sample[name].astype(np.float64) - true, room)
        mass = _stored_mass(sample)
        room = _half_steps(sample, "top") * truth.nucleus_mass + _FLOAT64
        self.gathered["nucleus mass"].add(index, positions, mass - truth.nucleus_mass, room)
        self.gathered["tail mass"].add(index, positions, 1 - mass - truth.tail_mass, room)
        self.masses += (mass.sum(), truth.own_mass.sum())
        if "token_logprob" in sample:
            stored = sample["token_logprob"].astype(np.float64)
            difference = _difference(stored, truth.token_logprob)
            self.gathered["actual token"].add(index, positions, difference, _FLOAT32 * _finite(truth.token_logprob))

    def _add_estimates(self, sample: Sample, truth: Truth) -> None:
        """Des Raj's estimates from the stored draws. g is a function of the id alone, as a student's would be."""
        p = np.exp(np.array(dequantize_sampled_logits(sample)) - sample["logsumexp"][:, None])
        surprise = truth.logsumexp[:, None] - truth.sampled_logits
        odd = np.array(sample["sampled_indices"]) % 2.0
        remainder = 1 - _stored_mass(sample)
        moved = np.abs(remainder - truth.tail_mass)
        exact = (truth.tail_entropy, truth.tail_odd_mass)
        for name, g, true in zip(ESTIMATES, (np.where(np.isfinite(surprise), surprise, 0.0), odd), exact, strict=True):
            mean_g = np.divide(true, truth.tail_mass, out=np.zeros_like(true), where=truth.tail_mass > 0)
            self.estimates[name].add(des_raj(p, remainder, g), true, mean_g * moved)


def stored_ids(sample: Sample, vocab_used: int) -> StoredIds:
    """The ids of a sample that has its tokens. Raises FormatError where they can't be right."""
    counts, positions = sample["top_counts"], sample["positions"]
    tops = np.concatenate(sample["top_indices"])
    sampled = np.array(sample["sampled_indices"])
    largest = max(int(tops.max()), int(sampled.max()))
    inside = positions[0] >= 1 and positions[-1] < len(sample["input_ids"]) and (np.diff(positions) > 0).all()
    if largest >= vocab_used or not inside or not counts.min():
        raise FormatError(
            f"Row {sample['index']} is damaged: its ids, nucleus sizes or positions are impossible. Look at the "
            "dataset with verify."
        )
    width = int(counts.max())
    top = np.array([ids[0] for ids in sample["top_indices"]])[:, None].repeat(width, 1)
    top[np.arange(width) < counts[:, None]] = tops
    tokens = sample["input_ids"][positions].astype(np.int64)
    return StoredIds(top.astype(np.int64), counts.astype(np.int64), sampled.astype(np.int64), tokens)


def des_raj(p: Float64, remainder: Float64, g: Float64) -> Float64:
    """[n] the unbiased estimate of docs/format.md. p, g: [n, S] in the order of the draws.   remainder: [n] W."""
    terms = p * g
    before, mass_before = np.cumsum(terms, 1) - terms, np.cumsum(p, 1) - p
    estimate: Float64 = (before + (remainder[:, None] - mass_before) * g).mean(1)
    return estimate


def _stored_mass(sample: Sample) -> Float64:
    rows = zip(dequantize_top_logits(sample), sample["logsumexp"], strict=True)
    return np.array([np.exp(logits - total).sum() for logits, total in rows])


def _half_steps(sample: Mapping[str, Any], kind: str) -> Float64:
    """[n] half a step of the quantization."""
    span: Float64 = sample[f"{kind}_max"].astype(np.float64) - sample[f"{kind}_min"]
    return span / STEPS / 2


def _half_place(logits: Float64, dtype: str | None) -> Float64:
    """Half a unit in the last place of 16-bit types: what rounding back to them adds where they are finer than the
    quantization."""
    sizes = _finite(logits)
    if dtype == "bfloat16":
        return np.spacing(sizes.astype(np.float32)).astype(np.float64) * 2.0**15
    return np.spacing(sizes.astype(np.float16)).astype(np.float64) / 2 if dtype == "float16" else np.zeros_like(sizes)


def _finite(values: Float64) -> Float64:
    """The sizes of values, 0 for those that have none."""
    return np.where(np.isfinite(values), np.abs(values), 0.0)


def _difference(stored: Float64, true: Float64) -> Float64:
    """stored - true, 0 where both are -inf."""
    return np.where(stored == true, 0.0, stored - true)
