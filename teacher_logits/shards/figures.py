"""What checkpoint.json says of a shard beside its rows: few numbers, which add up over shards to those of the card."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import add
from typing import Any, Self

import numpy as np
import pyarrow as pa

from teacher_logits.codec import CONTRACT_COLUMNS, flat_columns, nucleus_mass

SIZE_CLASSES = 9
"""Nucleus sizes 1, 2, 3-4, 5-8, ... 129-255."""
_CLASS = np.concatenate([[0], np.ceil(np.log2(np.arange(1, 256))).astype(np.int64)])
_ENTRIES_AT_A_TIME = 8192
_NAMES = ("bytes", "nucleus_tokens", "nucleus_mass")


@dataclass(frozen=True)
class ShardFigures:
    """Sums over the entries of one shard, or of several."""

    entries: int
    bytes: int
    """As stored."""
    nucleus_tokens: int
    nucleus_mass: float
    """Probability that the nuclei hold."""
    nucleus_sizes: tuple[int, ...]
    """[SIZE_CLASSES] entries by the size of their nucleus."""

    @classmethod
    def of_none(cls, size: int = 0) -> Self:
        """No entries yet. size: bytes of the file that they will be from."""
        return cls(0, size, 0, 0.0, (0,) * SIZE_CLASSES)

    @classmethod
    def of_table(cls, table: pa.Table, logits_dtype: str, size: int = 0) -> Self:
        """Those of rows in memory. size: bytes of the file they stand in.

        Raises ValueError where the columns don't belong together.
        """
        columns = flat_columns(table.select(CONTRACT_COLUMNS))
        mass = sum(float(nucleus_mass(part, logits_dtype).sum()) for part in columns.parts(_ENTRIES_AT_A_TIME))
        classes = np.bincount(_CLASS[columns.counts], minlength=SIZE_CLASSES).tolist()
        return cls(len(columns.counts), size, int(columns.counts.sum()), mass, tuple(classes))

    @classmethod
    def of_entries(cls, shards: Iterable[Mapping[str, Any]]) -> Self | None:
        """The sums over what checkpoint.json says of shards; None where there is none, or one has no figures, as those
        that earlier versions wrote."""
        every = cls.of_none()
        for shard in shards:
            figures: Any = shard.get("figures")
            if not _readable(figures):
                return None
            size, tokens, mass = (figures[name] for name in _NAMES)
            every += cls(shard["tokens"], size, tokens, mass, tuple(figures["nucleus_sizes"]))
        return every if every.entries else None

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.entries + other.entries,
            self.bytes + other.bytes,
            self.nucleus_tokens + other.nucleus_tokens,
            self.nucleus_mass + other.nucleus_mass,
            tuple(map(add, self.nucleus_sizes, other.nucleus_sizes)),
        )

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes them. The entries are the shard's tokens, which are told elsewhere."""
        return {
            "bytes": self.bytes,
            "nucleus_tokens": self.nucleus_tokens,
            "nucleus_mass": round(self.nucleus_mass, 6),
            "nucleus_sizes": list(self.nucleus_sizes),
        }


def size_class_names(cap: int) -> list[str]:
    """The classes of nucleus sizes up to the cap, as '5-8'."""
    edges = [(1 if power == 0 else 2 ** (power - 1) + 1, 2**power) for power in range(SIZE_CLASSES)]
    return [f"{low}" if low == min(high, cap) else f"{low}-{min(high, cap)}" for low, high in edges if low <= cap]


def _readable(figures: Any) -> bool:
    """Whether they are as `as_dict` gives them: checkpoint.json may be somebody else's."""
    if not isinstance(figures, Mapping):
        return False
    sizes, numbers = figures.get("nucleus_sizes"), [figures.get(name) for name in ("bytes", "nucleus_tokens")]
    if not isinstance(sizes, list) or len(sizes) != SIZE_CLASSES:
        return False
    return all(type(each) is int and 0 <= each < 1 << 62 for each in (*sizes, *numbers)) and (
        isinstance(figures.get("nucleus_mass"), float | int) and bool(np.isfinite(figures["nucleus_mass"]))
    )
