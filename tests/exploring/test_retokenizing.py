"""Tokens that weren't stored: the same as a run that stored them, or an error that says why not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teacher_logits.errors import FormatError, InputError, TeacherError
from teacher_logits.exploring import (
    analyze_token_probabilities,
    conversation_page,
    conversation_text,
    get_sample,
    load_logit_dataset,
    retokenized,
    visualize_conversation_probabilities,
)
from teacher_logits.exploring.retokenizing import _run_of
from teacher_logits.settings import fingerprint
from tests.exploring.damage import change_checkpoint, change_rows
from tests.extraction.runs import Place, stored_rows
from tests.tiny import CHATML, UNMARKED, message_rows, tiny_tokenizer, write_jsonl

DATED = CHATML.replace("<|im_start|>{{", "<|im_start|>{{ strftime_now('%d %B') + ' ' if loop.first else '' }}{{", 1)
PROMPTED = UNMARKED + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@pytest.fixture(autouse=True)
def nothing_opened():
    """Each test opens its own."""
    _run_of.cache_clear()


@pytest.fixture(scope="module")
def bare(tiny_teacher: Path, tiny_chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Nine conversations without their tokens; teacher and data are copies. Not to be changed."""
    folder = tmp_path_factory.mktemp("bare")
    teacher = Path(shutil.copytree(tiny_teacher, folder / "teacher"))
    data = Path(shutil.copy(tiny_chat, folder / "chat.jsonl"))
    place = Place(teacher, data, folder / "logits", folder / "cache")
    place.run(limit=9, store_tokens=False)
    return place


@pytest.fixture
def moved(bare: Place, tmp_path: Path) -> Place:
    """A copy of all of it, to be changed."""
    folder = Path(shutil.copytree(bare.folder.parent, tmp_path / "moved"))
    place = Place(folder / "teacher", folder / "chat.jsonl", folder / "logits", folder / "cache")
    paths = {"model": str(place.teacher), "dataset": str(place.data)}
    change_checkpoint(place.folder, lambda checkpoint: checkpoint["config"].update(paths))
    return place


def require_tokens_of(stored: Place, bare: Place) -> None:
    """Both runs' conversations have the same tokens at the same positions, though one hasn't stored them."""
    rows = stored_rows(stored.folder).to_pylist()
    assert rows
    for row in rows:
        sample = get_sample(bare.folder, index=row["index"])
        assert "input_ids" not in sample and "positions" not in sample
        found = retokenized(sample)
        np.testing.assert_array_equal(found["input_ids"], row["input_ids"])
        np.testing.assert_array_equal(found["positions"], row["positions"])
        assert found["input_ids"].dtype == found["positions"].dtype == np.int32


@pytest.mark.parametrize(
    ("template", "turns", "options"),
    [
        (CHATML, 1, {}),
        (CHATML, 3, {"turns": "last", "system_prompt": "Say little."}),
        (CHATML, 2, {"exclude_end_tokens": True, "exclude_think_tokens": True, "think_tags": "<a> </a>"}),
        (PROMPTED, 2, {"mask_source": "prefix"}),
        (UNMARKED, 2, {"mask_source": "sentinel", "turns": "last", "exclude_end_tokens": True}),
        (DATED, 1, {"split": "train[2:]", "index_col": "number"}),
    ],
    ids=["plain", "last", "exclusions", "prefix", "sentinel", "dated"],
)
def test_the_tokens_are_those_of_the_run(
    save_tiny_teacher: Callable[..., Path], tmp_path: Path, template: str, turns: int, options: dict[str, Any]
):
    rows = [{**row, "number": 1000 - place} for place, row in enumerate(message_rows(8, turns))]
    rows[5]["messages"][-1]["content"] = "<think>Seven,</think><a>perhaps.</a>It is seven."
    data = write_jsonl(tmp_path / "chat.jsonl", rows)
    teacher = save_tiny_teacher(template=template)
    places = [Place(teacher, data, tmp_path / name, tmp_path / f"{name}-cache") for name in ("stored", "bare")]
    for place, store_tokens in zip(places, (True, False), strict=True):
        place.run(store_tokens=store_tokens, limit=7, **options)
    if template == DATED:
        # As if the run had been on another day: no assistant token would tell.
        with_metadata(pinned_date="2001-02-03")(places[1])
        sample = retokenized(get_sample(places[1].folder, 0))
        assert "03 February" in tiny_tokenizer().decode(sample["input_ids"])
        with_metadata(pinned_date=places[0].checkpoint["metadata"]["pinned_date"])(places[1])
    require_tokens_of(*places)


