"""Token texts, also of tokens that are parts of characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from teacher_logits.exploring.tokens import TokenTexts
from tests.exploring.made import SMILE, Made, made_tokenizer

_TOKENIZER = made_tokenizer()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_row_joins_to_the_text(text: str):
    texts = TokenTexts(_TOKENIZER).row(_TOKENIZER(text)["input_ids"])
    assert "".join(texts) == text


def test_parts_of_characters(made: Made):
    ids = made.tokenizer(f"a{SMILE}b<|end|>")["input_ids"]
    texts = TokenTexts(made.tokenizer)
    assert [texts.one(token) for token in ids] == ["a", "\\xf0", "\\x9f", "\\x99", "\\x82", "b", "<|end|>"]
    assert texts.row(ids) == ["a", "", "", "", SMILE, "b", "<|end|>"]
    assert texts.row(ids[:3] + ids[5:]) == ["a", "", "", "\\xf0\\x9fb", "<|end|>"]
    assert texts.row([*ids[:3], ids[6]]) == ["a", "", "\\xf0\\x9f", "<|end|>"]
    assert texts.row(ids[:3]) == ["a", "", "\\xf0\\x9f"]
    assert texts.row([]) == []


def test_leading_spaces_stay(made: Made):
    texts = TokenTexts(made.tokenizer)
    assert any(texts.one(token).startswith(" ") for token in made.tokenizer("hello the answer")["input_ids"])


@pytest.mark.parametrize("token", [300, 69_999, 262_143])
def test_ids_past_the_tokenizer(made: Made, token: int):
    assert TokenTexts(made.tokenizer).one(token) == f"<id {token}>"


def test_sentencepiece_style():
    pieces = ["<unk>", "▁The", "re", "<0xC3>", "<0xA9>", "<0x0A>", "▁"]
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    texts = TokenTexts(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"))
    assert [texts.one(token) for token in range(7)] == ["<unk>", " The", "re", "\\xc3", "\\xa9", "\n", " "]
    assert "".join(texts.row([1, 2, 3, 4, 5])) == " Thereé\n"


def test_words():
    for model, decoder in ((models.WordLevel({"a": 0, "b": 1}, "a"), None), (models.WordPiece({"a": 0, "##b": 1}), 1)):
        tokenizer = Tokenizer(model)
        if decoder:
            tokenizer.decoder = decoders.WordPiece()
        texts = TokenTexts(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
        assert texts.row([0, 1]) == ([" a", "b"] if decoder else [" a", " b"])


def test_tokenizers_of_bytes():
    class Bytes:
        def convert_ids_to_tokens(self, token: int) -> bytes:
            return [b"\xf0\x9f", b"\x99\x82"][token]

    texts = TokenTexts(Bytes())
    assert texts.row([0, 1]) == ["", SMILE]
    assert texts.one(2) == "<id 2>"
