"""Figures of whole datasets, each in one pass over the columns it needs: memory doesn't grow with the dataset.

tables    the rows, whatever the dataset is given as     nucleus   nucleus sizes
spread    means and percentiles of what passes by        entries   mass and entropy of an entry
actual    surprise and ranks of the texts' tokens        whole     all of it
storage   bytes a token                                  text      all of it as text
"""

from teacher_logits.exploring.statistics.actual import RankStats, SurpriseStats, SurprisingToken
from teacher_logits.exploring.statistics.nucleus import (
    NucleusSizeStats,
    PositionSizes,
    SampleSizes,
    analyze_nucleus_sizes,
)
from teacher_logits.exploring.statistics.spread import Spread
from teacher_logits.exploring.statistics.storage import BytesPerToken, ColumnBytes, compute_bytes_per_token_stats
from teacher_logits.exploring.statistics.text import (
    at_cap_text,
    bytes_per_token_text,
    dataset_stats_text,
    first_choices_text,
    stats_warnings,
)
from teacher_logits.exploring.statistics.whole import (
    DatasetStats,
    EntropyStats,
    PositionEntropies,
    compute_dataset_stats,
)

__all__ = [
    "BytesPerToken",
    "ColumnBytes",
    "DatasetStats",
    "EntropyStats",
    "NucleusSizeStats",
    "PositionEntropies",
    "PositionSizes",
    "RankStats",
    "SampleSizes",
    "Spread",
    "SurpriseStats",
    "SurprisingToken",
    "analyze_nucleus_sizes",
    "at_cap_text",
    "bytes_per_token_text",
    "compute_bytes_per_token_stats",
    "compute_dataset_stats",
    "dataset_stats_text",
    "first_choices_text",
    "stats_warnings",
]