def test_a_template_of_its_own_that_is_gone(tiny_teacher: Path, tmp_path: Path):
    data = write_jsonl(tmp_path / "chat.jsonl", message_rows(3))
    (tmp_path / "own.jinja").write_text(CHATML.replace("'role'] }}", "'role'] }}:"))
    places = [Place(tiny_teacher, data, tmp_path / name, tmp_path / f"{name}-cache") for name in ("stored", "bare")]
    for place, store_tokens in zip(places, (True, False), strict=True):
        place.run(store_tokens=store_tokens, chat_template=str(tmp_path / "own.jinja"))
    (tmp_path / "own.jinja").unlink()
    require_tokens_of(*places)


def test_the_views_take_it(bare: Place, capsys: pytest.CaptureFixture[str], no_colours: None):
    sample = get_sample(bare.folder, 0)
    with pytest.raises(FormatError, match="retokenize=True"):
        analyze_token_probabilities(sample)
    dataset = load_logit_dataset(bare.folder)
    records = analyze_token_probabilities(dataset, 0, retokenize=True)
    whole = retokenized(sample)
    assert [record.id for record in records] == whole["input_ids"][whole["positions"]].tolist()
    assert [record.log_probability for record in records] == sample["token_logprob"].astype(float).tolist()
    visualize_conversation_probabilities(dataset, 0, retokenize=True)
    assert capsys.readouterr().out.rstrip("\n") == conversation_text(whole)
    view = visualize_conversation_probabilities(dataset, 0, retokenize=True, html=True)
    assert view is not None and view.page == conversation_page(whole) != conversation_page(sample)


def test_stored_tokens_are_left_alone(tiny_teacher: Path, tiny_chat: Path, tmp_path: Path):
    place = Place(tiny_teacher, tiny_chat, tmp_path / "logits", tmp_path / "cache")
    place.run(limit=1)
    change_checkpoint(place.folder, lambda checkpoint: checkpoint["config"].update(dataset="/nowhere"))
    sample = get_sample(place.folder, 0)
    assert retokenized(sample) is sample


def test_source_and_renderer_are_opened_once(moved: Place):
    first = retokenized(get_sample(moved.folder, 0))
    moved.data.unlink()
    again = retokenized(get_sample(moved.folder, 0))
    np.testing.assert_array_equal(first["input_ids"], again["input_ids"])
    assert _run_of.cache_info().maxsize == 2
    _run_of.cache_clear()
    with pytest.raises(FormatError, match="There is no file or folder"):
        retokenized(get_sample(moved.folder, 0))


def other_tokenizer(place: Place) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["river"])
    tokenizer.save_pretrained(place.teacher)


def other_end_tokens(place: Place) -> None:
    (place.teacher / "generation_config.json").write_text('{"eos_token_id": [0]}')
    with_metadata(exclusions=["end_tokens"])(place)


def with_metadata(**values: Any) -> Callable[[Place], None]:
    """Other metadata, with the fingerprint that belongs to it."""

    def change(checkpoint: dict[str, Any]) -> None:
        checkpoint["metadata"].update(values)
        checkpoint["metadata"]["fingerprint"] = fingerprint(checkpoint["metadata"])

    return lambda place: change_checkpoint(place.folder, change)


def pruned(place: Place) -> None:
    change_checkpoint(place.folder, lambda checkpoint: checkpoint["metadata"].pop("sampled_n"))


