"""What may continue a run, what may not, and what each refusal says."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from teacher_logits.command_line.extract import parse_args
from teacher_logits.errors import InputError, OutputError, UploadError
from teacher_logits.extraction.extract import run_extraction
from teacher_logits.extraction.stop import GracefulInterrupt
from teacher_logits.hub import FolderRepository, folder
from teacher_logits.journal import RunCache
from teacher_logits.shards import read_metadata, read_table, write_shard
from tests.extraction.runs import Place, StopAfter, require_agreement, stored_rows
from tests.tiny import save_teacher


def half(place: Place, **options: Any) -> None:
    """Run until half of the conversations are computed."""
    summary = place.run(StopAfter(16), max_batch_size=1, **options)
    assert not summary.complete and summary.left == 14


def same_as(reference: Place, place: Place) -> bool:
    require_agreement(place.folder)
    return stored_rows(place.folder).equals(stored_rows(reference.folder))


def test_half_and_half(place: Place, reference: Place):
    half(place)
    assert stored_rows(place.folder).num_rows == 14 and len(place.waiting()) == 2
    assert place.checkpoint["complete"] is False and place.kept["complete"] is False
    summary = place.run(resume=True, max_batch_size=1)
    assert (summary.conversations, summary.total_conversations, summary.left, summary.complete) == (14, 30, 0, True)
    assert same_as(reference, place) and not place.waiting() and place.kept["complete"] is True
    assert [entry["rows"] for _, entry in sorted(place.checkpoint["shards"].items())] == [7, 7, 7, 7, 2]


def test_resume_alone(place: Place, reference: Place):
    half(place)
    config = parse_args(["--resume", "--cache-dir", str(place.cache)])
    assert config == dataclasses.replace(place.config(max_batch_size=1), resume=True)
    assert run_extraction(config).complete and same_as(reference, place)
    with pytest.raises(InputError, match=r"holds none\. Add --output"):
        parse_args(["--resume", "--cache-dir", str(place.cache / "none")])


def test_new_machine(place: Place, reference: Place, tmp_path: Path):
    """Nothing but the output's name and an empty cache folder: what waited in the old one is computed again."""
    half(place)
    shutil.rmtree(place.cache)
    arguments = ["--resume", "--output", str(place.output), "--cache-dir", str(tmp_path / "new")]
    assert run_extraction(parse_args(arguments)).conversations == 16
    assert same_as(reference, place)


