"""What an output folder holds when a run is continued, whoever put it there."""

import dataclasses
import hashlib
import shutil
from pathlib import Path

import pytest

from teacher_logits.errors import OutputError
from teacher_logits.shards import read_metadata, read_table, write_shard
from tests.extraction.runs import Place, stored_rows
from tests.extraction.test_resuming import half, same_as


def test_shards_on_another_disk(place: Place, reference: Place, tmp_path: Path):
    """data/ is a link: what stands there is seen."""
    (tmp_path / "large").mkdir()
    place.folder.mkdir()
    (place.folder / "data").symlink_to(tmp_path / "large", target_is_directory=True)
    half(place)
    with pytest.raises(OutputError, match="already holds 14 conversations"):
        dataclasses.replace(place, cache=tmp_path / "free").run()
    assert place.run(resume=True, max_batch_size=1).conversations == 14
    assert same_as(reference, place) and (place.folder / "data").is_symlink()
    assert place.run(force_restart=True, limit=3).complete and stored_rows(place.folder).num_rows == 3


def test_doubled_rows_in_the_output_are_named(place: Place):
    half(place)
    first, second = sorted((place.folder / "data").iterdir())
    shutil.copy(first, second.with_name(second.name.replace("00001", "00009")))
    with pytest.raises(OutputError, match=r"holds conversation \d+ more than once"):
        place.run(resume=True)


def test_checkpoint_that_tells_of_other_content(place: Place, reference: Place):
    """A shard was exchanged behind the checkpoint's back: what the files hold counts, and the rest is computed."""
    half(place)
    (first, entry), *_ = sorted(place.checkpoint["shards"].items())
    path = place.folder / first
    write_shard(read_table(path).slice(0, 3), path, read_metadata(path))
    place.run(resume=True, max_batch_size=1)
    assert place.checkpoint["shards"][first]["rows"] == 3 != entry["rows"]
    assert place.checkpoint["total_samples"] == len(stored_rows(place.folder)) == len(stored_rows(reference.folder))
    assert place.checkpoint["shards"][first]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
