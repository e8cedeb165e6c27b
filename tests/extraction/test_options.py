"""Options of whole runs: what is stored, which conversations are taken, how shards are named and cut."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from teacher_logits.command_line.extract import main
from teacher_logits.errors import (
    ChatTemplateError,
    DatasetError,
    InputError,
    NotConfirmedError,
    OutputError,
    SettingsError,
)
from teacher_logits.extraction.extract import run_extraction
from teacher_logits.extraction.preview import MaskPreview, preview_mask
from teacher_logits.shards import read_table, shard_schema
from tests.conversations.test_rendering_tools import calling
from tests.extraction.runs import ForkServer, Place, stored_rows
from tests.extraction.test_rows import Recomputed, check_row
from tests.tiny import CHATML, UNMARKED, message_rows, messages, question_rows, save_teacher, write_jsonl

EARLY_END = {"question": "What?", "answer": "the<|endoftext|> river"}
PER_ENTRY = ("logsumexp", "token_logprob", "top_max", "sampled_min", "top_counts")


def test_what_is_marked_is_shown_without_an_output(place: Place, capsys: pytest.CaptureFixture[str]):
    given = ["--model", str(place.teacher), "--dataset", str(place.data), "--verify-mask-only"]
    assert main(given) == 0 and "[[" in capsys.readouterr().out
    assert main([*given, "--resume", "--cache-dir", str(place.cache)]) == 2
    assert main(given[:-1]) == 2 and "Not given: --output." in capsys.readouterr().err


def test_without_tokens(place: Place, reference: Place):
    place.run(store_tokens=False, max_batch_size=1)
    found = stored_rows(place.folder)
    assert found.schema.equals(shard_schema(store_tokens=False)) and len(found.schema) == 17
    assert found.equals(stored_rows(reference.folder).drop_columns(["input_ids", "positions"]))
    assert place.checkpoint["fingerprint"] != reference.checkpoint["fingerprint"]


def test_without_end_tokens(place: Place, reference: Place):
    """The end of a turn and the end of the text are left out, and every other entry is what it was."""
    place.run(exclude_end_tokens=True, max_batch_size=1)
    pairs = zip(stored_rows(place.folder).to_pylist(), stored_rows(reference.folder).to_pylist(), strict=True)
    for found, whole in pairs:
        keep = [entry for entry, place in enumerate(whole["positions"]) if whole["input_ids"][place] not in (0, 2)]
        assert len(keep) == whole["num_tokens"] - 1 == found["num_tokens"]
        assert found["input_ids"] == whole["input_ids"]
        assert found["positions"] == [whole["positions"][entry] for entry in keep]
        for name in PER_ENTRY:
            assert found[name] == pytest.approx([whole[name][entry] for entry in keep], abs=2e-5), name
    assert place.checkpoint["metadata"]["exclusions"] == ["end_tokens"]


@pytest.mark.parametrize("names_it", ["config.json", "generation_config.json", "tokenizer_config.json", None])
def test_which_are_end_tokens(names_it: str | None, place: Place, tmp_path: Path):
    """Those that one of three files names; a token that none names stays, whatever it is called."""
    there = dataclasses.replace(place, teacher=shutil.copytree(place.teacher, tmp_path / "teacher"))
    for name, key, another, end in (
        ("config.json", "eos_token_id", 1, 2),
        ("generation_config.json", "eos_token_id", [1], [1, 2]),
        ("tokenizer_config.json", "eos_token", "<|im_start|>", "<|im_end|>"),
    ):
        content = json.loads((there.teacher / name).read_text())
        content[key] = end if name == names_it else another
        (there.teacher / name).write_text(json.dumps(content))
    there = dataclasses.replace(there, data=write_jsonl(tmp_path / "chat.jsonl", [EARLY_END]))
    there.run(exclude_end_tokens=True)
    (row,) = stored_rows(there.folder).to_pylist()
    stored = AutoTokenizer.from_pretrained(there.teacher).decode([row["input_ids"][at] for at in row["positions"]])
    assert stored == "the<|endoftext|> river" + ("<|im_end|>" if names_it is None else "")


@pytest.mark.parametrize(("tags", "exclusion"), [(None, "think_tokens"), ("<a> </a>", "think_tokens <a> </a>")])
def test_without_thoughts(tags: str | None, exclusion: str, place: Place, tmp_path: Path):
    rows = question_rows(4)
    opening, closing = (tags or "<think> </think>").split()
    for row in rows:
        row["answer"] = f"{opening}the river is blue{closing}{row['answer']}"
    data = write_jsonl(tmp_path / "chat.jsonl", rows)
    there = dataclasses.replace(place, data=data)
    there.run(exclude_think_tokens=True, think_tags=tags)
    assert there.checkpoint["metadata"]["exclusions"] == [exclusion]
    tokenizer = AutoTokenizer.from_pretrained(place.teacher)
    for row in stored_rows(there.folder).to_pylist():
        stored = tokenizer.decode([row["input_ids"][position] for position in row["positions"]])
        assert stored == rows[row["index"]]["answer"].split(closing)[1] + "<|im_end|>"
    with pytest.raises(OutputError, match=r"differs in: .*exclusions"):
        there.run(exclude_think_tokens=True, think_tags="<b> </b>", resume=True)


def test_thoughts_that_are_not_there(place: Place, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO", "teacher_logits"):
        place.run(limit=3, exclude_think_tokens=True)
    assert "leaving out thoughts: from <think> through </think>" in caplog.messages
    assert "none of the first 20 conversations has thoughts from <think> through </think>" in caplog.text
    with pytest.raises(SettingsError, match="--think-tags says what --exclude-think-tokens leaves out"):
        place.run(limit=3, think_tags="<a> </a>")


def test_the_last_turn_alone(place: Place, tmp_path: Path):
    data = write_jsonl(tmp_path / "chat.jsonl", message_rows(4, turns=3))
    there = dataclasses.replace(place, data=data)
    there.run(turns="last", system_prompt="Be brief.")
    tokenizer = AutoTokenizer.from_pretrained(place.teacher)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for row in stored_rows(there.folder).to_pylist():
        stored = tokenizer.decode([row["input_ids"][position] for position in row["positions"]])
        assert stored == rows[row["index"]]["messages"][-1]["content"] + "<|im_end|>"
        assert tokenizer.decode(row["input_ids"]).startswith("<|im_start|>system\nBe brief.<|im_end|>")
    metadata = there.checkpoint["metadata"]
    assert (metadata["turns"], metadata["system_prompt"]) == ("last", "Be brief.")
    for changed in ({"turns": "all"}, {"system_prompt": None}):
        with pytest.raises(OutputError, match=f"differs in: {next(iter(changed))}"):
            there.run(**({"turns": "last", "system_prompt": "Be brief.", "resume": True} | changed))


def test_what_was_not_asked_for_is_as_it_was(reference: Place):
    """Runs that were begun before these options existed can be resumed."""
    metadata = reference.checkpoint["metadata"]
    assert (metadata["turns"], metadata["system_prompt"]) == ("all", None)
    assert metadata["source_columns"] == {"user": "question", "assistant": "answer"}


def test_columns_of_other_shapes_are_in_the_metadata(place: Place, tmp_path: Path):
    rows = [{"instruction": "Why?", "input": "the sky", "output": "Blue.", "about": "s", "calls": "[]"}]
    there = dataclasses.replace(place, data=write_jsonl(tmp_path / "chat.jsonl", rows))
    there.run(system_col="about", tools_col="calls")
    columns = {"user": "instruction", "input": "input", "assistant": "output", "system": "about", "tools": "calls"}
    assert there.checkpoint["metadata"]["source_columns"] == columns


def test_subjects(place: Place):
    place.run(subject_col="subject", sample_subject={"maths": 4, "*": 2, "art": 0})
    rows = [json.loads(line) for line in place.data.read_text().splitlines()]
    subjects = [rows[index]["subject"] for index in stored_rows(place.folder)["index"].to_pylist()]
    assert {name: subjects.count(name) for name in ("maths", "history", "art")} == {"maths": 4, "history": 2, "art": 0}


def test_slice_of_a_split(place: Place, reference: Place):
    place.run(split="train[5:12]", max_batch_size=1)
    assert {path.name.split("-")[0] for path in (place.folder / "data").iterdir()} == {"train"}
    assert stored_rows(place.folder).equals(stored_rows(reference.folder).slice(5, 7))
    assert place.checkpoint["fingerprint"] == reference.checkpoint["fingerprint"]
    place.run(resume=True, split="train", max_batch_size=1)
    assert stored_rows(place.folder).equals(stored_rows(reference.folder)), "a slice is continued by the whole"


def test_other_split(place: Place):
    place.run(split="validation", limit=3)
    assert {path.name.split("-")[0] for path in (place.folder / "data").iterdir()} == {"validation"}


@pytest.mark.parametrize("choice", [{"limit": 6, "start_offset": 10}, {"limit": 6, "random_sample": True}])
def test_selection(place: Place, reference: Place, choice: dict[str, Any]):
    place.run(max_batch_size=1, **choice)
    found = stored_rows(place.folder)
    indices = found["index"].to_pylist()
    assert len(indices) == 6 and (indices == [10, 11, 12, 13, 14, 15]) == ("start_offset" in choice)
    assert found.equals(stored_rows(reference.folder).take(indices)), "the same rows, whichever else are taken"


def test_messages(place: Place, tiny_messages: Path):
    there = dataclasses.replace(place, data=tiny_messages)
    there.run(max_batch_size=1)
    rows = [json.loads(line) for line in tiny_messages.read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(place.teacher)
    found = stored_rows(there.folder).to_pylist()
    assert len(found) == 12
    for row in found:
        messages = rows[row["index"]]["messages"]
        encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        assert row["input_ids"] == encoded["input_ids"]
        assert row["positions"] == [at for at, marked in enumerate(encoded["assistant_masks"]) if marked]
        text = tokenizer.decode([row["input_ids"][position] for position in row["positions"]])
        assert text == "".join(m["content"] + "<|im_end|>" for m in messages if m["role"] == "assistant")


def test_named_columns_and_numbers(place: Place, reference: Place, tmp_path: Path):
    original = [json.loads(line) for line in place.data.read_text().splitlines()]
    rows = [{"q": row["question"], "a": row["answer"], "id": number} for number, row in enumerate(original)]
    data = write_jsonl(tmp_path / "chat.jsonl", rows[::-1])
    dataclasses.replace(place, data=data).run(user_col="q", assistant_col="a", index_col="id", max_batch_size=1)
    assert stored_rows(place.folder).equals(stored_rows(reference.folder)), "rows are known by their number"


def test_sampler_options(place: Place, tmp_path: Path):
    options = {"top_p": 0.5, "top_p_max_elements": 3, "sampled_n": 7, "vocab_limit": "tokenizer"}
    place.run(limit=4, **options)
    row, *_ = stored_rows(place.folder).to_pylist()
    assert max(row["top_counts"]) <= 3 and len(row["sampled_indices_low"]) == 7 * row["num_tokens"]
    assert max(row["sampled_indices_low"]) < 384 == place.checkpoint["metadata"]["vocab_used"]
    teacher = Recomputed(place.teacher)
    logits = teacher.logits(row["input_ids"])[[position - 1 for position in row["positions"]], :384].double()
    assert row["logsumexp"] == pytest.approx(logits.logsumexp(-1).tolist(), abs=2e-5)


def test_shards_by_size(place: Place, reference: Place):
    place.run(max_batch_size=4, upload_every=500, upload_size_mb=0.03)
    counts = [entry["rows"] for _, entry in sorted(place.checkpoint["shards"].items())]
    assert len(counts) > 2 and sum(counts) == 30 and counts[0] < counts[-2], "few long conversations, then many short"
    sizes = [read_table(path).nbytes for path in (place.folder / "data").iterdir()]
    assert max(sizes) <= 0.04 * (1 << 20)
    assert stored_rows(place.folder).num_rows == 30


def test_template_without_marks(place: Place, tmp_path: Path):
    """The same rows as with marks, and a method that is kept."""
    unmarked = dataclasses.replace(
        place,
        teacher=save_teacher(tmp_path / "unmarked", template=UNMARKED),
        output=str(tmp_path / "unmarked-out"),
        cache=tmp_path / "unmarked-cache",
    )
    place.run(limit=6), unmarked.run(limit=6)
    assert stored_rows(unmarked.folder).equals(stored_rows(place.folder))
    assert place.checkpoint["metadata"]["mask_method"] == "template"
    assert unmarked.checkpoint["metadata"]["mask_method"] == "sentinel"
    with pytest.raises(InputError, match=r"prefix: the template"):
        unmarked.run(resume=True, mask_source="prefix")
    assert unmarked.run(resume=True, limit=8).total_conversations == 8


def test_template_whose_answers_cant_be_told(place: Place, tmp_path: Path):
    changed = UNMARKED.replace("message['content']", "message['content'] | upper")
    there = dataclasses.replace(place, teacher=save_teacher(tmp_path / "changed", template=changed))
    with pytest.raises(InputError, match=r"0 assistant tokens.*--chat-template FILE"):
        there.run()
    assert not there.folder.exists()


def test_own_template(place: Place, tmp_path: Path):
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}{% if m.role == 'assistant' %}A: {% generation %}{{ m.content }}"
                        "{% endgeneration %}\n{% else %}Q: {{ m.content }}\n{% endif %}{% endfor %}")  # fmt: skip
    place.run(chat_template=str(template), limit=5)
    rows = [json.loads(line) for line in place.data.read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(place.teacher)
    for row in stored_rows(place.folder).to_pylist():
        source = rows[row["index"]]
        assert tokenizer.decode(row["input_ids"]) == f"Q: {source['question']}\nA: {source['answer']}"


def test_verify_mask(place: Place, forks: ForkServer):
    """Where nobody can be asked the marked conversation is printed, and the run goes on; a no ends it untouched."""
    shown: list[str] = []

    def decline(preview: MaskPreview) -> bool:
        shown.append(preview.text())
        return False

    with pytest.raises(NotConfirmedError, match="before anything was extracted"):
        run_extraction(place.config(verify_mask=True), confirm=decline)
    assert not place.folder.exists()
    row = json.loads(place.data.read_text().splitlines()[0])
    assert f"<|im_start|>assistant\n[[{row['answer']}<|im_end|>]]\n" in shown[0]
    assert re.match(r"assistant tokens by --mask-source template: \d\d% of the tokens of the first 30 ", shown[0])
    assert "--- the first (index 0): " in shown[0] and "--- the longest (index " in shown[0]
    end = forks.run(*place.arguments("--verify-mask", "--limit", "2"))
    assert end.code == 0 and f"[[{row['answer']}<|im_end|>]]" in end.out and end.last_line == "complete"
    assert "Go on?" not in end.out and "\x1b" not in end.out
    again = forks.run(*place.arguments("--verify-mask-only", "--resume"))
    assert again.code == 0 and f"[[{row['answer']}<|im_end|>]]" in again.out and "complete" not in again.out


def test_verify_mask_only(place: Place, forks: ForkServer, tmp_path: Path):
    """No weights are needed, and nothing is written; nor is a run that is there already changed."""
    there = dataclasses.replace(place, teacher=shutil.copytree(place.teacher, tmp_path / "teacher"))
    (there.teacher / "model.safetensors").unlink()
    end = forks.run(*there.arguments("--verify-mask-only"))
    assert end.code == 0 and "--- the longest" in end.out
    assert not there.folder.exists() and not there.cache.exists()
    place.run(limit=3)
    folders = (place.folder, place.cache)
    before = {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}
    preview_mask(place.config(verify_mask_only=True, resume=True))
    assert {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "more",
    [
        {"messages": messages("g", "<think>h</think>i")},
        {"messages": [*messages("g"), {"role": "assistant", "content": "i", "reasoning_content": "h"}]},
        {"messages": calling({"x": 1})[:2] + calling({"x": 1})[3:]},
        {"messages": messages("g", "i"), "tools": [{"type": "function", "function": {"name": "f"}}]},
    ],
    ids=["think", "reasoning", "calls", "tools"],
)
def test_verify_mask_shows_what_is_peculiar(more: dict[str, Any], place: Place, tmp_path: Path):
    rows = [{"messages": messages("a", "b")}, {"messages": messages("c")}, {"messages": messages("c", "d", "e", "f")}]
    rows += [more, {"messages": messages("j" * 200, "k")}]
    there = dataclasses.replace(place, data=write_jsonl(tmp_path / "chat.jsonl", rows))
    printing = CHATML.replace(
        "<|im_end|>{% endg", "{% for c in message.tool_calls %}{{ c }}{% endfor %}<|im_end|>{% endg"
    )
    (tmp_path / "calls.jinja").write_text(printing, encoding="utf-8")
    preview = preview_mask(there.config(chat_template=str(tmp_path / "calls.jinja")))
    assert [title for title, _ in preview.shown] == [
        "the first (index 0)",
        "one with several turns (index 2)",
        "one with tools or thoughts (index 3)",
        "the longest (index 4)",
    ]
    assert preview.skipped == {"no assistant message": 1} and "1 of them can't be used" in preview.text()


def test_verify_mask_of_marks_that_hold_nothing(place: Place, tmp_path: Path):
    empty = CHATML.replace("{% generation %}", "{% generation %}{% endgeneration %}", 1).replace(
        "<|im_end|>{% endgeneration %}", "<|im_end|>"
    )
    (tmp_path / "empty.jinja").write_text(empty, encoding="utf-8")
    with pytest.raises(ChatTemplateError, match=r"^0 assistant tokens in the first 30 .* enclose nothing .*prefix"):
        preview_mask(place.config(chat_template=str(tmp_path / "empty.jinja")))


def test_verify_mask_says_how_many_tokens_are_marked(place: Place, reference: Place):
    rows = stored_rows(reference.folder).to_pylist()
    marked, total = (sum(len(row[name]) for row in rows) for name in ("positions", "input_ids"))
    preview = preview_mask(place.config())
    assert (
        preview.share == marked / total and f": {marked / total:.0%} of the tokens of the first 30 " in preview.text()
    )
    for title, seen in preview.shown:
        row = rows[int(title.split()[-1].rstrip(")"))]
        assert np.flatnonzero(seen.marked).tolist() == row["positions"]
        assert f"{title}: {row['num_tokens']} of {len(row['input_ids'])} tokens marked\n" in preview.text()


@pytest.mark.parametrize("lengths", [{}, {"length_col": "length"}])
def test_nothing_that_can_be_used_is_refused_wherever_it_is_found(
    lengths: dict[str, str], place: Place, tmp_path: Path
):
    """Lengths from a column hide it until the conversations are rendered; the cache folder is free afterwards."""
    rows = [row | {"length": 5} for row in question_rows(3)]
    there = dataclasses.replace(place, data=write_jsonl(tmp_path / "chat.jsonl", rows))
    with pytest.raises(DatasetError, match=r"None of the 3 conversations can be used: longer than 6 tokens \(3\)"):
        there.run(max_seq_len=6, **lengths)
    assert there.run().conversations == 3


def test_unusable_conversations(place: Place, tmp_path: Path):
    rows = question_rows(6)
    rows[1]["answer"], rows[4]["question"] = "  ", ""
    there = dataclasses.replace(place, data=write_jsonl(tmp_path / "chat.jsonl", rows))
    summary = there.run()
    assert (summary.complete, summary.left, summary.conversations) == (True, 0, 4)
    assert there.skipped == {1: "empty assistant content", 4: "empty user content"}
    teacher = Recomputed(place.teacher)
    for row in stored_rows(there.folder).to_pylist():
        check_row(row, rows[row["index"]], teacher, entries=1)


def test_paths_with_strange_names(place: Place, reference: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    strange = dataclasses.replace(place, output="./a b/ü-[x]{y}", cache=tmp_path / "c d")
    assert strange.run(max_batch_size=1).complete
    assert stored_rows(tmp_path / "a b" / "ü-[x]{y}").equals(stored_rows(reference.folder))
    by_url = dataclasses.replace(place, output=f"file://{tmp_path}/url", cache=tmp_path / "e")
    assert by_url.run(limit=2).complete and stored_rows(tmp_path / "url").num_rows == 2
