"""What every test may use, and the quiet surroundings they all run in.

Fixtures: `tiny_teacher` (a saved Llama with tokenizer and marked template), `save_tiny_teacher` (other kinds, each
made once), `tiny_chat` (a JSON Lines file of questions and answers), `tiny_messages` (one of messages). They last for
the session: copy a folder before changing it. `tests.tiny` makes more.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_HOME = Path(tempfile.mkdtemp(prefix="teacher-logits-tests-"))
# Set before torch and the Hugging Face libraries are imported, and inherited by the processes that tests start: one
# thread each (several compete for the cores and are slower), caches of this session, nobody's token.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ |= {"HF_HOME": str(_HOME), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
for _name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE"):
    os.environ.pop(_name, None)


def pytest_unconfigure() -> None:
    """Remove the session's caches."""
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def reporting_as_before() -> Iterator[None]:
    """Commands that a test calls in this process set up their messages for the process; the next test has its own."""
    logger = logging.getLogger("teacher_logits")
    before = [*logger.handlers], logger.level, logger.propagate
    yield
    logger.handlers, logger.level, logger.propagate = before


@pytest.fixture(scope="session")
def save_tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Gives the folder of a tiny teacher with the arguments of `tests.tiny.save_teacher`; equal ones share a folder."""
    from tests.tiny import save_teacher

    saved: dict[str, Path] = {}

    def save(architecture: str = "llama", **options: Any) -> Path:
        key = repr((architecture, sorted(options.items())))
        if key not in saved:
            saved[key] = save_teacher(tmp_path_factory.mktemp("teachers") / architecture, architecture, **options)
        return saved[key]

    return save


@pytest.fixture(scope="session")
def tiny_teacher(save_tiny_teacher: Callable[..., Path]) -> Path:
    """Folder of a tiny Llama: 400 logits, a byte-level tokenizer of 384 tokens, a marked ChatML template."""
    return save_tiny_teacher()


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSON Lines file of 30 rows with question, answer and subject (maths, history, art in turn)."""
    from tests.tiny import question_rows, write_jsonl

    return write_jsonl(tmp_path_factory.mktemp("chat") / "chat.jsonl", question_rows(30))


@pytest.fixture(scope="session")
def tiny_messages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSON Lines file of 12 rows with messages: two questions and answers each."""
    from tests.tiny import message_rows, write_jsonl

    return write_jsonl(tmp_path_factory.mktemp("chat") / "messages.jsonl", message_rows(12))
