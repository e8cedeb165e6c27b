"""What the page says against what analyze_token_probabilities and the whole distributions say."""

import numpy as np
import pytest

from benchmarks.conversation_page import repeated
from explore_logits import analyze_token_probabilities, get_sample, load_logit_dataset
from teacher_logits.exploring import conversation_view, entropy_bounds
from teacher_logits.exploring.page.cells import Cell, shown
from teacher_logits.exploring.page.content import CHOICES, Content, page_content
from tests.exploring.made import CAP, SAMPLED_N, SMILE, TEXTS, Made
from tests.exploring.page.samples import text_sample

WHERE = {"nucleus": "n", "sample": "s", "neither": "-"}


def choices_of(content: Content, entry: int) -> list[tuple[int, str, float]]:
    """Id, text and probability of an entry's choices."""
    entries = content.entries
    sizes = np.minimum(entries["size"], CHOICES)
    first, last = sizes[:entry].sum(), sizes[: entry + 1].sum()
    numbers = entries["choices"][first:last]
    assert len(entries["choices"]) == len(entries["odds"]) == sizes.sum()
    named = [(entries["vocabulary"][number], entries["texts"][number]) for number in numbers]
    return [(*name, odds) for name, odds in zip(named, entries["odds"][first:last], strict=True)]


@pytest.mark.parametrize("index", TEXTS)
def test_figures_are_those_of_the_analysis(made: Made, index: int):
    sample = get_sample(load_logit_dataset(made.folder), index=index)
    content = page_content(sample, made.tokenizer)
    entries, records = (
        content.entries,
        analyze_token_probabilities(sample, tokenizer=made.tokenizer, alternatives=CHOICES),
    )
    assert entries["token"] == [record.id for record in records]
    assert entries["position"] == [record.position for record in records]
    assert entries["rank"] == [record.rank or 0 for record in records]
    assert entries["where"] == "".join(WHERE[record.where] for record in records)
    np.testing.assert_allclose(entries["bits"], [record.surprise_bits for record in records], rtol=6e-6)
    for record in records:
        found = choices_of(content, record.entry)
        assert [choice.id for choice in record.alternatives] == [token for token, _, _ in found]
        assert [shown(choice.token) for choice in record.alternatives] == [text for _, text, _ in found]
        wanted = [choice.probability for choice in record.alternatives]
        np.testing.assert_allclose([odds for *_, odds in found], wanted, rtol=6e-4)
        assert entries["texts"][entries["vocabulary"].index(record.id)] == shown(record.token)


def test_figures_are_those_of_the_whole_distributions(made: Made):
    sample, rows = get_sample(load_logit_dataset(made.folder), index=17), made.probabilities(17)
    entries = page_content(sample, made.tokenizer).entries
    stored = made.entries[17]
    for entry, row in enumerate(rows):
        size = stored.top_counts[entry]
        nucleus = set(stored.top_ids[entry, :size].tolist())
        assert entries["size"][entry] == size
        assert entries["mass"][entry] == pytest.approx(row[sorted(nucleus)].sum(), abs=1e-5)
        kept = sorted(nucleus | set(stored.sampled_ids[entry].tolist()))
        assert entries["kept"][entry] == pytest.approx(row[kept].sum(), abs=1e-5)
        exact = -(row * np.log2(row)).sum()
        assert entries["low"][entry] - 6e-4 <= exact <= entries["high"][entry] + 6e-4
    np.testing.assert_allclose(entries["high"], entropy_bounds(sample)[1] / np.log(2), atol=6e-4)


def test_turns_are_the_runs_of_stored_positions(made: Made):
    pieces = [("<|user|>one and", False), ("the answer", True), ("<|user|>two", False), ("hello there\nlong", True)]
    sample = text_sample(made.tokenizer, pieces)
    content = page_content(sample, made.tokenizer)
    assert [turn.stored for turn in content.turns] == [False, True, False, True]
    texts = [turn.text or "".join(cell.text for cell in turn.cells) for turn in content.turns]
    assert texts == [text for text, _ in pieces]
    lengths = [len(turn.cells) for turn in content.turns if turn.stored]
    assert content.entries["starts"] == [0, lengths[0]] and sum(lengths) == sample["num_tokens"]
    assert "".join(cell.band for turn in content.turns for cell in turn.cells) == content.bands
    assert len(set(content.bands)) > 2
    assert ("Tokens", f"{sum(lengths)} of {len(sample['input_ids'])} stored, in 2 turns") in content.facts


def test_a_character_of_several_tokens(made: Made):
    cells = page_content(text_sample(made.tokenizer, [("a", False), (SMILE, True)]), made.tokenizer).turns[1].cells
    assert [(cell.text, cell.kind) for cell in cells] == [("", "part")] * 3 + [(SMILE, "")]


