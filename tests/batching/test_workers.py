"""Counting in worker processes: when it begins, that it gives the same, and how it ends when something breaks."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import NormalizedString, PreTokenizedString
from tokenizers.pre_tokenizers import PreTokenizer

from teacher_logits.batching import LengthTable, count_lengths, lengths
from teacher_logits.conversations import ChatRenderer, RendererSpec, Unusable, tokenizer_sha256
from teacher_logits.conversations.thoughts import THINK
from teacher_logits.errors import TeacherLogitsError
from teacher_logits.records import Conversation, Example
from tests.tiny import CHATML, messages, tiny_tokenizer

TOOLS = [{"name": "look_up", "parameters": {"word": "string"}}]
CHATS: list[Conversation | Unusable] = [
    Conversation(10, messages("What is it?", "the answer")),
    Unusable("known before"),
    Conversation(12, messages("", "é 日本 🙂\x00\u2028", "why", "<think>hm</think>so", system="Be kind.")),
    Conversation(13, messages("nobody answers")),
    Conversation(14, messages("a\ufdd0b", "noncharacters")),
    Conversation(15, messages("<|im_end|>", "b<|im_end|>c"), TOOLS),
    Conversation(16, [{"role": "user", "content": None, "name": "x"}, {"role": "assistant", "content": "b " * 300}]),
    Conversation(17, [{"role": "assistant"}]),
]


class Chats:
    """A source without a dataset."""

    def __init__(self, chats: list[Any] = CHATS) -> None:
        self.chats = chats

    def conversations(self, rows: Iterable[int]) -> Iterator[Any]:
        return (self.chats[row] for row in rows)


class DiesOnArrival:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (3,)


class TakesHours:
    """Keeps the process that unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return time.sleep, (10_000,)


class InPython:
    """A pre-tokenizer that can't be pickled."""

    def pre_tokenize(self, text: PreTokenizedString) -> None:
        text.split(lambda _, whole: self.halves(whole))

    def halves(self, whole: NormalizedString) -> list[NormalizedString]:
        return whole.split(" ", "isolated")


def counted(spec: RendererSpec, processes: int | None, chats: list[Any] = CHATS) -> LengthTable:
    return count_lengths(Chats(chats), np.arange(len(chats)), spec.build(), processes)  # type: ignore[arg-type]


def plain(table: LengthTable) -> tuple[list[int], list[int], dict[int, str]]:
    return table.lengths.tolist(), table.assistant_lengths.tolist(), table.reasons


def no_workers(*_: Any) -> None:
    pytest.fail("worker processes were started")


@pytest.fixture(scope="module")
def spec(tiny_teacher: Path) -> RendererSpec:
    return RendererSpec(str(tiny_teacher), None, False, CHATML, None, think_tags=(THINK,), end_ids=(2,))


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """More chunks than may be under way at a time; worker processes pay at once where there are cores."""
    monkeypatch.setattr(lengths, "CHUNK", 1)
    monkeypatch.setattr(lengths, "TRIAL_SECONDS", 0)
    monkeypatch.setattr(lengths, "WORTH_SECONDS", 0)
    monkeypatch.setattr(lengths, "_cores", lambda: 2)


@pytest.mark.usefixtures("one_by_one")
class TestSameResult:
    @pytest.mark.parametrize("processes", [2, None])
    def test_as_in_one_process(self, processes: int | None, spec: RendererSpec) -> None:
        before = dict(os.environ)
        here, there = counted(spec, 0), counted(spec, processes)
        assert plain(there) == plain(here)
        assert (here.workers, there.workers) == (0, 2)
        assert set(there.reasons) == {1, 3, 4, 7} and there.reasons[1] == "known before"
        assert dict(os.environ) == before

    def test_as_conversation_by_conversation(self, spec: RendererSpec) -> None:
        renderer = spec.build()
        table = counted(spec, None)
        for place, chat in enumerate(CHATS):
            (alone,) = renderer.render([chat])
            if isinstance(alone, Unusable):
                assert table.reasons[place] == str(alone)
                assert table.lengths[place] == table.assistant_lengths[place] == 0
            else:
                assert table.lengths[place] == len(alone.input_ids)
                assert table.assistant_lengths[place] == len(alone.positions)


