"""Token ids as text, also where a token is only a part of a character.

A byte-level tokenizer cuts texts anywhere: '🙂' may be three tokens, none of which is text. Here every token is
brought to its bytes first. A single token shows bytes that are no character as `\\xf0\\x9f`; a row of tokens shows
the character at the token that completes it.
"""

import codecs
import re
from collections.abc import Iterable
from typing import Any

_SPACE = "▁"
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_of_letter() -> dict[str, int]:
    """The letters that byte-level vocabularies write bytes with: printable Latin-1 for itself, the rest from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_of_letter()


class TokenTexts:
    """The texts of a tokenizer's tokens. tokenizer: as `AutoTokenizer` gives it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", None) or {}
        self._added = {int(token): str(content) for token, content in added.items()}
        self._kind = _kind(tokenizer)

    def one(self, token: int) -> str:
        """The text of one token: its leading space kept, bytes that are no character as `\\xf0`, and `<id 151999>`
        for an id that the tokenizer doesn't know."""
        return self._bytes(int(token)).decode("utf-8", "backslashreplace")

    def row(self, tokens: Iterable[int]) -> list[str]:
        """One text a token; joined they are the text of the row.

        A character of several tokens stands at the last of them and the others are empty. Bytes that never become a
        character stand as `\\xf0` where that turns out.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        texts: list[str] = []
        for token in map(int, tokens):
            if token in self._added and texts:
                texts[-1] += decoder.decode(b"", final=True)
            texts.append(decoder.decode(self._bytes(token)))
        if texts:
            texts[-1] += decoder.decode(b"", final=True)
        return texts

    def _bytes(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode("utf-8", "surrogatepass")
        piece = self._piece(token)
        if piece is None:
            return f"<id {token}>".encode()
        if isinstance(piece, bytes):
            return piece
        if self._kind == "bytes" and all(letter in _BYTES for letter in piece):
            return bytes(_BYTES[letter] for letter in piece)
        if self._kind == "pieces" and (match := _BYTE_PIECE.fullmatch(piece)):
            return bytes([int(match[1], 16)])
        if self._kind == "words":
            piece = piece[2:] if piece.startswith("##") else f" {piece}"
        return piece.replace(_SPACE, " ").encode("utf-8", "backslashreplace")

    def _piece(self, token: int) -> str | bytes | None:
        """What the vocabulary calls the token; None where it is past its end."""
        try:
            return self._tokenizer.convert_ids_to_tokens(token)
        except (IndexError, KeyError, ValueError, OverflowError):
            return None


def _kind(tokenizer: Any) -> str:
    """How the vocabulary writes texts: 'bytes' (a letter a byte), 'pieces' (▁ for a space, <0x0A>) or 'words'."""
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    # The decoder's own JSON, much shorter than the whole tokenizer's.
    state = bytes(decoder.__getstate__()).decode("utf-8", "replace") if decoder is not None else ""
    if "ByteLevel" in state or hasattr(tokenizer, "byte_decoder"):
        return "bytes"
    words = "WordPiece" in state or (decoder is None and hasattr(tokenizer, "backend_tokenizer"))
    return "words" if words else "pieces"
