"""Statistics and plots of a dataset as files."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from teacher_logits.errors import OutputError
from teacher_logits.exploring.decoding import Sample
from teacher_logits.exploring.entries import entry_at
from teacher_logits.exploring.entropy import entropy_bounds
from teacher_logits.exploring.plots import (
    plot_entropy_along_position,
    plot_logit_distribution,
    plot_nucleus_size_analysis,
    plot_nucleus_sizes,
    plot_nucleus_vs_sampled,
    png_of,
)
from teacher_logits.exploring.plots.style import PNG_MARK, theme_of
from teacher_logits.exploring.runs import tokenizer_if_any
from teacher_logits.exploring.samples import get_sample, read_sample
from teacher_logits.exploring.sources import Source, open_source
from teacher_logits.exploring.statistics import (
    BytesPerToken,
    DatasetStats,
    Spread,
    analyze_nucleus_sizes,
    bytes_per_token_text,
    compute_bytes_per_token_stats,
    compute_dataset_stats,
    dataset_stats_text,
    stats_warnings,
)
from teacher_logits.files import PUBLIC_FILE, json_bytes, write_bytes

_BEGINNING = 4096
_MARKS = {".png": b"Software\0" + PNG_MARK.encode(), ".txt": b"nucleus sizes  ", ".json": b'"bytes": {'}
"""What stands at the beginning of files that are written here, by their kind."""
_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


def execute_analysis(
    dataset: Any,
    output_dir: str | Path | None = None,
    split: str | None = None,
    *,
    revision: str | None = None,
    theme: str = "light",
) -> list[Path]:
    """Write all statistics and plots of a dataset into a folder, and return the files.

    statistics.txt, statistics.json, and the pictures of `write_plots` for the first conversation.
    dataset: a folder, a Hub dataset id, what `open_source` gives, or an opened dataset.   output_dir: by default
    `<name>-analysis` in the working folder, of an opened dataset `analysis`.   theme: of the pictures, 'light' or
    'dark'.
    Raises FormatError where the dataset can't be read, OutputError where output_dir can't be a folder.
    """
    theme_of(theme)  # before the work
    source = open_source(dataset, revision) if isinstance(dataset, str | Path) else dataset
    name = f"{Path(source.name).resolve().name}-analysis" if isinstance(source, Source) else "analysis"
    folder = _folder(name if output_dir is None else output_dir)
    stats = compute_dataset_stats(source, split=split)
    stored = compute_bytes_per_token_stats(source, split=split)
    texts = [dataset_stats_text(stats, tokenizer_if_any(stats.run)), bytes_per_token_text(stored)]
    written = [folder / "statistics.txt", folder / "statistics.json"]
    _require_ours(*written)
    write_bytes(written[0], ("\n\n".join(texts) + "\n").encode(), PUBLIC_FILE)
    write_bytes(written[1], json_bytes(figures(stats, stored)), PUBLIC_FILE)
    return written + write_plots(source, folder, split, theme=theme, stats=stats)


def write_plots(
    source: Any,
    folder: str | Path,
    split: str | None = None,
    *,
    place: int | None = None,
    index: int | None = None,
    position: int | None = None,
    theme: str = "light",
    tokenizer: Any = None,
    stats: DatasetStats | None = None,
) -> list[Path]:
    """Write every plot as a PNG file into a folder: of the dataset, of one conversation, of one of its tokens.

    source: what `open_source` gives, or an opened dataset.
    place, index: of the conversation, by default the first.   position: of one of its stored tokens in the
    conversation (in a dataset without positions, its number), by default that of the largest entropy.
    stats: those of the dataset, where they are at hand.
    Raises NoSuchSampleError for another place, index or position, OutputError where the folder can't be.
    """
    theme_of(theme)  # before the work
    place = 0 if place is None and index is None else place
    opened = not isinstance(source, Source)
    sample = get_sample(source, place, index=index) if opened else read_sample(source, split, place, index)
    entry = _entry(sample, position)
    folder = _folder(folder)
    stats = stats or compute_dataset_stats(source, split=split)
    sizes = analyze_nucleus_sizes(source, per_sample=True, per_position=True, split=split)
    written = []
    for name, figure in _figures(stats, sizes, sample, entry, theme, tokenizer):
        written.append(folder / f"{name}.png")
        _require_ours(written[-1])
        write_bytes(written[-1], png_of(figure), PUBLIC_FILE)
    return written


def figures(stats: DatasetStats, stored: BytesPerToken) -> dict[str, Any]:
    """The figures as JSON can hold them: no NaN, of distributions their percentiles, of histograms the counts."""
    content = {field.name: _plain(getattr(stats, field.name)) for field in fields(stats) if field.name != "run"}
    content |= {"bytes": _plain(stored) | {"per_token": _plain(stored.per_token)}, "notes": stats_warnings(stats)}
    if stats.surprise is not None:
        content["surprise"]["perplexity"] = _plain(stats.surprise.perplexity)
    return content


def _require_ours(*paths: Path) -> None:
    """Raise OutputError where one of them is there already and was not written here before."""
    for path in paths:
        if path.exists() and not (path.is_file() and _MARKS[path.suffix] in _beginning(path)):
            raise OutputError(f"{path} is there already and not from here: it is not replaced. Choose another folder.")


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_BEGINNING)


def _figures(
    stats: DatasetStats, sizes: Any, sample: Sample, entry: int | None, theme: str, tokenizer: Any
) -> Iterator[tuple[str, Any]]:
    """Names and figures, one at a time."""
    yield "dataset-nucleus-sizes", plot_nucleus_size_analysis(sizes, theme=theme)
    yield "dataset-entropy", plot_entropy_along_position(stats, theme=theme)
    conversation = f"conversation-{sample['index']}"
    yield f"{conversation}-nucleus-sizes", plot_nucleus_sizes(sample, theme=theme)
    yield f"{conversation}-entropy", plot_entropy_along_position(sample, theme=theme)
    if entry is not None:
        token = f"{conversation}-{_file_part(sample, entry)}"
        yield f"{token}-distribution", plot_logit_distribution(sample, entry, tokenizer, theme=theme)
        yield f"{token}-nucleus-and-draws", plot_nucleus_vs_sampled(sample, entry, tokenizer, theme=theme)


def _file_part(sample: Sample, entry: int) -> str:
    return f"position-{sample['positions'][entry]}" if "positions" in sample else f"token-{entry}"


def _entry(sample: Sample, position: int | None) -> int | None:
    """The entry at that position, by default the most uncertain one; None where there is none at all."""
    if position is not None:
        return entry_at(sample, position)
    return int(np.argmax(entropy_bounds(sample)[0])) if sample["num_tokens"] else None


def _folder(path: str | Path) -> Path:
    """The folder, made where it isn't there."""
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{folder} can't be a folder: there is a file of that name. Give another one.") from error
    except OSError as error:
        raise OutputError(f"{folder} can't be made: {error.strerror}. Give another one.") from error
    return folder


def _plain(value: Any) -> Any:
    """Numbers, texts, lists and mappings alone."""
    if isinstance(value, Spread):
        named = {name: _plain(getattr(value, name)) for name in ("count", "mean", "smallest", "largest")}
        return named | {"percentiles": {str(each): _plain(value.percentile(each)) for each in _PERCENTILES}}
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | tuple | list):
        return [_plain(item) for item in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value
