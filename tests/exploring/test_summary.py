"""The dataset in numbers, against what it was made of."""

import re
from pathlib import Path

import numpy as np
import pytest

from teacher_logits.errors import FormatError
from teacher_logits.exploring import analyze_nucleus_sizes, open_source, summarize, summary_text
from tests.exploring.made import CAP, RUN, Made


def test_figures(made: Made):
    summary = summarize(open_source(made.folder))
    sizes = np.concatenate([entries.top_counts for entries in made.entries.values()])
    assert (summary.rows, summary.tokens, summary.shards) == (4, len(sizes), 2)
    assert summary.nucleus.total == sizes.sum()
    assert summary.nucleus.entries_at_cap == (sizes == CAP).sum() > 0
    assert summary.size == sum(path.stat().st_size for path in (made.folder / "data").iterdir())
    assert summary.skipped == {"empty": 2, "too long": 1, "unreadable line": 1}
    assert summary.complete is True and summary.missing_shards == 0
    text = summary_text(summary)
    assert f"mean nucleus  {sizes.mean():.1f} tokens" in text
    assert f"{(sizes == CAP).mean():.2%} of the tokens (cap {CAP})".replace("%", " %", 1) in text
    assert f"{summary.size / len(sizes):,.1f} bytes a token" in text
    assert "2  empty" in text and "somebody/chats" in text


def test_sizes_that_are_at_hand(made: Made):
    source = open_source(made.folder)
    sizes = analyze_nucleus_sizes(source, per_sample=True)
    summary = summarize(source, nucleus=sizes)
    assert summary.nucleus is sizes and summary_text(summary) == summary_text(summarize(source))


def test_an_unfinished_run(copy: Path):
    (copy / f"data/train-{RUN}-00001.parquet").unlink()
    (copy / "skipped.jsonl").unlink()
    text = summary_text(summarize(open_source(copy)))
    assert re.search(r"^rows .* \d+ in 1 shard$", text, re.M)
    assert "1 shards of checkpoint.json are not there" in text and "skipped" not in text
    (copy / "checkpoint.json").unlink()
    assert "unknown (no checkpoint.json)" in summary_text(summarize(open_source(copy)))


def test_reasons_can_not_write_escapes(copy: Path):
    (copy / "skipped.jsonl").write_text('{"index": 1, "reason": "\\u001b[2Jgone\\nfar"}\n[]\n{"index": 2}\n')
    text = summary_text(summarize(open_source(copy)))
    assert "\x1b" not in text and "1  \\x1b[2Jgone far" in text and "no reason given" in text


def test_damage(copy: Path):
    min((copy / "data").iterdir()).write_bytes(b"PAR1")
    with pytest.raises(FormatError):
        summarize(open_source(copy))
