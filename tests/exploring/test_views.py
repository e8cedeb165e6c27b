"""What is printed: safe for a terminal, aligned, and coloured by the right probabilities."""

import re
import sys

import numpy as np
import pytest
from termcolor import colored

from explore_logits import (
    get_sample,
    load_logit_dataset,
    print_sample_info,
    print_top_tokens,
    visualize_conversation_probabilities,
)
from teacher_logits.errors import FormatError
from teacher_logits.exploring import MissingLibraryError, conversation_text
from teacher_logits.exploring.text import percent, perplexity_text, quoted, table
from teacher_logits.printable import visible
from tests.exploring.made import SMILE, TEXTS, Made

COLOURS = {"green": (0.9, 2), "cyan": (0.5, 0.9), "yellow": (0.1, 0.5), "magenta": (0.01, 0.1), "red": (0, 0.01)}


def test_control_characters_become_visible():
    assert visible("a\x1b[2J\r\x07\x9b1m\u202eb\ud800") == "a\\x1b[2J\\r\\x07\\x9b1m\\u202eb\\ud800"
    kept = f"line\n\tété 日本 {SMILE} 👩‍👧"
    assert visible(kept) == kept
    assert quoted(" a\n\tb") == "' a\\n\\tb'"


def test_tables_align_wide_characters():
    assert table([["a", "日本", "x"], ["bbb", "c", "yy"]], right="2") == "a    日本   x\nbbb  c     yy"
    assert table([]) == ""


def test_numbers():
    assert percent(0.98765) == "98.77 %" and percent(1e-7) == "1.0e-05 %" and percent(0) == "0.00 %"
    assert perplexity_text(np.log([0.5, 0.125])) == "4.00"
    assert perplexity_text(np.array([np.log(0.5), -np.inf, np.nan])).startswith("2.00 (without 2 tokens")
    assert perplexity_text(np.array([])) == "unknown"


def test_conversation_without_colours(made: Made, no_colours: None):
    for index, (prompt, answer) in TEXTS.items():
        if index != 9:
            text = conversation_text(get_sample(load_logit_dataset(made.folder), index=index), made.tokenizer)
            rendered = f"{prompt}<|assistant|>{answer}".replace("\x1b", "\\x1b")
            assert rendered in text.split("\n\n", 1)[1]
            assert "\x1b" not in text and "NO_COLOR" in text


@pytest.mark.parametrize("index", [17, 5])
def test_colours_follow_the_probabilities(made: Made, colours: None, index: int):
    """The text of each colour, put together from the whole distributions and the tokenizer's own decoding."""
    text = conversation_text(get_sample(load_logit_dataset(made.folder), index=index), made.tokenizer)
    body = text.split("\n\n", 1)[1].rsplit("\n\n", 1)[0]
    probabilities = made.probabilities(index)[np.arange(len(made.tokens(index))), made.tokens(index)]
    prompt, answer = TEXTS[index]
    wanted, waiting, least = [], [], 1.0
    for token, probability in zip(made.tokens(index), probabilities, strict=True):
        waiting.append(token)
        least = min(least, probability)
        decoded = made.tokenizer.decode(waiting)
        if "\ufffd" not in decoded:
            name = next(name for name, (low, high) in COLOURS.items() if low <= least < high)
            wanted += [(name, letter) for letter in decoded]
            waiting, least = [], 1.0
    codes = {colored("x", name).split("m")[0] + "m": name for name in COLOURS}
    codes[colored("x", attrs=["dark"]).split("m")[0] + "m"] = "dim"
    seen = [
        (codes[code], letter)
        for code, piece in re.findall(r"(\x1b\[\d+m)(.*?)\x1b\[0m", body, re.DOTALL)
        for letter in piece.replace("↵\n", "\n")
    ]
    assert seen == [("dim", letter) for letter in f"{prompt}<|assistant|>"] + wanted
    assert len({name for name, _ in wanted}) > 1
    assert "".join(letter for _, letter in wanted) == answer


def test_data_can_not_write_escapes(made: Made, colours: None):
    text = conversation_text(get_sample(load_logit_dataset(made.folder), index=123), made.tokenizer)
    assert set(re.findall("\x1b.{0,4}", text)) <= set(re.findall("\x1b.{0,4}", re.sub(r"\\x1b\[31m", "", text)))
    assert re.sub(r"\x1b\[\d+m", "", text).count("\\x1b[31m") == 1


def test_summary_line(made: Made, capsys: pytest.CaptureFixture[str], no_colours: None):
    visualize_conversation_probabilities(load_logit_dataset(made.folder, streaming=True), index=9)
    line = capsys.readouterr().out.strip().split("\n")[-1]
    rows, tokens = made.probabilities(9), made.tokens(9)
    perplexity = np.exp(-np.log(rows[np.arange(len(tokens)), tokens]).mean())
    assert f"perplexity {perplexity:,.2f}" in line
    assert f"mean nucleus {made.entries[9].top_counts.mean():.1f} tokens" in line
    inside = np.mean(
        [
            token in made.entries[9].top_ids[i, :n]
            for i, (token, n) in enumerate(zip(tokens, made.entries[9].top_counts, strict=True))
        ]
    )
    assert f"{inside:.2%} of the tokens in their nucleus".replace("%", " %", 1) in line


def test_printed_overviews(made: Made, tokenless: Made, capsys: pytest.CaptureFixture[str]):
    sample = get_sample(load_logit_dataset(made.folder), index=123)
    print_sample_info(sample, made.tokenizer)
    printed = capsys.readouterr().out
    assert "index            123" in printed and f"mean {made.entries[123].top_counts.mean():.1f}" in printed
    assert "\\x1b[31m" in printed and "\x1b" not in printed
    print_sample_info(get_sample(load_logit_dataset(tokenless.folder), 0), made.tokenizer)
    assert "conversation" not in capsys.readouterr().out
    print_top_tokens(sample, 1, made.tokenizer, k=3)
    lines = capsys.readouterr().out.strip().split("\n")
    first = made.tokens(123)[1]
    assert lines[1].split() == ["rank", "probability", "token", "id"]
    assert lines[2].startswith("   1") and lines[2].endswith(f" {first}")
    assert len({line.rindex(" ") + len(line.split()[-1]) for line in lines[1:]}) == 1


def test_views_need_tokens(tokenless: Made):
    with pytest.raises(FormatError, match="--no-store-tokens"):
        visualize_conversation_probabilities(load_logit_dataset(tokenless.folder))


def test_without_termcolor(made: Made, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "termcolor", None)
    with pytest.raises(ImportError, match=r"teacher-logits\[viz\]") as caught:
        visualize_conversation_probabilities(load_logit_dataset(made.folder), tokenizer=made.tokenizer)
    assert isinstance(caught.value, MissingLibraryError) and caught.value.name == "termcolor"
