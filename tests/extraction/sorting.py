"""Datasets that compute_lengths.py writes, and reading them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from teacher_logits.extraction.compute_lengths import LengthsConfig
from tests.extraction.runs import Place


def lengths_config(place: Place, output: Path | str, **options: Any) -> LengthsConfig:
    """The options of counting the place's data."""
    return LengthsConfig(**({"model": str(place.teacher), "dataset": str(place.data), "output": str(output)} | options))


def sorted_rows(folder: Path) -> list[dict[str, Any]]:
    """All rows of a dataset, file by file."""
    return pa.concat_tables([pq.read_table(path) for path in sorted((folder / "data").iterdir())]).to_pylist()