class TestWhenTheyStart:
    def test_not_for_little_work(self, spec: RendererSpec, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lengths, "_in_workers", no_workers)
        monkeypatch.setattr(lengths, "_cores", lambda: 64)
        assert counted(spec, None).workers == 0

    @pytest.mark.usefixtures("one_by_one")
    @pytest.mark.parametrize("asked", [None, 0, 1])
    def test_not_on_one_core_nor_where_none_are_wanted(
        self, asked: int | None, spec: RendererSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lengths, "_in_workers", no_workers)
        monkeypatch.setattr(lengths, "_cores", lambda: 1 if asked is None else 64)
        assert counted(spec, asked).workers == 0

    @pytest.mark.parametrize(
        ("seconds", "done", "total", "pay"),
        [
            (1.0, 1000, 1_000_000, True),
            (1.0, 1000, 6000, False),  # 5 s are left
            (1.0, 1000, 6300, True),
            (0.4, 1, 1_000_000, False),  # too early to say
            (100.0, 1000, 1256, False),  # one chunk is left, which only one worker could take
            (100.0, 1000, 1257, True),
            (100.0, 1000, 1000, False),
        ],
    )
    def test_by_the_time_that_is_left(
        self, seconds: float, done: int, total: int, pay: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lengths, "_cores", lambda: 2)
        assert lengths._workers_pay(seconds, done, total) is pay

    @pytest.mark.usefixtures("one_by_one")
    @pytest.mark.parametrize(("cores", "count", "workers"), [(4, 40, 4), (64, 40, 32), (64, 6, 5)])
    def test_one_a_core_within_reason(
        self, cores: int, count: int, workers: int, spec: RendererSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        renderer = spec.build()
        monkeypatch.setattr(lengths, "_cores", lambda: cores)
        monkeypatch.setattr(lengths, "_in_workers", lambda _, chunks, __: (lengths._count(renderer, c) for c in chunks))
        table = counted(spec, None, CHATS[:1] * count)
        assert table.workers == workers
        assert len(set(table.lengths.tolist())) == 1

    def test_cores_are_those_this_process_may_use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
        assert lengths._cores() == 3
        monkeypatch.delattr("os.sched_getaffinity")
        monkeypatch.setattr("os.cpu_count", lambda: None)
        assert lengths._cores() == 1


@pytest.mark.usefixtures("one_by_one")
class TestFailures:
    @pytest.mark.parametrize("processes", [0, 2])
    def test_of_counting_reaches_the_caller(self, processes: int, spec: RendererSpec) -> None:
        with pytest.raises(TypeError, match="not iterable"):
            counted(spec, processes, [*CHATS[:4], Conversation(0, 5), *CHATS])  # type: ignore[arg-type]

    def test_of_reading_reaches_the_caller(self, spec: RendererSpec) -> None:
        class Broken(Chats):
            def conversations(self, rows: Iterable[int]) -> Iterator[Any]:
                if 5 in rows:
                    raise OSError("the disk is gone")
                return super().conversations(rows)

        with pytest.raises(OSError, match="the disk is gone"):
            count_lengths(Broken(), np.arange(8), spec.build(), 2)  # type: ignore[arg-type]

    def test_do_not_wait_for_what_is_counted(self, spec: RendererSpec) -> None:
        class Broken(Chats):
            def conversations(self, rows: Iterable[int]) -> Iterator[Any]:
                if 3 in rows:
                    raise OSError("the disk is gone")
                return iter([Conversation(0, [{"role": TakesHours()}])])

        with pytest.raises(OSError, match="the disk is gone"):
            count_lengths(Broken(), np.arange(8), spec.build(), 2)  # type: ignore[arg-type]
        assert not multiprocessing.active_children()

    def test_of_a_whole_process(self, spec: RendererSpec) -> None:
        with pytest.raises(TeacherLogitsError, match=r"worker process .* died.*--processes 0"):
            counted(spec, 2, [*CHATS, Conversation(0, [{"role": DiesOnArrival()}]), *CHATS])

    @pytest.mark.skipif(os.name != "posix", reason="kills")
    @pytest.mark.parametrize(
        ("row", "number"), [(100, signal.SIGKILL), (100, signal.SIGINT), (1, signal.SIGINT)], ids=str
    )
    def test_nothing_outlives_a_parent_that_is_killed(
        self, row: int, number: int, spec: RendererSpec, tmp_path: Path
    ) -> None:
        """Neither workers, nor their file, nor a traceback of theirs: while they count, or (row 1) come to life."""
        program = (
            "import multiprocessing, signal, sys, time\n"
            "import numpy as np\n"
            "from teacher_logits.batching import lengths\n"
            "from teacher_logits.conversations import RendererSpec\n"
            "from tests.batching.test_workers import CHATS\n"
            "class Endless:\n"
            "    def conversations(self, rows):\n"
            f"        if rows[0] == {row}:\n"
            "            print(*(child.pid for child in multiprocessing.active_children()), flush=True)\n"
            "            time.sleep(100)\n"
            "        return [CHATS[0]]\n"
            "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
            "lengths.CHUNK = 1\n"
            f"lengths.count_lengths(Endless(), np.arange(1000), {spec}.build(), 2)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(tmp_path)},
            start_new_session=True,
        ) as parent:
            assert parent.stdout is not None and parent.stderr is not None
            workers = [int(pid) for pid in parent.stdout.readline().split()]
            if number == signal.SIGINT:
                os.killpg(parent.pid, number)  # as a terminal does
            else:
                parent.send_signal(number)
            said = parent.stderr.read()  # until the last of them has ended
        assert len(workers) == (2 if row > 1 else 1) and "Traceback" not in said and "leaked" not in said, said
        assert not any(map(runs, workers))
        assert not list(tmp_path.glob("*/renderer"))


def runs(pid: int) -> bool:
    """Whether it is a living process; one that only waits for its parent to ask how it ended isn't."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def unpacked(packed: bytes) -> Any:
    return pickle.loads(packed)  # noqa: S301 (packed by the test)


class TestWhatAWorkerGets:
    def test_the_renderer_itself(self, spec: RendererSpec) -> None:
        renderer = spec.build()
        copy = unpacked(lengths._packed(renderer))
        assert isinstance(copy, ChatRenderer)
        assert tokenizer_sha256(copy.tokenizer) == tokenizer_sha256(renderer.tokenizer)
        for one, other in zip(renderer.render(CHATS), copy.render(CHATS), strict=True):
            if isinstance(one, Example) and isinstance(other, Example):
                assert one.input_ids.tolist() == other.input_ids.tolist()
                assert one.positions.tolist() == other.positions.tolist()
            else:
                assert isinstance(one, Unusable) and str(one) == str(other)

    def test_the_spec_where_the_tokenizer_is_a_program(self, tiny_teacher: Path) -> None:
        spec = RendererSpec(str(tiny_teacher), None, True, CHATML, None)
        assert unpacked(lengths._packed(ChatRenderer(spec, tiny_tokenizer()))) == spec

    def test_the_spec_where_the_tokenizer_can_not_be_copied(self, spec: RendererSpec) -> None:
        tokenizer = tiny_tokenizer()
        tokenizer.backend_tokenizer.pre_tokenizer = PreTokenizer.custom(InPython())
        assert unpacked(lengths._packed(ChatRenderer(spec, tokenizer))) == spec