def with_config(**values: Any) -> Callable[[Place], None]:
    return lambda place: change_checkpoint(place.folder, lambda checkpoint: checkpoint["config"].update(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_tokenizer, r"Different now: tokenizer_sha256 \(stored '[0-9a-f]{64}', now '[0-9a-f]{64}'\)\.$"),
        (lambda place: write_jsonl(place.data, message_rows(30)), r"source_content \(stored .*source_columns \("),
        (with_metadata(chat_template=UNMARKED), r"Different now: chat_template_sha256 \("),
        (with_config(system_prompt="Be kind."), r"system_prompt \(stored None, now 'Be kind.'\)"),
        (with_config(split="train[:3]"), None),
        (with_config(index_col="question"), "must hold whole numbers"),
        (with_metadata(source_split="test"), r"source_split \(stored 'test', now 'train'\)"),
        (other_end_tokens, r"Different now: model_content \("),
        (with_metadata(mask_method="guess"), "doesn't tell the run's mask_method"),
        (with_metadata(turns="first"), "doesn't tell the run's turns"),
        *(
            (with_metadata(exclusions=value), "doesn't tell the run's exclusions")
            for value in (None, [5], ["thoughts"], ["think_tokens <a>"], ["think_tokens <a> </a> <b>"])
        ),
        (with_metadata(pinned_date="yesterday"), "doesn't tell the run's pinned_date"),
        (pruned, "is not what its fingerprint was made of"),
        (
            lambda place: change_checkpoint(place.folder, lambda it: it["metadata"].update(turns="last")),
            "is not what its fingerprint was made of",
        ),
        (with_metadata(model_revision=5), "doesn't tell the run's model_revision"),
        (with_config(model=""), "names no model"),
        (with_config(dataset=None), "names no source dataset"),
        (with_config(dataset=5), "is not of the type"),
        (lambda place: (place.folder / "checkpoint.json").unlink(), "doesn't tell the options of its run"),
        (lambda place: shutil.rmtree(place.teacher), "can't be loaded"),
    ],
)
def test_what_has_changed_is_named(moved: Place, change: Callable[[Place], Any], message: str | None):
    change(moved)
    sample = get_sample(moved.folder, 0)
    if message is None:
        assert "positions" in retokenized(sample)
        return
    with pytest.raises(InputError, match=message) as caught:
        retokenized(sample)
    assert "\n" not in str(caught.value)


def test_other_conversations_are_seen(moved: Place):
    """Numbers in disorder: another conversation of another length, or of the same one."""

    def trade(rows: list[dict[str, Any]]) -> None:
        rows[0]["index"], rows[1]["index"] = rows[1]["index"], rows[0]["index"]

    change_rows(moved.folder, trade)
    with pytest.raises(FormatError, match="assistant tokens when it is rendered again"):
        retokenized(get_sample(moved.folder, 0))
    change_rows(moved.folder, lambda rows: rows[0].update(index=25_000))
    with pytest.raises(FormatError, match="has no conversation 25000"):
        retokenized(get_sample(moved.folder, 0))


def test_tokens_of_another_text_are_seen(moved: Place):
    """All that is hashed agrees, but the words don't: as if a library had cut them otherwise."""
    sample = get_sample(moved.folder, 0)
    whole = retokenized(sample)
    tokens, positions = whole["input_ids"], whole["positions"]
    assert retokenized(sample)["num_tokens"] == len(positions)
    shifted = {name: sample[name] for name in sample}
    shifted["token_logprob"] = np.roll(sample["token_logprob"], 1)
    with pytest.raises(FormatError, match=r"of \d+ tokens don't have the log-probability that is stored"):
        retokenized(shifted)
    # One token alone, in the nucleus and outside.
    own = tokens[positions]
    inside = [token in ids for token, ids in zip(own, sample["top_indices"], strict=True)]
    for entry, change in ((inside.index(True), -1e-2), (inside.index(True), 1e-2), (inside.index(False), 15.0)):
        changed = {**sample, "token_logprob": sample["token_logprob"].copy()}
        changed["token_logprob"][entry] += np.float32(change)
        with pytest.raises(FormatError, match=f": 1 of .* the first at position {positions[entry]}"):
            retokenized(changed)
    without = {name: value for name, value in sample.items() if name != "token_logprob"}
    np.testing.assert_array_equal(retokenized(without)["positions"], positions)


def test_no_code_of_a_model_is_run(moved: Place):
    """Not even where the file says that it may be."""
    (moved.teacher / "evil.py").write_text("raise SystemExit('run')\n")
    for name in ("tokenizer_config.json", "config.json"):
        settings = json.loads((moved.teacher / name).read_text())
        settings["auto_map"] = {"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoConfig": "evil.Evil"}
        (moved.teacher / name).write_text(json.dumps(settings))
    change_checkpoint(moved.folder, lambda checkpoint: checkpoint["config"].update(trust_remote_code=True))
    try:
        retokenized(get_sample(moved.folder, 0))
    except TeacherError as error:
        assert "can't be loaded" in str(error)