def test_cells_hide_nothing():
    assert Cell.of("   ", "0") == Cell("   ", "0", "spaces")
    assert Cell.of("\u200d", "0").text == "\\u200d" and Cell.of("\xad\u200b", "0").text == "\\xad\\u200b"
    assert Cell.of("a\u202eb\ud800\x00\ufdd0\uffff", "0").text == "a\\u202eb\\ud800\\x00\\ufdd0\\uffff"
    assert Cell.of("👩\u200d👧 .\n", "0").text == "👩\u200d👧 .\n"
    assert shown(" a\n\tb") == "␣a↵⇥b" and shown("") == "(empty)" and shown("\u0301") == "◌\u0301"


def test_colours_follow_the_probabilities(made: Made):
    sample = dict(text_sample(made.tokenizer, [("x", False), ("the answer is long", True)]))
    logprobs = np.log(np.linspace(1, 0.0005, sample["num_tokens"])).astype(np.float32)
    logprobs[1], logprobs[2] = -np.inf, np.nan
    content = page_content(dict(sample, token_logprob=logprobs), made.tokenizer)
    least = np.array([0.9, 0.5, 0.1, 0.01, 0.001, 0])
    for entry, logprob in enumerate(logprobs.astype(np.float64)):
        wanted = {1: "i", 2: "u"}.get(entry) or str(np.argmax(np.exp(logprob) >= least))
        assert content.bands[entry] == content.turns[1].cells[entry].band == wanted
        assert (content.entries["bits"][entry] is None) == (entry in (1, 2))
    assert dict(content.facts)["Perplexity"].endswith("(without 2 tokens of unknown or no probability)")


def test_without_the_tokens_the_first_choices_are_shown(tokenless: Made):
    sample = get_sample(load_logit_dataset(tokenless.folder), 0)
    content = page_content(sample, tokenless.tokenizer)
    rows = tokenless.probabilities(17)
    (turn,) = content.turns
    firsts = rows.argmax(1)
    assert [cell.text for cell in turn.cells] == [choices_of(content, entry)[0][1] for entry in range(len(rows))]
    assert [choices_of(content, entry)[0][0] for entry in range(len(rows))] == firsts.tolist()
    assert "token" not in content.entries and not content.has_tokens
    first = rows.max(1)
    least = np.array([0.9, 0.5, 0.1, 0.01, 0.001, 0])
    assert content.bands == "".join(str(np.argmax(p >= least)) for p in first)
    own = rows[np.arange(len(rows)), tokenless.tokens(17)]
    np.testing.assert_allclose(content.entries["bits"], -np.log2(own), atol=1e-4)
    older = {name: values for name, values in sample.items() if name != "token_logprob"}
    content = page_content(older, tokenless.tokenizer)
    assert content.entries["bits"] == [None] * len(rows) and "Perplexity" not in dict(content.facts)


def test_nothing_stored(made: Made):
    sample = text_sample(made.tokenizer, [("a", False), ("hello", True)])
    length = {"num_tokens": 0, "positions": np.zeros(0, np.int32)}
    empty = {name: values[:0] for name, values in sample.items() if isinstance(values, list | np.ndarray)}
    content = page_content(sample | empty | length | {"input_ids": sample["input_ids"]}, made.tokenizer)
    assert [(turn.text, turn.stored) for turn in content.turns] == [("ahello", False)]
    assert content.bands == "" and content.entries["bits"] == content.entries["choices"] == []


def test_title_tells_model_conversation_and_settings(made: Made):
    sample = text_sample(made.tokenizer, [("a", False), ("hello", True)])
    assert page_content(sample, made.tokenizer).title == "some/teacher · Conversation 7 · top-p 0.98, cap 6, 8 samples"
    stored = get_sample(load_logit_dataset(made.folder), index=9)
    assert page_content(stored).title == f"teacher · Conversation 9 · cap {CAP}, {SAMPLED_N} samples"
    unknown = dict(sample, run={})
    assert page_content(unknown, made.tokenizer).title == "unknown teacher · Conversation 7 · 8 samples"


def test_a_title_that_utf8_can_not_hold(made: Made):
    sample = get_sample(made.folder, 0)
    run = {"config": {"model": "a\nb\x1b", "top_p": "\ud800"}, "metadata": {}}
    view = conversation_view({**sample, "run": run}, tokenizer=made.tokenizer)
    assert view.title.startswith("a b\\x1b · Conversation 17") and "\\ud800" in view.title
    assert view.page.encode() and view._repr_html_().encode()


def test_paths_stay_at_home(made: Made):
    sample = text_sample(made.tokenizer, [("a", False), ("hello", True)])
    config = {"model": "/home/me/secret/big-teacher", "dataset": "./private/chats.jsonl"}
    content = page_content(dict(sample, run={"config": config, "metadata": {}}), made.tokenizer)
    told = content.title + str(content.facts)
    assert "big-teacher" in told and "chats.jsonl" in told and "secret" not in told and "private" not in told


def test_figures_of_4000_tokens_are_short(made: Made):
    sample = repeated(text_sample(made.tokenizer, [("a", False), ("the answer is long, hello", True)]), 4000)
    entries = page_content(sample, made.tokenizer).entries
    assert len(entries["bits"]) == 4000 and len(entries["texts"]) <= 400
    assert len(entries["choices"]) <= 4000 * CHOICES