def test_from_another_working_folder(place: Place, reference: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Paths that were given relative to one folder are found from another, and stay relative in the output."""
    begun = tmp_path / "begun"
    shutil.copytree(place.teacher, begun / "teacher")
    shutil.copy(place.data, begun / "chat.jsonl")
    monkeypatch.chdir(begun)
    relative = Place(Path("teacher"), Path("chat.jsonl"), "./logits", Path("cache"))
    half(relative)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert run_extraction(parse_args(["--resume", "--cache-dir", str(begun / "cache")])).complete
    assert same_as(reference, dataclasses.replace(place, output=begun / "logits"))


def test_finished_run_again(place: Place, reference: Place):
    place.run(max_batch_size=1)
    before = {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match=r"already holds 30 conversations\. Continue with --resume, begin"):
        place.run(max_batch_size=1)
    summary = place.run(resume=True, max_batch_size=1)
    assert (summary.conversations, summary.complete, summary.total_conversations) == (0, True, 30)
    assert {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()} == before


def test_more_conversations(place: Place, reference: Place):
    assert place.run(limit=10, max_batch_size=1).complete
    summary = place.run(StopAfter(3), resume=True, max_batch_size=1)
    assert (summary.complete, summary.waiting, summary.left) == (False, 3, 17)
    assert place.kept["complete"] is False, "rows wait here that the output does not have"
    with pytest.raises(OutputError, match=r"unfinished run into .*3 conversations.*--cache-dir"):
        dataclasses.replace(place, output=place.folder.parent / "other").run()
    assert place.run(resume=True, max_batch_size=1).complete
    assert same_as(reference, place)


def test_fewer_conversations_take_nothing_away(place: Place):
    place.run(max_batch_size=1)
    assert place.run(resume=True, limit=3, max_batch_size=1).complete
    assert stored_rows(place.folder).num_rows == 30


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"top_p": 0.9}, "top_p (stored 0.98, now 0.9)"),
        ({"seed": 1}, "seed (stored 42, now 1)"),
        ({"dtype": "bfloat16"}, "model_dtype (stored 'float32', now 'bfloat16')"),
        ({"sampled_n": 5}, "sampled_n"),
        ({"top_p_max_elements": 50}, "top_p_max_elements"),
        ({"vocab_limit": 390}, "vocab_limit"),
        ({"store_tokens": False}, "store_tokens"),
        ({"exclude_end_tokens": True}, "exclusions"),
        ({"user_col": "answer"}, "source_columns"),
    ],
    ids=str,
)
@pytest.mark.parametrize("machine", ["same", "new"])
def test_another_result_is_refused(half_done: Place, options: dict[str, Any], field: str, machine: str, tmp_path: Path):
    place = half_done if machine == "same" else dataclasses.replace(half_done, cache=tmp_path / "new")
    with pytest.raises(OutputError, match="differs in: ") as refusal:
        place.run(resume=True, **options)
    assert field in str(refusal.value) and refusal.value.exit_code == 2
    assert str(refusal.value).count("(stored") == 1, "the fields that differ and no others"


@pytest.fixture(scope="module")
def half_done(tiny_teacher: Path, tiny_chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run that was stopped. Not to be continued: see `copy_of`."""
    folder = tmp_path_factory.mktemp("half")
    found = Place(tiny_teacher, tiny_chat, folder / "logits", folder / "cache")
    half(found)
    return found


def test_what_may_change(place: Place, reference: Place, tmp_path: Path):
    """Speed and place: batch size, attention, shard sizes, the model's folder, the dataset's file."""
    half(place)
    moved = Place(tmp_path / "moved-teacher", tmp_path / "moved.jsonl", place.output, place.cache)
    shutil.copytree(place.teacher, moved.teacher)
    shutil.copy(place.data, moved.data)
    assert moved.run(resume=True, max_batch_size=5, upload_every=4, attn="eager").complete
    found, expected = stored_rows(place.folder), stored_rows(reference.folder)
    assert found.select(["index", "num_tokens", "input_ids", "positions"]).equals(
        expected.select(["index", "num_tokens", "input_ids", "positions"])
    )


def test_changed_weights_are_refused(place: Place, tmp_path: Path):
    half(place)
    other = save_teacher(tmp_path / place.teacher.name, seed=1)
    with pytest.raises(OutputError, match=r"differs in: model_content \(stored 'sha256:"):
        dataclasses.replace(place, teacher=other).run(resume=True)


def test_changed_rows_are_refused(place: Place, tmp_path: Path):
    half(place)
    changed = tmp_path / place.data.name
    changed.write_text(place.data.read_text().replace("?", "!", 1))
    with pytest.raises(OutputError, match=r"differs in: source_content"):
        dataclasses.replace(place, data=changed).run(resume=True)


def test_unfinished_run_is_not_begun_anew_by_accident(place: Place, tmp_path: Path):
    half(place)
    with pytest.raises(
        OutputError, match=r"unfinished run into .*2 conversations that are not there yet.*--force-restart"
    ):
        place.run()
    other = dataclasses.replace(place, output=tmp_path / "other")
    with pytest.raises(OutputError, match=r"--resume alone.*--cache-dir.*--force-restart") as refusal:
        other.run(resume=True)
    assert str(place.output) in str(refusal.value) and not other.folder.exists()
    free = dataclasses.replace(place, cache=tmp_path / "free")
    with pytest.raises(OutputError, match=r"already holds 14 conversations\. Continue with --resume"):
        free.run()


def test_force_restart(place: Place, reference: Place):
    half(place)
    waiting = place.waiting()
    assert place.run(force_restart=True, seed=7, limit=5, max_batch_size=1).complete
    assert stored_rows(place.folder)["index"].to_pylist() == list(range(5))
    assert {row["fingerprint"] for row in (place.checkpoint, place.kept)} != {reference.checkpoint["fingerprint"]}
    (backup,) = place.cache.glob("backup_*")
    kept = [row for path in backup.rglob("*.parquet") for row in read_table(path, ["index"])["index"].to_pylist()]
    assert sorted(kept) == waiting, "what was not committed is set aside, not thrown away"
    assert place.run(force_restart=True, max_batch_size=1).complete and same_as(reference, place)


def test_one_cache_after_another_run(place: Place, tmp_path: Path):
    """A finished run's cache serves the next, and hands nothing on: neither rows nor the list of what was left out."""
    other = dataclasses.replace(place, output=tmp_path / "other", cache=tmp_path / "others-cache")
    other.run(StopAfter(9), limit=12, max_batch_size=1)
    assert other.checkpoint["total_samples"] == 7
    place.run(max_seq_len=40)
    assert any(index >= 12 for index in place.skipped)
    moved = dataclasses.replace(other, cache=place.cache)
    assert moved.run(resume=True, limit=12, max_batch_size=1).complete
    assert not (moved.folder / "skipped.jsonl").exists()
    assert stored_rows(moved.folder)["index"].to_pylist() == list(range(12))


def test_foreign_parquet_is_not_touched(place: Place, reference: Place):
    shard = place.folder / "data" / "train-00000-of-00001.parquet"
    shard.parent.mkdir(parents=True)
    shutil.copy(next((reference.folder / "data").iterdir()), shard)
    for options in ({}, {"resume": True}, {"force_restart": True}):
        with pytest.raises(OutputError, match=r"no run of this program (lists|wrote).*--output"):
            place.run(**options)
    shard.unlink()
    place.run(limit=3)
    shutil.copy(next((reference.folder / "data").iterdir()), shard)
    with pytest.raises(OutputError, match=r"train-00000-of-00001\.parquet, which is no shard of this run"):
        place.run(resume=True, limit=5)
    assert shard.exists()


def test_failed_start_leaves_nothing_in_the_way(place: Place):
    """Options that turn out wrong when the output is there already: the right ones need no --resume."""
    with pytest.raises(InputError, match="longer than"):
        place.run(max_seq_len=3)
    with pytest.raises(InputError, match=r"mps|cuda"):
        place.run(device="cuda:7")
    with pytest.raises(InputError):
        place.run(attn="flash_attention_2")
    assert place.run(limit=2).complete


def test_stored_after_all(place: Place):
    """A conversation that was too long for the first run is stored by the second, and no longer listed as skipped."""
    first = place.run(max_seq_len=40, max_batch_size=1)
    assert first.complete and 0 < sum(first.skipped.values()) < 30
    assert set(place.skipped.values()) == {"longer than 40 tokens"}
    assert set(place.skipped) == set(range(30)) - set(stored_rows(place.folder)["index"].to_pylist())
    second = place.run(resume=True, max_batch_size=1)
    assert second.complete and second.total_conversations == 30
    assert place.skipped == {} and not second.skipped


def test_shard_that_is_not_in_the_checkpoint(place: Place, reference: Place):
    """Killed between a shard and checkpoint.json: the shard counts."""
    half(place)
    checkpoint = place.checkpoint
    (last, entry) = sorted(checkpoint["shards"].items())[-1]
    del checkpoint["shards"][last]
    (place.folder / "checkpoint.json").write_text(json.dumps(checkpoint))
    place.run(resume=True, max_batch_size=1)
    assert same_as(reference, place) and place.checkpoint["shards"][last] == entry


def test_killed_after_the_first_shard_and_the_cache_lost(
    place: Place, reference: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """There is a shard, and checkpoint.json doesn't list it yet: whose it is can be told."""
    real, copied = folder.copy_file, []

    def copy(source: Path, final: Path, mode: int) -> None:
        real(source, final, mode)
        copied.append(final)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "copy_file", copy)
    with pytest.raises(UploadError):
        place.run(max_batch_size=1)
    monkeypatch.undo()
    assert copied[0].exists() and place.checkpoint["shards"] == {}
    shutil.rmtree(place.cache)
    arguments = ["--resume", "--output", str(place.output), "--cache-dir", str(tmp_path / "new")]
    assert run_extraction(parse_args(arguments)).conversations == 23
    assert same_as(reference, place)


def test_spooled_rows_that_were_committed_by_another(place: Place, reference: Place):
    """A spooled shard in part committed, under its own name and others: the rest is stored once, under a free name."""
    half(place)
    cache = RunCache(place.cache)
    (shard, *_) = sorted((place.folder / "data").iterdir())
    table = read_table(reference.folder / "data" / sorted(p.name for p in (reference.folder / "data").iterdir())[2])
    both = read_table(shard).slice(0, 3), table.replace_schema_metadata(None).slice(0, 4)
    with cache.locked():
        mixed = pa.concat_tables([part.replace_schema_metadata(None) for part in both])
        write_shard(mixed, cache.spool_folder / shard.name, read_metadata(shard))
        shutil.copy(sorted((place.folder / "data").iterdir())[1], cache.spool_folder)
    place.run(resume=True, max_batch_size=1)
    assert same_as(reference, place) and not place.waiting()
    carried = [read_metadata(path) for path in (place.folder / "data").iterdir()]
    assert all("chat_template" not in metadata for metadata in carried)
    for metadata in carried:
        metadata.pop("min_index"), metadata.pop("max_index")
    assert all(metadata == carried[0] for metadata in carried)


def test_two_runs_at_once(place: Place, tmp_path: Path):
    with RunCache(place.cache).locked(), pytest.raises(OutputError, match=r"Another run \(process \d+\) is using"):
        place.run()
    claimed = FolderRepository(place.folder)
    claimed.create()
    elsewhere = dataclasses.replace(place, cache=tmp_path / "another cache")
    with pytest.raises(OutputError, match="Another run is writing to"):
        elsewhere.run()
    claimed.close()
    assert elsewhere.run().complete


@pytest.mark.parametrize(
    "options",
    [{"start_offset": 9999}, {"max_seq_len": 2}, {"length_col": "none"}, {"attn": "flash_attention_2"}],
    ids=lambda options: next(iter(options)),
)
def test_force_restart_removes_nothing_before_the_new_run_can_begin(place: Place, options: dict[str, Any]):
    place.run(limit=9)
    before = stored_rows(place.folder)
    with pytest.raises(InputError):
        place.run(force_restart=True, **options)
    assert stored_rows(place.folder).equals(before) and place.checkpoint["complete"]
    assert place.run(force_restart=True, limit=4).complete and len(stored_rows(place.folder)) == 4


def test_output_that_is_removed_meanwhile(place: Place, reference: Place):
    """A run doesn't call complete what isn't there, and --resume computes what is gone."""

    class RemoveAShard(GracefulInterrupt):
        @property
        def requested(self) -> bool:
            for shard in (place.folder / "data").glob("*-00000.parquet"):
                shard.unlink()
            return False

    with pytest.raises(UploadError, match=r"is not in .* any more .*--resume"):
        place.run(RemoveAShard(), max_batch_size=1)
    assert not place.checkpoint["complete"]
    place.run(resume=True, max_batch_size=1)
    assert sorted(stored_rows(place.folder)["index"].to_pylist()) == sorted(
        stored_rows(reference.folder)["index"].to_pylist()
    )


def test_folders_that_are_not_for_us(place: Place, tmp_path: Path):
    with pytest.raises(InputError, match="same folder"):
        dataclasses.replace(place, cache=place.folder).run()
    place.folder.mkdir(parents=True)
    (place.folder / "README.md").write_text("mine")
    with pytest.raises(OutputError, match=r"holds other files, such as README\.md"):
        place.run()
    assert (place.folder / "README.md").read_text() == "mine"


def test_resume_from_another_working_folder(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A relative output is remembered as the place it is."""
    (tmp_path / "there").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    half(dataclasses.replace(place, output="./logits"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = parse_args(["--resume", "--cache-dir", str(place.cache)])
    assert run_extraction(config).complete
    assert (tmp_path / "there" / "logits" / "checkpoint.json").is_file() and not list(
        (tmp_path / "elsewhere").iterdir()
    )


def test_trust_is_not_taken_from_an_output(place: Place, tmp_path: Path):
    """Somebody else's checkpoint.json must not make code of a model run."""
    half(place, trust_remote_code=True)
    assert place.checkpoint["config"]["trust_remote_code"] is False
    checkpoint = place.checkpoint
    checkpoint["config"] |= {"trust_remote_code": True, "trust-remote-code": True}
    (place.folder / "checkpoint.json").write_text(json.dumps(checkpoint))
    config = parse_args(["--resume", "--output", str(place.folder), "--cache-dir", str(tmp_path / "new")])
    assert config.trust_remote_code is False
    given = parse_args(
        ["--resume", "--output", str(place.folder), "--cache-dir", str(tmp_path / "new"), "--trust-remote-code"]
    )
    assert given.trust_remote_code is True
