"""The judge of the long trials sees a row that is lost, doubled or changed. The trials themselves take minutes."""

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.endurance.common import ENDPOINTS, Judge, Verdict, endpoint_of, is_clear, is_complete
from benchmarks.endurance.faulty_hub import FAULTS, fits
from tests.codec.made import made_table
from tests.extraction.runs import Ended
from tests.hub_server import Fault

TRUTH = made_table([1, 2, 3, 4, 5]).replace_schema_metadata(None)
JUDGE = Judge(TRUTH)


def output(*shards: pa.Table, **changes: object) -> dict[str, bytes]:
    """The files of a complete output with these shards; changes: of checkpoint.json."""
    files = {}
    for number, table in enumerate(shards):
        stream = io.BytesIO()
        pq.write_table(table, stream)
        files[f"data/train-{number}.parquet"] = stream.getvalue()
    listed = {path: {"sha256": hashlib.sha256(content).hexdigest()} for path, content in files.items()}
    checkpoint = {"complete": True, "total_samples": len(TRUTH), "shards": listed} | changes
    return files | {"README.md": b"card", "checkpoint.json": json.dumps(checkpoint).encode()}


def rows(verdict: Verdict) -> tuple[int, int, int]:
    return verdict.lost, verdict.doubled, verdict.changed


def test_a_right_output_is_fine():
    assert JUDGE.complete(output(TRUTH.slice(3), TRUTH.slice(0, 3))).fine
    assert JUDGE.sound(output(TRUTH.slice(3))).fine and JUDGE.sound({}).fine


def test_rows_that_are_wrong_are_counted():
    assert rows(JUDGE.complete(output(TRUTH.slice(2)))) == (2, 0, 0)
    assert rows(JUDGE.complete(output(TRUTH, TRUTH.slice(1, 2)))) == (0, 2, 0)
    place = TRUTH.schema.get_field_index("logsumexp")
    swapped = TRUTH.set_column(place, TRUTH.schema.field(place), TRUTH.take([0, 1, 2, 4, 3]).column("logsumexp"))
    assert rows(JUDGE.complete(output(swapped))) == (0, 0, 2)
    assert rows(JUDGE.complete(output(swapped), exact=False)) == (0, 0, 2)


@pytest.mark.parametrize(
    "files",
    [
        output(TRUTH, complete=False),
        output(TRUTH, shards={}),
        {path: content for path, content in output(TRUTH).items() if path != "README.md"},
        output(TRUTH) | {"data/train-0.parquet": b"PAR1"},
        output(TRUTH) | {"checkpoint.json": b"{"},
        output(TRUTH) | {"skipped.jsonl": b"{}"},
    ],
)
def test_files_that_are_wrong_are_named(files: Mapping[str, bytes]):
    assert JUDGE.complete(files).problems


def test_endings():
    assert is_complete(Ended(0, "so many rows\ncomplete\n", "")) and not is_complete(Ended(0, "stopped", ""))
    refused = Ended(1, "", "working\nerror: The disk is full; make room and go on with --resume.\n")
    assert is_clear(refused) and not is_clear(dataclasses.replace(refused, code=3))
    assert not is_clear(dataclasses.replace(refused, err=refused.err + "Traceback (most recent call last):"))


def test_every_fault_can_be_made_and_every_path_has_one_name():
    for endpoint, (method, path) in ENDPOINTS.items():
        assert all(Fault(method, path, **given) for name, given in FAULTS.items() if fits(name, endpoint))
    assert endpoint_of("GET", "/api/datasets/a/b") == "dataset info"
    assert endpoint_of("GET", "/api/datasets/a/b/tree/main?recursive=true") == "tree"
    assert endpoint_of("POST", "/datasets/a/b.git/info/lfs/verify") == "LFS verify"
    assert endpoint_of("GET", "/never/seen?x") == "GET /never/seen"
