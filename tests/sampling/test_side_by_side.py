"""Groups of rows on several cores."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

from teacher_logits.sampling import SamplingSettings, sample
from teacher_logits.sampling.side_by_side import side_by_side


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_one_thread_works_in_the_caller():
    assert side_by_side([threading.get_ident] * 3) == [threading.get_ident()] * 3


def test_each_task_has_one_thread_of_torch(two_threads: None):
    assert side_by_side([torch.get_num_threads] * 8) == [1] * 8
    assert torch.get_num_threads() == 2, "the caller keeps its own"


def test_results_in_order(two_threads: None):
    assert side_by_side([lambda place=place: place**2 for place in range(50)]) == [place**2 for place in range(50)]


def test_both_threads_work_at_once(two_threads: None):
    meet = threading.Barrier(2)
    assert sorted(side_by_side([lambda: meet.wait(timeout=20)] * 2)) == [0, 1]


def test_a_failure_reaches_the_caller(two_threads: None):
    def fails() -> int:
        raise ZeroDivisionError("in a task")

    with pytest.raises(ZeroDivisionError, match="in a task"):
        side_by_side([lambda: 1, fails, lambda: 2])
    assert side_by_side([lambda: 1, lambda: 2]) == [1, 2]


def test_in_a_forked_process(two_threads: None):
    """The threads stay behind; new ones are made."""
    assert side_by_side([torch.get_num_threads] * 2) == [1, 1]
    child = os.fork()
    if child == 0:
        os._exit(0 if side_by_side([torch.get_num_threads] * 2) == [1, 1] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_threads_that_can_not_be_started():
    """Those that were started don't wait for the others, which would keep the process from ending."""
    program = (
        "import threading, torch; from teacher_logits.sampling.side_by_side import side_by_side\n"
        "start, started = threading.Thread.start, []\n"
        "def refuse(self):\n"
        "    started.append(self)\n"
        '    if len(started) > 1: raise RuntimeError("can\'t start new thread")\n'
        "    start(self)\n"
        "threading.Thread.start = refuse\n"
        "torch.set_num_threads(3)\n"
        "side_by_side([int] * 3)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and ended.stderr.splitlines()[-1] == "RuntimeError: can't start new thread"


def test_logits_that_want_a_gradient(two_threads: None):
    logits, key = torch.randn(200, 300, requires_grad=True), torch.arange(200)
    settings = SamplingSettings(0.98, 100, 24, 42, 300)
    with torch.no_grad():
        found = sample(logits, key, key, key, settings)
    assert (found.sampled_ids == sample(logits.detach(), key, key, key, settings).sampled_ids).all()
