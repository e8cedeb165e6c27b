"""Outputs that are, hold or lie in what is read."""

from pathlib import Path

import pytest

from teacher_logits.errors import SettingsError
from teacher_logits.settings import SourceOptions
from teacher_logits.settings.outputs import touches


@pytest.fixture
def chats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "chats").mkdir()
    (tmp_path / "chats" / "a.jsonl").touch()
    (tmp_path / "link").symlink_to(tmp_path / "chats")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "chats"


@pytest.mark.parametrize("dataset", ["chats", "./chats", "chats/a.jsonl", "file://chats", "chats/*.jsonl", "link"])
@pytest.mark.parametrize("output", ["./chats", "./link", "."])
def test_one_place(dataset: str, output: str, chats: Path) -> None:
    assert touches(dataset, output)
    assert touches(dataset, str(Path(output).absolute()))
    with pytest.raises(SettingsError, match=r"are one place, or one lies in the other.*another --output"):
        SourceOptions(model="m", dataset=dataset, output=output).require_complete()


def test_inside_what_is_read(chats: Path) -> None:
    assert touches("chats", "./chats/logits") and touches("chats/**/*.jsonl", "./chats/logits")
    assert not touches("chats/a.jsonl", "./chats/logits"), "a file holds nothing"


@pytest.mark.parametrize(
    ("pattern", "output", "expected"),
    [
        ("./*.jsonl", "./new", False),
        ("*.jsonl", "./new", False),
        ("./*", "./new", False),
        ("chats/*.jsonl", "./chats/logits", False),
        ("./**/*.jsonl", "./new", True),
        ("./**/*.jsonl", "./new/deep/er", True),
        ("./**/*.jsonl", "./.new", False),
        ("./**", "./new", True),
        ("./**/data/*.parquet", "./new", True),
        ("./**/chats/*.jsonl", "./chats/logits", True),
        ("./*/x.jsonl", "./new", True),
        ("./*/x.jsonl", "./new/deep", False),
        ("./.*/x.jsonl", "./.new", True),
        ("./out*/data/*.parquet", "./out1", True),
        ("./out*/data/*.parquet", "./out1/data", True),
        ("./out*/data/*.parquet", "./new", False),
        ("chats/*.jsonl", "./chats", True),
        ("chats/[ab].jsonl", ".", True),
        ("./ch*/a.jsonl", ".", True),
        ("chats/*.jsonl", "./elsewhere", True),
        ("nowhere/*.jsonl", "./nowhere", False),
    ],
)
def test_patterns_that_fit_what_is_written(pattern: str, output: str, expected: bool, chats: Path) -> None:
    (chats.parent / "elsewhere").mkdir()
    (chats.parent / "elsewhere" / "b.jsonl").touch()
    (chats / "linked.jsonl").symlink_to(chats.parent / "elsewhere" / "b.jsonl")
    assert touches(pattern, output) is expected
    assert touches(str(chats.parent / pattern), str(chats.parent / output)) is expected
    assert touches(pattern, str(chats.parent / output)) is expected


@pytest.mark.parametrize("output", ["./logits", "./chats-logits", "me/chats", "chats"])
def test_two_places(output: str, chats: Path) -> None:
    """`chats` without a dot is a dataset on the Hub."""
    assert not touches("./chats", output) and not touches("chats/a.jsonl", output)


def test_on_the_hub() -> None:
    for dataset in (
        "me/chats",
        "hf://datasets/me/chats",
        "hf://datasets/me/chats@main",
        "hf://datasets/me/chats/data/*.parquet",
    ):
        assert touches(dataset, "me/chats")
        assert not touches(dataset, "me/logits") and not touches(dataset, "./me/chats")
