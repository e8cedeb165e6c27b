"""What goes wrong in the middle: logits that are no numbers, too little memory, a full disk, a Hub that is away."""

import dataclasses
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from teacher_logits.conversations import ConversationDataset
from teacher_logits.errors import NonFiniteLogitsError, UploadError
from teacher_logits.extraction import batches, stations, stop
from teacher_logits.extraction.batches import FiniteGuard, GPUBatchResult
from teacher_logits.hub import folder
from teacher_logits.records import Batch
from tests.extraction.runs import ForkServer, Place, require_agreement, stored_rows
from tests.extraction.test_rows import require_same_up_to_rounding
from tests.hub.made import REPO, rows_of
from tests.hub_server import Fault, HubServer
from tests.tiny import TURN_START, question_rows, save_teacher, write_jsonl

NOT_FINITE = "NaN or infinite logits"


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """However a run ends, its threads end with it."""
    yield
    ours = [thread.name for thread in threading.enumerate() if thread.name in ("uploader", "postprocess", "prefetch")]
    assert ours == []


def poisoned(folder: Path, text: str) -> Path:
    """A teacher that gives NaN from the tokens of `text` on."""
    save_teacher(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    embedding = model.get_input_embeddings().weight.data
    embedding[AutoTokenizer.from_pretrained(folder).encode(text)] = torch.nan
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sometimes_nan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return poisoned(tmp_path_factory.mktemp("nan") / "llama", "§")


def test_teacher_that_gives_nothing_but_nan(place: Place, tmp_path: Path, forks: ForkServer):
    broken = dataclasses.replace(place, teacher=poisoned(tmp_path / "broken", TURN_START))
    end = forks.run(*broken.arguments("--max-batch-size", "5"))
    assert end.code == 1 and "Traceback" not in end.err
    assert "error: The teacher gave NaN or infinite logits for all of the first 20 conversations" in end.err
    assert "--dtype" in end.err and not list(broken.folder.glob("data/*"))
    few = dataclasses.replace(broken, output=tmp_path / "few", cache=tmp_path / "few-cache")
    with pytest.raises(NonFiniteLogitsError, match=r"all of the first 4 conversations"):
        few.run(limit=4)


@pytest.mark.parametrize("batch", [1, 8])
def test_some_conversations_are_nan(place: Place, sometimes_nan: Path, tmp_path: Path, batch: int):
    """They are left out and listed; those beside them in a batch are as they are alone."""
    rows = question_rows(30)
    bad = [3, 4, 11, 29]
    for index in bad:
        rows[index]["question"] += " §"
    rows[7]["answer"] += " §"  # NaN from there on: the whole conversation is left out
    data = write_jsonl(tmp_path / "chat.jsonl", rows)
    clean = dataclasses.replace(place, data=data)
    clean.run(max_batch_size=1)
    found = dataclasses.replace(clean, teacher=sometimes_nan, output=tmp_path / "nan", cache=tmp_path / "nan-cache")
    summary = found.run(max_batch_size=batch)
    assert (summary.complete, summary.left, summary.conversations) == (True, 0, 25)
    assert found.skipped == dict.fromkeys([*bad, 7], NOT_FINITE) and summary.skipped == {NOT_FINITE: 5}
    expected = stored_rows(clean.folder).filter(~np.isin(np.arange(30), [*bad, 7]))
    require_same_up_to_rounding(stored_rows(found.folder), expected)
    require_agreement(found.folder)


def test_a_finished_run_with_many_nan_goes_on(place: Place, sometimes_nan: Path, tmp_path: Path):
    """What was left out is tried again by --resume, and that it fails again is no reason to stop."""
    rows = question_rows(60)
    for index in range(0, 60, 2):
        rows[index]["question"] += " §"
    found = dataclasses.replace(place, teacher=sometimes_nan, data=write_jsonl(tmp_path / "chat.jsonl", rows))
    assert found.run().complete
    assert len(found.skipped) == 30
    summary = found.run(resume=True)
    assert summary.complete and summary.conversations == 0 and len(found.skipped) == 30
    assert stored_rows(found.folder)["index"].to_pylist() == list(range(1, 60, 2))


def test_guard():
    guard = FiniteGuard(10_000)
    assert guard.count(0, 19) is None
    assert guard.count(0, 1) == "all of the first 20 conversations"
    guard = FiniteGuard(10_000)
    assert [guard.count(1, 19), guard.count(978, 0), guard.count(0, 0)] == [None, None, None]
    assert guard.count(2, 0) == "19 of 1,000 conversations"
    guard = FiniteGuard(10_000)
    assert [guard.count(990, 10), guard.count(99, 1)] == [None, None], "1 % is bearable"
    assert guard.count(0, 1) == "12 of 1,101 conversations"


def short_of_memory(
    monkeypatch: pytest.MonkeyPatch, most: int, error: Exception
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """No batch of more than `most` padded tokens fits; returns the shapes of those that did, and of those that
    didn't."""
    shapes: list[tuple[int, int]] = []
    refused: list[tuple[int, int]] = []
    real = batches.gpu_process_batch

    def process(teacher: Any, batch: Batch, settings: Any) -> GPUBatchResult:
        if batch.input_ids.size > most:
            refused.append(batch.input_ids.shape)
            raise error
        shapes.append(batch.input_ids.shape)
        return real(teacher, batch, settings)

    monkeypatch.setattr(batches, "gpu_process_batch", process)
    return shapes, refused


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.1 GB)"),
    ],
    ids=["cuda", "cpu", "mps"],
)
def test_out_of_memory_halves(place: Place, reference: Place, monkeypatch: pytest.MonkeyPatch, error: Exception):
    shapes, refused = short_of_memory(monkeypatch, 200, error)
    summary = place.run(max_batch_size=16)
    assert summary.complete and summary.conversations == 30 and not summary.skipped
    require_same_up_to_rounding(stored_rows(place.folder), stored_rows(reference.folder))
    lengths = [len(ids) for ids in stored_rows(place.folder)["input_ids"].to_pylist()]
    assert max(rows for rows, _ in shapes) > 1 and {width for _, width in shapes} <= set(lengths), "padding shrinks too"
    tried = [rows * width for rows, width in refused]
    assert len(tried) >= 2
    assert all(later <= earlier / 2 for earlier, later in pairwise(tried)), "what doesn't fit is tried only once"


