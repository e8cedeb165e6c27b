"""Views of a sample as plain text: what the printing functions print.

Nothing from the data reaches a terminal as it is: control characters, which could move the cursor, change colours or
turn the reading direction, are shown as escapes.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from teacher_logits.exploring.analysis import TokenChoice, TokenProbability
from teacher_logits.exploring.decoding import Sample, get_nucleus_probability_mass
from teacher_logits.exploring.runs import told
from teacher_logits.exploring.tokens import TokenTexts
from teacher_logits.printable import visible
from teacher_logits.settings import is_folder

_PREVIEW = 400
_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "bytes"))


@dataclass(frozen=True)
class Table:
    """Rows of texts, each with a name in front."""

    title: str
    head: tuple[str, ...]
    """Of the columns, that of the names included."""
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    """Sentences below."""


def quoted(text: str) -> str:
    """The text of a token in quotation marks, on one line: ` the`, line breaks as `\\n`."""
    return "'" + visible(text).replace("\n", "\\n").replace("\t", "\\t") + "'"


def table(rows: Sequence[Sequence[str]], right: str = "") -> str:
    """Rows of cells in aligned columns, two spaces apart.

    right: the columns to align to the right, by their digits: '02' is the first and the third. East Asian wide
    characters count as two.
    """
    if not rows:
        return ""
    widths = [max(_width(cell) for cell in column) for column in zip(*rows, strict=True)]

    def padded(place: int, cell: str) -> str:
        space = " " * (widths[place] - _width(cell))
        return space + cell if str(place) in right else cell + space

    return "\n".join("  ".join(padded(place, cell) for place, cell in enumerate(row)).rstrip() for row in rows)


def top_tokens_text(choices: Sequence[TokenChoice], title: str) -> str:
    """A table of the teacher's choices with their probabilities."""
    rows = [
        [f"{rank}", percent(choice.probability), quoted(choice.token), f"{choice.id}"]
        for rank, choice in enumerate(choices, 1)
    ]
    return title + "\n" + table([["rank", "probability", "token", "id"], *rows], right="013")


def surprises_text(records: Sequence[TokenProbability]) -> str:
    """One line for each token with what the teacher would rather have said."""
    rows = [["position", "token", "probability", "bits", "where", "the teacher's choices"]]
    for record in records:
        rows.append(
            [
                f"{record.position}",
                quoted(record.token),
                percent(record.probability),
                "unknown" if np.isnan(record.surprise_bits) else f"{record.surprise_bits:.1f}",
                record.where if record.rank is None else f"{record.where}, {record.rank}",
                "  ".join(f"{quoted(choice.token)} {percent(choice.probability)}" for choice in record.alternatives),
            ]
        )
    return table(rows, right="023")


def sample_info_text(sample: Sample, tokenizer: Any = None) -> str:
    """What a sample holds: sizes, nuclei, mass, the teacher's view of the text, and the text's beginning."""
    rows = [["index", f"{sample['index']}"], ["stored tokens", f"{sample['num_tokens']:,}"]]
    if "input_ids" in sample:
        rows.append(["conversation", f"{len(sample['input_ids']):,} tokens"])
    if model := told(sample.get("run") or {}, "model"):
        rows.append(["model", visible(str(model))])
    if sample["num_tokens"]:
        rows += _figures(sample)
    text = table(rows)
    if tokenizer is not None and "input_ids" in sample:
        ids = sample["input_ids"][: _PREVIEW // 2]
        text += "\n\n" + visible("".join(TokenTexts(tokenizer).row(ids)))[:_PREVIEW]
        text += "..." if len(ids) < len(sample["input_ids"]) else ""
    return text


def _figures(sample: Sample) -> list[list[str]]:
    sizes, mass = sample["top_counts"], get_nucleus_probability_mass(sample)
    rows = [
        ["nucleus size", f"mean {sizes.mean():.1f}, median {np.median(sizes):.0f}, largest {sizes.max()}"],
        ["nucleus mass", f"mean {percent(mass.mean())}, smallest {percent(mass.min())}"],
        ["samples a token", f"{len(sample['sampled_indices'][0])}"],
    ]
    if "token_logprob" in sample:
        rows.append(["perplexity", perplexity_text(sample["token_logprob"])])
    return rows


def perplexity_text(logprobs: np.ndarray) -> str:
    """exp(-mean of the log-probabilities) of the tokens that have a finite one, and how many haven't."""
    finite = np.asarray(logprobs, np.float64)[np.isfinite(logprobs)]
    if not len(finite):
        return "unknown"
    left_out = len(logprobs) - len(finite)
    note = f" (without {left_out:,} tokens of unknown or no probability)" if left_out else ""
    with np.errstate(over="ignore"):
        return f"{np.exp(-finite.mean()):,.2f}{note}"


def run_name(run: Mapping[str, Any], name: str) -> str | None:
    """The run's model or dataset. Of a path its last part alone, since pages are sent to others; None: not told."""
    named = (run.get("metadata") or {}).get(name) or told(run, name)
    if named is None:
        return None
    return visible(PurePath(named).name if is_folder(str(named)) else str(named))


def run_settings(run: Mapping[str, Any], samples: int | None = None) -> str:
    """What decided how much of a distribution is stored: 'top-p 0.98, cap 100, 24 samples', as far as it is told.

    samples: a token's, where they are known from elsewhere.
    """
    top_p, cap, drawn = (told(run, name) for name in ("top_p", "top_p_max_elements", "sampled_n"))
    drawn = samples if drawn is None else drawn
    named = [(top_p, f"top-p {top_p}"), (cap, f"cap {cap}"), (drawn, f"{drawn} samples")]
    return ", ".join(text for value, text in named if value is not None) or "settings unknown"


def percent(share: float) -> str:
    """0.9876 as '98.76 %'; small shares in scientific notation, so that none shows as zero; NaN as 'unknown'."""
    if np.isnan(share):
        return "unknown"
    if 0 < share < 5e-5:
        return f"{share * 100:.1e} %"
    return f"{share:.2%}".replace("%", " %")


def size_text(size: float) -> str:
    """Bytes as '1.5 MB'."""
    unit, name = next((scale for scale in _UNITS if size >= scale[0]), _UNITS[-1])
    return f"{size / unit:,.1f} {name}" if unit > 1 else f"{size:,.0f} {name}"


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )
