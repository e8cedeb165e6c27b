"""Is what is stored what the teacher said? Recomputes every entry of an output, one conversation at a time.

    python benchmarks/verification.py OUTPUT --model M [--dtype float64] [--conversations N] [--references N]

The teacher runs without batching and without choosing positions, in float64 or another type; nucleus, log-sum-exp and
the rest are derived from its full logits by sorting, with numpy alone. Compared with what the shards hold:

- nucleus: the same ids in the same order, or a difference that a tie explains (logits closer than the teacher's own
  rounding, or a cumulative sum that close to top_p)
- logits: within half a quantization step, and half a unit in the last place of a 16-bit type, beyond the teacher's
  own rounding
- log-sum-exp, and the actual token's log-probability
- sampled ids: outside the nucleus, distinct, and some of them drawn again by the slow reference

Recompute a run in the type it was computed in where that run was made with --max-batch-size 1, or in float64: then the
logits are the same, and every comparison is exact (log-sum-exp within 1e-9, logits within half a step). In a wider type
than the run's, the teacher's own rounding lies between the two; it is measured and shown, and ties within it are
counted apart. Exit code 1 where a comparison fails.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from teacher_logits.codec import Entries, decode_rows
from teacher_logits.progress import track
from teacher_logits.sampling.reference import reference_entry
from teacher_logits.shards import read_metadata, read_table

STEPS = 65535
FLOAT32_ERROR = 1e-5
"""Columns in float32 hold numbers up to some hundred: half a unit in the last place of 100 is 4e-6."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Recompute what a logits dataset in a local folder holds, and compare."""

    output: Annotated[str, tyro.conf.Positional]
    """Folder with the dataset."""
    model: str
    """The teacher it was made with."""
    dtype: str = "float64"
    """Type to recompute in."""
    conversations: int = 10**9
    """Check at most this many, spread over the dataset."""
    references: int = 20
    """Entries to draw again with the slow reference."""
    json: Path | None = None
    """Also write the figures to this file."""


@dataclasses.dataclass
class Findings:
    """Counted over entries."""

    conversations: int = 0
    entries: int = 0
    nucleus_tokens: int = 0
    nuclei_equal: int = 0
    nuclei_tied: int = 0
    nuclei_wrong: int = 0
    mass_short: int = 0
    """Nuclei below top_p although the cap left room."""
    logsumexp_error: float = 0.0
    """Largest, relative."""
    rounding: float = 0.0
    """Largest difference of a nucleus logit beyond half a quantization step, and half a unit in the last place of a
    16-bit type: the teacher's own rounding."""
    token_error: float = 0.0
    """Largest difference of the actual token's log-probability."""
    temperature_error: float = 0.0
    """Largest difference of the log-sum-exps at T = 2 and 4."""
    sampled_in_nucleus: int = 0
    sampled_twice: int = 0
    tail_exhausted: int = 0
    references: int = 0
    references_equal: int = 0
    tokens_wrong: int = 0
    """Entries whose position can't be one of an assistant token."""

    def sound(self, exact: bool) -> bool:
        """Whether nothing is wrong. exact: the logits are the same as the run's, so no rounding is allowed for."""
        wrong = self.nuclei_wrong + self.mass_short + self.sampled_in_nucleus + self.sampled_twice + self.tokens_wrong
        close = self.logsumexp_error <= 1e-9 and self.rounding <= 1e-9
        in_float32 = self.token_error <= FLOAT32_ERROR and self.temperature_error <= FLOAT32_ERROR
        alike = self.references_equal == self.references
        return wrong == 0 and self.entries > 0 and (not exact or (close and in_float32 and alike))


def main() -> int:
    """Check an output and print its figures."""
    options = tyro.cli(Options, prog="verification.py")
    shards = sorted(Path(options.output, "data").glob("*.parquet"))
    if not shards:
        print(f"error: no shards under {options.output}/data", file=sys.stderr)
        return 2
    metadata = read_metadata(shards[0])
    model = _model(options)
    exact = options.dtype == metadata["model_dtype"]
    findings = Findings()
    rows = list(_rows(shards, options.conversations))
    for table in track(rows, "recomputing", len(rows), "conversations"):
        _check(table, metadata, model, options, exact, findings)
    figures = dataclasses.asdict(findings) | {
        "model": metadata["model"],
        "computed_in": metadata["model_dtype"],
        "recomputed_in": options.dtype,
        "mean_nucleus": findings.nucleus_tokens / max(1, findings.entries),
        "sound": findings.sound(exact),
    }
    for name, value in figures.items():
        print(f"{name:22} {value:,}" if isinstance(value, int) else f"{name:22} {value}")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if findings.sound(exact) else 1


def _model(options: Options) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, options.dtype)).eval()


def _rows(shards: list[Path], most: int) -> Iterator[Any]:
    """Single rows of the dataset as tables, evenly spread."""
    tables = [read_table(shard) for shard in shards]
    places = [(table, row) for table in tables for row in range(table.num_rows)]
    for number in np.unique(np.linspace(0, len(places) - 1, min(most, len(places))).astype(int)):
        table, row = places[number]
        yield table.slice(row, 1)


