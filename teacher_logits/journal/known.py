"""What was read of committed shards before, so that it needn't be fetched again: committed.parquet."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from teacher_logits.files import atomic_path
from teacher_logits.records import Int64

log = logging.getLogger(__name__)

_SCHEMA = pa.schema([("sha256", pa.string()), ("indices", pa.list_(pa.int64()))])
_DIGEST = b"content_sha256"


class KnownShards:
    """Source numbers of shards by the SHA-256 of each shard's content, in a file of the cache folder.

    Nothing depends on it: a file that isn't there, is damaged or isn't one of these is as good as an empty one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[str, Int64] = {}

    def load(self) -> dict[str, Int64]:
        """SHA-256 -> `index` of the rows, in their order."""
        try:
            self._held = _read(self._path)
        except FileNotFoundError:
            self._held = {}
        except (pa.ArrowException, OSError, ValueError) as error:
            log.debug("%s is passed over (%s)", self._path, error)
            self._held = {}
        return dict(self._held)

    def save(self, indices: Mapping[str, Int64]) -> None:
        """Keep these and no others. What was there already is written anew only where that makes a difference."""
        held = self._held
        if indices.keys() == held.keys() and all(np.array_equal(held[key], indices[key]) for key in held):
            return
        self._held = dict(indices)
        if not indices:
            self._path.unlink(missing_ok=True)
            return
        values = np.concatenate([np.zeros(0, np.int64), *indices.values()])
        offsets = np.cumsum([0, *map(len, indices.values())], dtype=np.int32)
        metadata = {_DIGEST: _digest(list(indices), offsets, values)}
        columns = [pa.array(list(indices), pa.string()), pa.ListArray.from_arrays(offsets, pa.array(values))]
        table = pa.Table.from_arrays(columns, schema=_SCHEMA.with_metadata(metadata))
        with atomic_path(self._path) as temporary:
            pq.write_table(table, temporary, compression="zstd", use_dictionary=False, write_page_checksum=True)


def _read(path: Path) -> dict[str, Int64]:
    """The file's content. Raises FileNotFoundError, or ValueError and pyarrow's errors for what isn't one, whole."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        table = file.read().combine_chunks()
    metadata = table.schema.metadata or {}
    if not table.schema.remove_metadata().equals(_SCHEMA) or not table.num_rows:
        raise ValueError(f"its columns are {table.schema.names}")
    lists = table.column("indices").chunk(0)
    names, offsets, values = table.column("sha256").to_pylist(), lists.offsets.to_numpy(), lists.values.to_numpy()
    # Pages have checksums of their own, but what describes them has none.
    if metadata.get(_DIGEST) != _digest(names, offsets, values):
        raise ValueError("its content isn't what was written")
    return dict(zip(names, np.split(values, offsets[1:-1]), strict=True))


def _digest(names: list[str], offsets: np.ndarray, values: Int64) -> bytes:
    """Over everything that the file says."""
    content = hashlib.sha256("\n".join(names).encode())
    content.update(offsets.astype("<i4").tobytes())
    content.update(values.astype("<i8").tobytes())
    return content.hexdigest().encode()
