"""Text from data as a terminal may get it."""

import re

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def visible(text: str) -> str:
    """The text with control characters as escapes (`\\x1b`, `\\u202e`); line breaks and tabs stay."""
    return _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text)
