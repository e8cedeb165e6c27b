"""What the report says against the statistics, the verification and the conversations themselves."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explore_logits import analyze_token_probabilities, compute_bytes_per_token_stats, compute_dataset_stats
from teacher_logits.exploring import dataset_report, open_source, read_sample, verify_dataset
from teacher_logits.exploring.page.cells import shown
from teacher_logits.exploring.page.content import page_content
from teacher_logits.exploring.plots.style import theme_of
from teacher_logits.exploring.report.content import Report, report_content
from teacher_logits.exploring.report.passages import cut
from teacher_logits.exploring.statistics import first_choices_text, stats_warnings
from teacher_logits.exploring.text import percent
from tests.exploring.made import Made
from tests.exploring.page.samples import text_sample
from tests.exploring.parsing import Page, Tables
from tests.extraction.runs import Place

LN2 = float(np.log(2))


@pytest.fixture(scope="module")
def report(extracted: Place) -> Report:
    return report_content(open_source(extracted.folder))


def numbers(cells: list[str]) -> list[float]:
    return [float(cell.replace(",", "").removesuffix(" %").removesuffix(" bits")) for cell in cells]


def test_tables_hold_the_statistics(extracted: Place, html: str):
    stats = compute_dataset_stats(extracted.folder)
    sizes, mass, entropy, own, skipped, *_ = Tables(html).tables
    lengths, nucleus = stats.lengths, stats.nucleus
    wanted = [
        [each.mean, each.smallest, each.percentile(5), each.median, each.percentile(95), each.largest]
        for each in (lengths, nucleus)
    ]
    for row, values, digits in zip(sizes[1:], wanted, (0.51, 0.051), strict=True):
        np.testing.assert_allclose(numbers(row[1:]), values, atol=digits)
    assert [row[0] for row in mass[1:]] == ["T = 1", "T = 2", "T = 4"]
    for row, spread in zip(mass[1:], stats.mass.values(), strict=True):
        assert row[1:] == list(map(percent, (spread.mean, spread.median, spread.percentile(1), spread.smallest)))
    spreads = (stats.entropy.lowest, stats.entropy.highest, stats.entropy.nucleus)
    for row, spread in zip(entropy[1:], spreads, strict=True):
        nats = [spread.mean, spread.median, spread.percentile(95), spread.largest]
        np.testing.assert_allclose(numbers(row[1:]), np.array(nats) / LN2, atol=0.0006)
    assert stats.surprise is not None and stats.ranks is not None
    nats = stats.surprise.nats
    values = [stats.surprise.perplexity]
    values += [value / LN2 for value in (nats.mean, nats.median, nats.percentile(95), nats.largest)]
    assert own.pop(7) == ["among its first five", first_choices_text(stats.ranks, 5)]
    ranks = [stats.ranks.share(1), stats.ranks.share_in_nucleus]
    ranks += [stats.ranks.in_sample / stats.ranks.count, stats.ranks.elsewhere / stats.ranks.count]
    np.testing.assert_allclose(
        numbers([row[1] for row in own[1:]]), [*values, *(100 * rank for rank in ranks)], atol=0.006
    )
    assert sum(numbers([row[1] for row in skipped[1:]])) == len(extracted.skipped) > 0


def test_tables_tell_what_reading_the_samples_tells(extracted: Place, html: str):
    """Without the statistics, from the conversations themselves."""
    source = open_source(extracted.folder)
    samples = [read_sample(source, place=place) for place in range(extracted.checkpoint["total_samples"])]
    counts = np.concatenate([sample["top_counts"] for sample in samples])
    sizes, _, _, own, *_ = Tables(html).tables
    assert sizes[2][1:] == [
        f"{counts.mean():,.1f}",
        f"{counts.min()}",
        *(f"{np.percentile(counts, share):g}" for share in (5, 50, 95)),
        f"{counts.max()}",
    ]
    logprobs = np.concatenate([sample["token_logprob"] for sample in samples]).astype(np.float64)
    assert own[1] == ["perplexity", f"{np.exp(-logprobs[np.isfinite(logprobs)].mean()):,.2f}"]


def test_bytes_of_each_column(extracted: Place, html: str):
    stats = compute_bytes_per_token_stats(extracted.folder)
    rows = next(table for table in Tables(html).tables if table[0][0] == "column")[1:]
    assert [row[0] for row in rows] == [*stats.columns, "footers", "together"]
    stored = [column.stored for column in stats.columns.values()]
    for row, column in zip(rows, stats.columns.values(), strict=False):
        assert row[1] == f"{column.stored / stats.tokens:.2f}"
        assert row[4] == f"{column.uncompressed / stats.tokens:.2f}"
    assert rows[-1][1:3] == [f"{stats.per_token:.2f}", "100.00 %"]
    widths = [float(str(a["width"]).removesuffix("%")) for tag, a in Page(html).elements if tag == "rect"]
    np.testing.assert_allclose(widths[:-1], 100 * np.array(stored) / max(stored), atol=0.051)


def test_headline(extracted: Place, report: Report):
    stats = compute_dataset_stats(extracted.folder)
    facts, tiles = dict(report.facts), {name: value for name, value, _ in report.tiles}
    assert report.name == "logits"
    assert facts["Teacher"] == extracted.teacher.name and facts["Source"] == extracted.data.name
    assert facts["Complete"] == "yes"
    assert facts["Stored"] == "top-p 0.98, cap 100, 24 samples"
    assert tiles["Conversations"] == f"{extracted.checkpoint['total_samples']:,}"
    assert tiles["Stored tokens"] == f"{extracted.checkpoint['total_tokens']:,}" == f"{stats.entries:,}"
    assert stats.surprise is not None
    assert tiles["Perplexity"] == f"{stats.surprise.perplexity:,.2f}"
    assert tiles["Mean nucleus"] == f"{stats.nucleus.mean:.1f}"
    assert tiles["Mean entropy"] == f"{stats.entropy.estimate / LN2:.3f}"
    assert list(report.notes) == stats_warnings(stats)


def test_surprising_tokens_stand_in_their_text(extracted: Place, report: Report):
    stats, source = compute_dataset_stats(extracted.folder), open_source(extracted.folder)
    assert stats.surprise is not None and len(report.examples.passages) == 10
    for passage, found in zip(report.examples.passages, stats.surprise.most_surprising, strict=True):
        record = analyze_token_probabilities(read_sample(source, index=found.index), alternatives=3)[found.entry]
        assert (passage.index, passage.place) == (found.index, f"position {record.position:,}")
        assert float(passage.bits) == pytest.approx(record.surprise_bits, abs=0.051)
        assert [text for text, _ in passage.choices] == [shown(choice.token) for choice in record.alternatives]
        content = page_content(read_sample(source, index=found.index))
        text = "".join(turn.text or "".join(cell.text for cell in turn.cells) for turn in content.turns)
        around = passage.before.removeprefix("…") + passage.token.replace("␣", " ") + passage.after.removesuffix("…")
        assert around in text.replace("\n", "↵")
        assert len(passage.before) > 20, "a conversation of these has a prompt"


def test_conversations(extracted: Place, report: Report, html: str):
    source, examples = open_source(extracted.folder), report.examples
    rows = extracted.checkpoint["total_samples"]
    least = compute_dataset_stats(source).surprise
    assert least is not None and examples.view is not None
    view = page_content(read_sample(source, index=least.most_surprising[0].index))
    assert examples.view.entries == view.entries and examples.view.turns == view.turns
    page = Page(html)
    assert json.loads(page.texts["script"][0]) == view.entries
    others = [read_sample(source, place=place)["index"] for place in (0, rows // 2)]
    wanted = [f"Conversation {index}" for index in others if f"Conversation {index}" != view.heading]
    assert [each.content.heading for each in examples.excerpts] == wanted
    shown = [turn.cells for content in (view, *(e.content for e in examples.excerpts)) for turn in content.turns]
    assert page.texts["t"] == [p.token for p in examples.passages] + [cell.text for turn in shown for cell in turn]
    linked = {f"turn-token-{p.entry}" for p in examples.passages if f"Conversation {p.index}" == view.heading}
    assert linked and linked <= {value for name, value in page.attributes if name == "id"}


def test_soundness(extracted: Place, made: Made, html: str):
    assert "All is sound." in html
    found = verify_dataset(made.folder, look_at_source=False)
    page = Page(dataset_report(made.folder, look_at_source=False))
    assert not found.sound and "Not sound." in page.texts["strong"]
    lines = [text for text in page.texts["li"] if text in found.problems]
    assert lines == found.problems
    unseen = dataset_report(made.folder, verify=False)
    assert "Not verified." in unseen and "All is sound." not in unseen and found.problems[0] not in unseen


def test_pictures_in_both_themes(report: Report):
    titles = [title for title, _ in report.pictures]
    assert titles[0] == "The whole dataset" and titles[1:] == [
        report.examples.view.heading if report.examples.view else "",
        "Its least certain token",
    ]
    assert [len(group) for _, group in report.pictures] == [5, 2, 2]
    for picture in (picture for _, group in report.pictures for picture in group):
        assert picture.alternative and picture.caption
        images = {}
        for theme in ("light", "dark"):
            kind, data = getattr(picture, theme).split(",", 1)
            assert kind == "data:image/png;base64"
            images[theme] = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
            corner = images[theme].getpixel((1, 1))
            background = theme_of(theme).background
            assert max(abs(a - b) for a, b in zip(corner, bytes.fromhex(background[1:]), strict=True)) <= 3
        assert images["light"].size == images["dark"].size
        assert picture.width / picture.height == pytest.approx(np.divide(*images["light"].size), rel=0.01)


def test_long_conversations_are_cut(made: Made):
    words = "goodbye " * 90
    pieces = [("<|user|>" + words, False), (words * 3, True), (words, False), (words, True)]
    content = page_content(text_sample(made.tokenizer, pieces), made.tokenizer)
    short, left_out = cut(content)
    stored = [cell for turn in content.turns for cell in turn.cells]
    kept = [cell for turn in short.turns for cell in turn.cells]
    assert kept == stored[: len(kept)] and 200 < len(kept) == len(stored) - left_out
    first = short.turns[0]
    assert first.text.startswith("… goodbye") and content.turns[0].text.endswith(first.text[2:])
    whole, none = cut(page_content(text_sample(made.tokenizer, [("<|user|>", False), ("Hello", True)]), made.tokenizer))
    assert none == 0 and "".join(cell.text for cell in whole.turns[-1].cells) == "Hello"


def test_paths_stay_here(extracted: Place, html: str):
    """A page is sent to others."""
    for path in (extracted.folder, extracted.teacher, extracted.data):
        assert str(Path(path).parent) not in html
