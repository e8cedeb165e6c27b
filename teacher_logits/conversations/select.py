"""Which conversations a run takes. The choice depends on the options and the dataset alone, so a resumed run makes
the same one, and a larger --limit only adds to it."""

import logging

import numpy as np
import pandas as pd

from teacher_logits.conversations.shapes import require_column
from teacher_logits.conversations.source import Source
from teacher_logits.errors import DatasetError
from teacher_logits.records import Int64
from teacher_logits.settings import SourceOptions

log = logging.getLogger(__name__)

_OTHERS = "*"
_WITHOUT = ""


def select_rows(source: Source, config: SourceOptions) -> Int64:
    """Rows of the source's split, ascending: offset, then --sample-subject, then --limit, in order or at random.

    With --subject-col and no --sample-subject, --limit counts for each subject, and for the rows without one.

    Raises DatasetError where nothing is left.
    """
    rows = source.rows[config.start_offset :]
    if config.subject_col is not None:
        require_column(config.subject_col, source.dataset.column_names, "--subject-col")
    if config.random_sample:
        rows = rows[np.random.default_rng(config.seed).permutation(len(rows))]
    quota, limit = config.sample_subject, config.limit
    if config.subject_col is not None and quota is None and limit is not None:
        quota, limit = {_OTHERS: limit, _WITHOUT: limit}, None
    if quota is not None and len(rows):
        assert config.subject_col is not None
        # As Arrow types: numpy would make 1.0 of 1 where another row has none.
        column = source.column(config.subject_col, "--subject-col").to_pandas(types_mapper=pd.ArrowDtype)
        names = column.iloc[rows].map(lambda each: _WITHOUT if each is None or each is pd.NA else str(each))
        chosen = _within_quota(names, quota)
        rows, names = rows[chosen], names[chosen]
        if config.random_sample:  # else --limit would take those first of which there are many
            again = np.random.default_rng([config.seed, 1]).permutation(len(rows))
            rows, names = rows[again], names.iloc[again]
        for name, count in names[:limit].value_counts().items():
            who = f"subject {name!r}" if name else "without a subject"
            log.info("%s: %s conversation%s", who, f"{count:,}", "s" * (count != 1))
    rows = np.sort(rows[:limit])
    if not len(rows):
        raise DatasetError(
            f"No conversation is selected: the split has {len(source.rows):,} rows. Check --split, --start-offset, "
            "--limit and --sample-subject."
        )
    return rows


def _within_quota(names: "pd.Series", quota: dict[str, int]) -> np.ndarray:
    """Which rows are among the first `quota[subject]` of their subject, in the order given."""
    unknown = [name for name in quota if name not in (_OTHERS, _WITHOUT) and not (names == name).any()]
    if unknown:
        known = ", ".join(map(repr, names.unique()[:20]))
        raise DatasetError(f"--sample-subject names {unknown[0]!r}, which no row has. Subjects there are: {known}.")
    allowed = names.map(lambda name: quota.get(name, quota.get(_OTHERS, 0) if name != _WITHOUT else 0))
    return (names.groupby(names).cumcount() < allowed).to_numpy()
