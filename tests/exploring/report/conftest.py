"""A report of a finished run, made once."""

from pathlib import Path

import pytest

from teacher_logits.exploring import dataset_report
from tests.extraction.runs import Place

SOME = 12
"""Conversations that are compared."""


@pytest.fixture(scope="session")
def extracted(tiny_teacher: Path, tiny_chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finished run of 30 conversations in four shards, some of them left out. Not to be changed."""
    folder = tmp_path_factory.mktemp("extracted")
    place = Place(tiny_teacher, tiny_chat, folder / "logits", folder / "cache")
    place.run(max_seq_len=60)
    return place


@pytest.fixture(scope="session")
def html(extracted: Place) -> str:
    return dataset_report(extracted.folder)


@pytest.fixture(scope="session")
def compared_html(extracted: Place) -> str:
    """The same with a comparison over some of the conversations."""
    return dataset_report(extracted.folder, model=extracted.teacher, conversations=SOME, device="cpu")
