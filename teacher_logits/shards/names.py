"""What a shard is called: data/<split>-<run>-<number>.parquet."""

import re

_NAME = re.compile(r"data/(?P<split>\w+)-(?P<run>[0-9a-f]{8})(?P<worker>-w\d+)?-(?P<number>\d{5,})\.parquet")


def shard_name(split: str, fingerprint: str, number: int) -> str:
    """The path of a shard inside the dataset. The split's name is reduced to the characters a file name can bear."""
    return f"data/{split_stem(split)}-{fingerprint[:8]}-{number:05d}.parquet"


def split_stem(split: str) -> str:
    """The split's own name without a slice, reduced to word characters: 'train[:10]' is 'train'."""
    return re.sub(r"\W", "_", split.split("[")[0])


def shard_number(path: str) -> int | None:
    """The number in a shard's path, or None for any other path."""
    match = _NAME.fullmatch(path)
    return int(match["number"]) if match else None
