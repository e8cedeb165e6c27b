"""The report as a page: whole, safe, sealed; and of datasets that lack something."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher_logits.exploring import dataset_report
from teacher_logits.files import write_json
from tests.exploring.damage import change_checkpoint
from tests.exploring.made import TEXTS, Made
from tests.exploring.parsing import Page, assert_named, assert_sealed

HOSTILE = "</title><script>alert('name')</script><img src=x onerror=alert(2)>{{ 7 * 7 }}\u202e"


def dropped(folder: Path, *columns: str) -> Path:
    for shard in (folder / "data").iterdir():
        pq.write_table(pq.read_table(shard).drop_columns(list(columns)), shard)
    return folder


def only(folder: Path, rows: int) -> Path:
    """The first shard, with its first rows."""
    first, *others = sorted((folder / "data").iterdir())
    for other in others:
        other.unlink()
    pq.write_table(pq.read_table(first).slice(0, rows), first)
    return folder


def report_of(folder: Path, **options: Any) -> str:
    return dataset_report(folder, verify=False, **options)


def checked(html: str) -> Page:
    page = Page(html)
    assert_sealed(page)
    assert_named(page)
    assert html.startswith("<!DOCTYPE html>\n") and page.elements[0] == ("html", {"lang": "en"})
    for table in (attributes for tag, attributes in page.elements if tag == "th"):
        assert table["scope"] in ("col", "row")
    return page


def test_page_is_sealed_and_named(html: str):
    page = checked(html)
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) == 2 * 9 and all(image["alt"] and image["width"] and image["height"] for image in images)
    assert {"nav", "aside", "figure", "figcaption"} <= {tag for tag, _ in page.elements}
    assert page.texts["title"] == ["logits · logits of llama"]


def test_names_stay_text(copy: Path, made: Made):
    def change(checkpoint: dict[str, Any]) -> None:
        checkpoint["metadata"] |= {"model": HOSTILE, "source": HOSTILE, "vocab_used": HOSTILE, "model_dtype": HOSTILE}
        checkpoint["config"]["seed"] = HOSTILE

    change_checkpoint(copy, change)
    (copy / "skipped.jsonl").write_text(json.dumps({"index": 1, "reason": HOSTILE}))
    folder = copy.rename(copy.parent / "<script>alert(1)<")
    page = checked(dataset_report(folder, look_at_source=False, tokenizer=made.tokenizer))
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 2 and tags.count("style") == 1
    assert not [a for tag, a in page.elements if tag == "img" and not str(a["src"]).startswith("data:")]
    told = HOSTILE.replace("\u202e", "\\u202e")
    assert page.texts["dd"].count(told) == 5 and told in page.texts["lede"][0]
    assert page.texts["h1"] == ["<script>alert(1)<"] and told in page.texts["title"][0]
    assert told in page.texts["th"]
    assert "\u202e" not in "".join(text for texts in page.texts.values() for text in texts)


def test_text_of_conversations_stays_text(copy: Path, made: Made):
    """An escape sequence of a terminal, and markup, in tokens that are shown in every place."""
    hostile = made.tokenizer("<script>alert(1)</script>")["input_ids"]
    for shard in (copy / "data").iterdir():
        table = pq.read_table(shard)
        rows = table["input_ids"].to_pylist()
        rows = [(hostile * 40)[-len(row) :] for row in rows]
        column = pa.array(rows, table.schema.field("input_ids").type)
        pq.write_table(table.set_column(table.column_names.index("input_ids"), "input_ids", column), shard)
    html = report_of(copy)
    page = checked(html)
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert "<script>alert(1)</script>" in "".join(page.texts["t"][10:])
    assert any("<script>" in text for text in page.texts["passage"])


def test_without_tokens(tokenless: Made):
    page = checked(report_of(tokenless.folder))
    assert any("--no-store-tokens" in text for text in page.texts["notice"])
    assert sum("stored token" in text for text in page.texts["where"] + page.texts["a"]) == 10
    assert page.texts["passage"] == [""] * 10
    assert {"not stored"} == set(page.texts["t"][:10])


def test_without_log_probabilities(copy: Path):
    page = checked(report_of(dropped(copy, "token_logprob", "logsumexp_t2", "logsumexp_t4")))
    assert "passage" not in page.texts and "Surprises" not in page.texts["a"]
    assert any("Log-sum-exps at T = 2 and 4 are not stored" in text for text in page.texts["notice"])
    assert "T = 1" in page.texts["th"] and "T = 2" not in page.texts["th"]
    assert "Its nuclei are the largest on average, so that here the teacher was least sure." in page.texts["p"]


def test_without_a_tokenizer(copy: Path):
    change_checkpoint(copy, lambda checkpoint: checkpoint["config"].update(model="./gone"))
    page = checked(report_of(copy))
    assert any("The tokenizer of teacher could not be loaded" in text for text in page.texts["notice"])
    assert all(text.startswith("id ") for text in page.texts["t"]) and "stored" not in page.texts
    assert len(page.texts["t"]) == 10


def test_without_matplotlib(made: Made, tmp_path: Path):
    code = (
        "import sys; sys.modules.update(torch=None, matplotlib=None, PIL=None, termcolor=None, seaborn=None)\n"
        "from teacher_logits.exploring import dataset_report, save_page\n"
        "save_page(sys.argv[2], dataset_report(sys.argv[1], verify=False))\n"
    )
    file = tmp_path / "report.html"
    subprocess.run([sys.executable, "-c", code, made.folder, file], check=True, timeout=120)
    page = checked(file.read_text(encoding="utf-8"))
    assert any("teacher-logits[viz]" in text for text in page.texts["notice"])
    assert "img" not in {tag for tag, _ in page.elements} and len(page.texts["t"]) > 10


def test_one_row(copy: Path):
    page = checked(report_of(only(copy, 1)))
    assert [text for text in page.texts["h3"] if text.startswith("Conversation ")] == [
        "Conversation 17",
        "Conversation 17",
    ], "its plots and its tokens"
    answer = TEXTS[17][1]
    assert "".join(page.texts["t"][10:]).startswith(answer[:20]) and "excerpt" not in page.texts


def test_no_rows(copy: Path):
    page = checked(report_of(only(copy, 0)))
    assert page.texts["notice"] == [
        "No token is stored, so there are neither figures nor plots.",
        "No conversation is stored.",
    ]
    assert page.texts["value"] == ["0", "0"]
    assert "img" not in {tag for tag, _ in page.elements}


def test_a_conversation_without_stored_tokens(copy: Path, made: Made):
    only(copy, 1)
    (shard,) = (copy / "data").iterdir()
    table = pq.read_table(shard)
    row = table.to_pylist()[0]
    emptied = {name: [] if isinstance(value, list) else value for name, value in row.items()} | {"num_tokens": 0}
    emptied |= {name: b"" for name, value in row.items() if isinstance(value, bytes)} | {"input_ids": row["input_ids"]}
    pq.write_table(pa.Table.from_pylist([emptied], table.schema), shard)
    page = checked(report_of(copy))
    assert "No token of this conversation is stored." in page.texts["notice"]
    assert page.texts["value"] == ["1", "0"]


def test_unfinished_and_incomplete(copy: Path):
    change_checkpoint(copy, lambda checkpoint: checkpoint.update(complete=False))
    sorted((copy / "data").iterdir())[1].unlink()
    page = checked(report_of(copy))
    assert {"no, its run isn’t finished", "1 shard that checkpoint.json lists"} <= set(page.texts["dd"])


def test_a_run_that_tells_nothing(copy: Path, made: Made):
    (copy / "checkpoint.json").unlink()
    page = checked(report_of(copy, tokenizer=made.tokenizer))
    assert page.texts["dd"][:1] == ["teacher"] and "unknown" in page.texts["dd"]


@pytest.mark.parametrize("nonsense", ["many", -1, [6], None])
def test_a_run_that_tells_nonsense(copy: Path, nonsense: Any):
    def change(checkpoint: dict[str, Any]) -> None:
        for name in ("top_p", "top_p_max_elements", "vocab_used", "seed", "model_dtype", "source", "sampled_n"):
            checkpoint["metadata"][name] = checkpoint["config"][name] = nonsense

    change_checkpoint(copy, change)
    checked(report_of(copy))


def test_damage_is_an_error(copy: Path):
    from teacher_logits.errors import FormatError

    for shard in (copy / "data").iterdir():
        table = pq.read_table(shard)
        numbers = pa.array(np.asarray(table["num_tokens"]) + 1, table.schema.field("num_tokens").type)
        pq.write_table(table.set_column(table.column_names.index("num_tokens"), "num_tokens", numbers), shard)
    with pytest.raises(FormatError, match="`verify` tells where"):
        dataset_report(copy)
    write_json(copy / "checkpoint.json", {"format_version": 1})
    with pytest.raises(FormatError):
        dataset_report(copy)