def test_out_of_memory_for_one(place: Place, reference: Place, monkeypatch: pytest.MonkeyPatch):
    lengths = [len(ids) for ids in stored_rows(reference.folder)["input_ids"].to_pylist()]
    most = sorted(lengths)[-3]
    short_of_memory(monkeypatch, most, torch.OutOfMemoryError("CUDA out of memory"))
    summary = place.run(max_batch_size=4)
    too_long = [index for index, length in enumerate(lengths) if length > most]
    assert summary.complete and summary.left == 0
    assert place.skipped == dict.fromkeys(too_long, "too long for the device's memory")
    monkeypatch.undo()
    assert place.run(resume=True, max_batch_size=1).complete, "a larger device stores them"
    assert place.skipped == {} and stored_rows(place.folder).num_rows == 30


def test_other_failures_of_the_teacher_are_not_hidden(place: Place, reference: Place, monkeypatch: pytest.MonkeyPatch):
    short_of_memory(monkeypatch, 40, RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        place.run(max_batch_size=1)
    monkeypatch.undo()
    assert place.run(resume=True, max_batch_size=1).complete
    assert stored_rows(place.folder).equals(stored_rows(reference.folder))


def test_failure_while_rows_wait_for_room(place: Place, reference: Place, monkeypatch: pytest.MonkeyPatch):
    """The output takes nothing, the spool is full, and then the teacher fails: nobody waits for the output."""
    gate, waiting, too_late = threading.Event(), threading.Event(), threading.Event()
    commit = folder.FolderRepository.commit
    process = batches.gpu_process_batch
    calls: list[int] = []

    def gated(self: Any, *arguments: Any) -> None:
        waiting.set()
        if not gate.wait(timeout=20):
            too_late.set()
        commit(self, *arguments)

    def fails(*arguments: Any) -> GPUBatchResult:
        if waiting.wait(timeout=0.2):
            calls.append(1)
        if len(calls) > 3:
            time.sleep(0.5)  # until the next shard is full, too
            raise ZeroDivisionError("in the teacher")
        return process(*arguments)

    monkeypatch.setattr(folder.FolderRepository, "commit", gated)
    monkeypatch.setattr(batches, "gpu_process_batch", fails)
    monkeypatch.setattr(stop, "_GRACE_SECONDS", 0.5)
    with pytest.raises(ZeroDivisionError, match="in the teacher"):
        place.run(max_batch_size=1, spool_limit_gb=1e-9, upload_every=2)
    assert not too_late.is_set()
    gate.set()
    wait_for_end("uploader")
    monkeypatch.undo()
    assert place.run(resume=True, max_batch_size=1).complete
    assert_same_rows(place, reference)


def wait_for_end(name: str) -> None:
    """Of the threads of this name."""
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(20)


def test_a_spool_that_is_full_already_is_worked_off(place: Place, reference: Place):
    assert place.run(max_batch_size=1, spool_limit_gb=1e-9, upload_every=2).complete
    assert_same_rows(place, reference)


def assert_same_rows(place: Place, reference: Place) -> None:
    assert stored_rows(place.folder).equals(stored_rows(reference.folder))


def test_failure_in_packing_has_its_traceback(place: Place, reference: Place, monkeypatch: pytest.MonkeyPatch):
    calls = []
    real = stations.cpu_postprocess_batch

    def fails_later(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 12:
            raise ZeroDivisionError("in the packing thread")
        return real(*arguments)

    monkeypatch.setattr(stations, "cpu_postprocess_batch", fails_later)
    with pytest.raises(ZeroDivisionError, match="in the packing thread") as failure:
        place.run(max_batch_size=1)
    assert "fails_later" in [entry.name for entry in failure.traceback]
    assert len(place.waiting()) + stored_rows(place.folder).num_rows == 11
    monkeypatch.undo()
    assert place.run(resume=True, max_batch_size=1).complete
    assert stored_rows(place.folder).equals(stored_rows(reference.folder))


def test_failure_in_preparing(place: Place, reference: Place, monkeypatch: pytest.MonkeyPatch):
    real = ConversationDataset.__getitems__
    calls = []

    def fails_later(self: ConversationDataset, places: list[int]) -> Any:
        calls.append(1)
        if len(calls) == 10:
            raise ZeroDivisionError("in the preparing thread")
        return real(self, places)

    monkeypatch.setattr(ConversationDataset, "__getitems__", fails_later)
    with pytest.raises(ZeroDivisionError, match="in the preparing thread") as failure:
        place.run(max_batch_size=1)
    assert "fails_later" in [entry.name for entry in failure.traceback]
    assert len(place.waiting()) + stored_rows(place.folder).num_rows == 9
    monkeypatch.undo()
    assert place.run(resume=True, max_batch_size=1).complete
    assert stored_rows(place.folder).equals(stored_rows(reference.folder))


def test_full_disk_keeps_what_was_computed(place: Place, reference: Place, monkeypatch: pytest.MonkeyPatch):
    real = folder.copy_file
    copies: list[Path] = []

    def copy(source: Path, final: Path, mode: int) -> None:
        copies.append(final)
        if len(copies) > 2:
            raise OSError(28, "No space left on device")
        real(source, final, mode)

    monkeypatch.setattr(folder, "copy_file", copy)
    with pytest.raises(UploadError, match="No space left on device"):
        place.run(max_batch_size=1, upload_every=3)
    stored, waiting = stored_rows(place.folder)["index"].to_pylist(), place.waiting()
    kept = len({*stored, *waiting})  # one shard may stand in both: copied, and not committed with the next
    assert len(stored) == 6 and kept >= 9
    assert place.kept["complete"] is False and place.checkpoint["total_samples"] in (3, 6)
    monkeypatch.undo()
    summary = place.run(resume=True, max_batch_size=1)
    assert summary.conversations == 30 - kept, "nothing is computed twice"
    assert stored_rows(place.folder).equals(stored_rows(reference.folder))


def test_hub_away_keeps_what_was_computed(
    place: Place, reference: Place, server: HubServer, hub_in_process: None, hasty: None
):
    there = dataclasses.replace(place, output=REPO)
    server.add_fault(Fault("POST", "/commit/", "status", status=503, times=None))
    with pytest.raises(UploadError, match="did not take a commit"):
        there.run(max_batch_size=1, hub_retry_seconds=0)
    assert there.waiting()
    server.clear_faults()
    assert there.run(resume=True, max_batch_size=1).complete and not there.waiting()
    assert rows_of(server.files(REPO)).sort_by("index").equals(stored_rows(reference.folder))


def test_token_that_is_taken_away(place: Place, reference: Place, server: HubServer, hub_in_process: None):
    there = dataclasses.replace(place, output=REPO)
    server.add_fault(Fault("POST", "/preupload/", "status", status=401, times=None, after=1))
    with pytest.raises(UploadError, match=r"no right to write.*--resume"):
        there.run(max_batch_size=1)
    server.clear_faults()
    assert there.run(resume=True, max_batch_size=1).complete
    assert rows_of(server.files(REPO)).sort_by("index").equals(stored_rows(reference.folder))
