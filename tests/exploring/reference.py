"""Slow twins of the statistics: whole distributions, one entry and one token after another."""

from dataclasses import dataclass
from math import exp, log

import numpy as np

from tests.exploring.made import CAP, TEXTS, TOP_P, Made


@dataclass(frozen=True)
class Entry:
    """One stored token, from the whole distribution."""

    index: int
    number: int
    position: int
    token: int
    probabilities: np.ndarray
    nucleus: list[int]
    draws: list[int]

    @property
    def entropy(self) -> float:
        return -sum(p * log(p) for p in self.probabilities.tolist() if p)

    @property
    def nucleus_entropy(self) -> float:
        return -sum(p * log(p) for p in self.probabilities[self.nucleus].tolist())

    def mass(self, temperature: float) -> float:
        """What the nucleus holds of the distribution at a temperature."""
        tempered = self.probabilities ** (1 / temperature)
        return float(tempered[self.nucleus].sum() / tempered.sum())

    @property
    def rank(self) -> int | None:
        return self.nucleus.index(self.token) + 1 if self.token in self.nucleus else None

    def estimate(self) -> float:
        """The entropy with the tail estimated from the draws, as the format's definition says it."""
        return self.nucleus_entropy + des_raj(
            1 - sum(self.probabilities[self.nucleus].tolist()), self.probabilities[self.draws].tolist()
        )


def des_raj(tail: float, drawn: list[float]) -> float:
    """The mean over r of [sum over s < r of p_s g_s + (W - C_r) g_r] with g = -log p."""
    terms = []
    for r, p in enumerate(drawn):
        before = drawn[:r]
        terms.append(sum(-q * log(q) for q in before) - (tail - sum(before)) * log(p))
    return sum(terms) / len(terms)


def lowest_entropy(known: list[float], largest: float) -> float:
    """With the mass that `known` leaves on tokens of at most `largest`, filled one after another."""
    rest, parts = 1 - sum(known), list(known)
    while rest > 1e-15:
        parts.append(min(rest, largest))
        rest -= parts[-1]
    return -sum(p * log(p) for p in parts if p > 0)


def highest_entropy(known: list[float], others: int) -> float:
    """With the mass that `known` leaves spread evenly over `others` tokens."""
    rest = max(0.0, 1 - sum(known))
    spread = -rest * log(rest / others) if rest > 0 else 0.0
    return -sum(p * log(p) for p in known if p > 0) + spread


def entries_of(made: Made) -> list[Entry]:
    """All entries of the made dataset, in its order."""
    found = []
    for index in TEXTS:
        probabilities = made.probabilities(index)
        logits = made.logits[index].float().numpy()
        for number, token in enumerate(made.tokens(index).tolist()):
            order = np.argsort(-logits[number], kind="stable")[: CAP + 1]
            before = np.cumsum(probabilities[number][order]) - probabilities[number][order]
            found.append(
                Entry(
                    index=index,
                    number=number,
                    position=int(made.examples[index].positions[number]),
                    token=token,
                    probabilities=probabilities[number],
                    nucleus=order[before < TOP_P][:CAP].tolist(),
                    draws=made.entries[index].sampled_ids[number].tolist(),
                )
            )
    return found


def perplexity(entries: list[Entry]) -> float:
    return exp(-sum(log(entry.probabilities[entry.token]) for entry in entries) / len(entries))
