"""What of a shard has to travel for its source numbers, and that nothing which is damaged passes for them."""

import io
from collections.abc import Callable
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest

from teacher_logits.errors import FormatError
from teacher_logits.hub.ranges import FOOTER_BYTES, PartialFile, agreeing_indices, fetch_column
from teacher_logits.shards import read_indices, write_shard
from tests.codec.made import made_table
from tests.hub.made import METADATA

FLIPS = 1500


class Elsewhere:
    """A file that is fetched in parts, which are written down."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.fetched: list[tuple[int, int]] = []

    def fetch(self, start: int, stop: int) -> tuple[int, bytes]:
        self.fetched.append((start, stop))
        return start, self.content[start:stop]

    def column(self) -> PartialFile:
        return fetch_column(len(self.content), self.fetch, "index")


@pytest.fixture(scope="module")
def make_shard(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    def make(lengths: list[int], metadata: dict[str, object] = METADATA, **options: object) -> bytes:
        path = tmp_path_factory.mktemp("shard") / "a.parquet"
        write_shard(made_table(lengths, first_index=7), path, metadata)
        if options:
            table = pq.read_table(path)
            pq.write_table(table, path, write_page_checksum=True, **options)
        return path.read_bytes()

    return make


def test_one_group_takes_two_ranges(make_shard: Callable[..., bytes]):
    shard = Elsewhere(make_shard([40] * 150))
    size = len(shard.content)
    assert agreeing_indices(shard.column(), 150).tolist() == list(range(7, 157))
    tail, (start, stop) = shard.fetched
    assert tail == (size - FOOTER_BYTES, size)
    assert start == 4 and stop < 1000, "the first column's pages and nothing else"


def test_a_range_for_each_further_group(make_shard: Callable[..., bytes]):
    shard = Elsewhere(make_shard([20] * 2500))
    assert pq.read_metadata(io.BytesIO(shard.content)).num_row_groups == 3
    assert agreeing_indices(shard.column(), 2500).tolist() == list(range(7, 2507))
    assert len(shard.fetched) == 4
    assert sum(stop - start for start, stop in shard.fetched[1:]) < 10_000


def test_a_small_file_takes_one(make_shard: Callable[..., bytes]):
    shard = Elsewhere(make_shard([1] * 5))
    assert agreeing_indices(shard.column(), 5).tolist() == [7, 8, 9, 10, 11]
    assert shard.fetched == [(0, len(shard.content))]


def test_ranges_close_together_are_fetched_as_one(make_shard: Callable[..., bytes]):
    shard = Elsewhere(make_shard([1] * 4000, row_group_size=200))
    assert pq.read_metadata(io.BytesIO(shard.content)).num_row_groups == 20
    assert read_indices(shard.column()).tolist() == list(range(7, 4007))
    assert len(shard.fetched) == 2, "the footer, and everything before it"


def test_a_long_footer_is_fetched_whole(make_shard: Callable[..., bytes]):
    shard = Elsewhere(make_shard([40] * 150, {**METADATA, "note": "".join(map(str, Random(0).randbytes(50_000)))}))
    assert agreeing_indices(shard.column(), 150).tolist() == list(range(7, 157))
    assert len(shard.fetched) == 3


def test_dictionaries_come_along(make_shard: Callable[..., bytes]):
    shard = Elsewhere(make_shard([40] * 150, use_dictionary=["index"]))
    assert pq.read_metadata(io.BytesIO(shard.content)).row_group(0).column(0).has_dictionary_page
    assert read_indices(shard.column()).tolist() == list(range(7, 157))


def test_no_rows(make_shard: Callable[..., bytes]):
    assert agreeing_indices(Elsewhere(make_shard([])).column(), 0).tolist() == []


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1\xff\xff\xff\x7fPAR1", b"<html>" * 30_000])
def test_what_is_no_shard_is_refused(content: bytes):
    with pytest.raises(FormatError):
        Elsewhere(content).column()


def test_other_numbers_than_announced_are_refused(make_shard: Callable[..., bytes], tmp_path: Path):
    with pytest.raises(FormatError, match="smallest and largest"):
        agreeing_indices(Elsewhere(make_shard([1] * 5)).column(), 6)
    table = pq.read_table(io.BytesIO(make_shard([1] * 5)))
    pq.write_table(table.slice(1), tmp_path / "a.parquet")
    with pytest.raises(FormatError, match=r"\(4, 7, 11\), and has \(4, 8, 11\)"):
        agreeing_indices(Elsewhere((tmp_path / "a.parquet").read_bytes()).column(), 4)


def test_a_flipped_bit_is_never_believed(make_shard: Callable[..., bytes]):
    """In the column's pages, their headers, the footer, and what follows it."""
    whole, random = make_shard([1 + row % 9 for row in range(1200)]), Random(5)
    footer = pq.read_metadata(io.BytesIO(whole)).serialized_size
    chunks = [pq.read_metadata(io.BytesIO(whole)).row_group(group).column(0) for group in range(2)]
    read = range(len(whole) - footer - 8, len(whole))
    places = [random.choice(read) for _ in range(FLIPS)]
    for chunk in chunks:
        pages = range(chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size)
        places += [*pages[:60], *(random.choice(pages) for _ in range(200))]
    unnoticed = 0
    for place in places:
        flipped = bytes([whole[place] ^ (1 << random.randrange(8))])
        try:
            found = agreeing_indices(Elsewhere(whole[:place] + flipped + whole[place + 1 :]).column(), 1200)
        except FormatError:
            continue
        unnoticed += 1
        assert found.tolist() == list(range(7, 1207)), place
    assert unnoticed < len(places), "some flips make no difference, most are noticed"


def test_only_what_was_brought_can_be_read():
    file = PartialFile(10, lambda start, stop: (start, bytes(range(start, stop))))
    file.bring(2, 5)
    file.seek(3)
    assert (file.read(2), file.tell()) == (b"\3\4", 5)
    with pytest.raises(OSError, match="5 to 6"):
        file.read(1)
    file.seek(-2, io.SEEK_END)
    with pytest.raises(OSError, match="8 to 10"):
        file.read()
    file.bring(8, 10)
    assert (file.read(), file.read(), file.read(5)) == (b"\x08\x09", b"", b"")
    for start, stop in ((-1, 2), (9, 11), (4, 4)):
        with pytest.raises(FormatError, match="outside"):
            file.bring(start, stop)