def _check(table: Any, metadata: dict[str, Any], model: Any, options: Options, exact: bool, found: Findings) -> None:
    row = table.to_pylist()[0]
    entries = decode_rows(table, metadata["logits_dtype"])
    ids, positions = np.array(row["input_ids"]), np.array(row["positions"])
    if positions.min() < 1 or positions.max() >= len(ids) or (np.diff(positions) <= 0).any():
        found.tokens_wrong += len(positions)
        return
    with torch.inference_mode():
        logits = model(torch.from_numpy(ids)[None], use_cache=False).logits[0]
    found.conversations += 1
    ends = np.concatenate([[0], np.cumsum(entries.counts)])
    bottom, top = np.array(row["top_min"], np.float64), np.array(row["top_max"], np.float64)
    for entry, position in enumerate(positions):
        # Entry i describes the distribution that predicts the token at its position: the logits one place earlier.
        x = logits[position - 1].float().numpy()[: metadata["vocab_used"]]
        stored = slice(ends[entry], ends[entry + 1])
        half_step = (top[entry] - bottom[entry]) / STEPS / 2
        _compare(x, entries, entry, stored, half_step, metadata, exact, found)
        _compare_scalars(x, row, entry, int(ids[position]), found)
        if found.references < options.references and entry % 7 == 0:
            _draw_again(x, entries, entry, int(ids[position]), row["index"], int(position), metadata, found)


def _compare(
    x: np.ndarray,
    entries: Entries,
    entry: int,
    stored: slice,
    half_step: float,
    metadata: dict[str, Any],
    exact: bool,
    found: Findings,
) -> None:
    """Nucleus, logits and samples of one entry."""
    wide = x.astype(np.float64)
    lse = wide.max() + np.log(np.exp(wide - wide.max()).sum())
    ids, logits = entries.top_ids[stored], entries.top_logits[stored]
    order = np.lexsort((np.arange(len(x)), -x))[: metadata["top_p_max_elements"]]
    mass = np.exp(wide[order] - lse)
    before = np.cumsum(mass) - mass
    wanted = order[: max(1, int((before < metadata["top_p"]).sum()))]

    found.entries += 1
    found.nucleus_tokens += len(ids)
    beyond = np.abs(logits - wide[ids]) - half_step - _half_place(wide[ids], metadata["logits_dtype"])
    found.rounding = max(found.rounding, float(beyond.max()))
    if np.array_equal(ids, wanted):
        found.nuclei_equal += 1
    elif not exact and _tied(wide, lse, ids, wanted, metadata["top_p"], float(np.abs(logits - wide[ids]).max())):
        found.nuclei_tied += 1
    else:
        found.nuclei_wrong += 1
    held = np.exp(logits - entries.logsumexp[entry]).sum()
    slack = 1e-9 + 2 * half_step
    if len(ids) < metadata["top_p_max_elements"] and held < metadata["top_p"] - slack:
        found.mass_short += 1

    sampled = entries.sampled_ids[entry]
    distinct = len(np.unique(sampled))
    in_tail = int(np.isfinite(x).sum()) - len(ids)
    found.tail_exhausted += distinct < len(sampled)
    found.sampled_twice += distinct < min(len(sampled), in_tail) and not (x.max() - np.partition(x, 1)[1] > 700)
    found.sampled_in_nucleus += bool(in_tail > 0 and np.isin(sampled, ids).any())


def _half_place(logits: np.ndarray, dtype: str) -> np.ndarray | float:
    """Half a unit in the last place of 16-bit types: rounding a logit back to its type may add so much to what
    quantization took, where the steps are coarser than the type's (near zero)."""
    if dtype == "bfloat16":
        return np.spacing(np.abs(logits).astype(np.float32)) * 2.0**15
    return np.spacing(np.abs(logits).astype(np.float16)) / 2 if dtype == "float16" else 0.0


def _tied(x: np.ndarray, lse: float, ids: np.ndarray, wanted: np.ndarray, top_p: float, rounding: float) -> bool:
    """Whether two nuclei differ only where the teacher's rounding decides: the order of tokens whose logits are as
    close as that, or where the cumulative probability crosses top_p."""
    room = 4 * rounding + 1e-6
    common = min(len(ids), len(wanted))
    if (np.abs(x[ids[:common]] - x[wanted[:common]]) > room).any():
        return False
    shorter = ids if len(ids) < len(wanted) else wanted
    mass = np.exp(x[shorter] - lse).sum()
    return len(ids) == len(wanted) or abs(mass - top_p) < room


def _compare_scalars(x: np.ndarray, row: dict[str, Any], entry: int, token: int, found: Findings) -> None:
    """Log-sum-exps and the actual token's log-probability of one entry."""
    wide = x.astype(np.float64)

    def lse(temperature: float) -> float:
        scaled = wide / temperature
        return float(scaled.max() + np.log(np.exp(scaled - scaled.max()).sum()))

    error = abs(row["logsumexp"][entry] - lse(1)) / max(1.0, abs(lse(1)))
    found.logsumexp_error = max(found.logsumexp_error, error)
    found.token_error = max(found.token_error, abs(row["token_logprob"][entry] - (wide[token] - lse(1))))
    for temperature in (2, 4):
        error = abs(row[f"logsumexp_t{temperature}"][entry] - lse(temperature))
        found.temperature_error = max(found.temperature_error, error)


def _draw_again(
    x: np.ndarray,
    entries: Entries,
    entry: int,
    token: int,
    index: int,
    position: int,
    metadata: dict[str, Any],
    found: Findings,
) -> None:
    """Draw an entry's sample with the slow reference from the same seed, conversation and position."""
    again = reference_entry(
        x.tolist(),
        token,
        index,
        position,
        metadata["top_p"],
        metadata["top_p_max_elements"],
        metadata["sampled_n"],
        metadata["seed"],
    )
    found.references += 1
    found.references_equal += again.sampled_ids == entries.sampled_ids[entry].tolist()


if __name__ == "__main__":
    sys.exit(main())
