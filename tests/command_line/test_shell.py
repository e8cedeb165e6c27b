"""What the commands set up before anything heavy is imported."""

import os
import subprocess
import sys

import pytest

from teacher_logits.command_line.shell import share_cores

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize(
    ("given", "spin"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_what_the_user_has_set_stays(given: dict[str, str], spin: str | None, monkeypatch: pytest.MonkeyPatch):
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that what was there before comes back, whatever happens to it here
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    share_cores()
    assert os.environ.get("GOMP_SPINCOUNT") == spin


def test_threads_are_told_before_torch_is_there():
    """OpenMP reads the variable when it is loaded."""
    program = (
        "import os, sys; from teacher_logits.command_line import extract;"
        "extract.share_cores(); assert 'torch' not in sys.modules; import torch;"
        "print(os.environ['GOMP_SPINCOUNT'])"
    )
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    told = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=True)
    assert told.stdout == "3000\n"
