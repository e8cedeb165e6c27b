"""What extraction adds to the teacher's forward pass.

    python benchmarks/overhead.py [--tokens 512] [--repeats 5] [--threads 1]

Three ways over the same batch, of which the later half of each conversation is the assistant's: the bare forward pass
with the logits of every position; the masked one, whose head sees the assistant's positions alone; and the masked one
with all that extraction keeps of the logits. They take turns. Models have random weights and peaked logits.
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterator

import torch
import tyro
from measuring import machine_line, print_table, seconds_in_turn, spread
from models import HALF_BILLION, SMALL, Shape, made_teacher
from sampling import settings_for
from torch import Tensor

from teacher_logits.sampling import sample
from teacher_logits.teacher import Teacher

HEADER = (
    "model",
    "type",
    "mean nucleus",
    "bare forward, µs an assistant token (fastest-slowest)",
    "masked",
    "masked + extraction",
    "masked over bare",
    "masked + extraction over bare",
    "over masked",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure what extraction adds to the forward pass."""

    tokens: int = 512
    """Tokens of a batch; a conversation has 128."""
    repeats: int = 5
    """Of each measurement."""
    threads: int = 1
    """Threads of torch."""


def batch_of(tokens: int, vocabulary: int, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention mask and the positions to predict from, [B, 128] each: half of them are the assistant's."""
    ids = torch.randint(vocabulary, (max(1, tokens // 128), 128), generator=torch.Generator().manual_seed(0))
    predicts = torch.zeros(ids.shape, dtype=torch.bool)
    predicts[:, 63:-1] = True
    return ids.to(device), torch.ones_like(ids).to(device), predicts.to(device)


def ways(teacher: Teacher, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Callable[[], object]]:
    """The three ways, by name."""
    ids, attention, predicts = batch
    settings = settings_for(teacher.vocab_used)
    token = ids[:, 1:][predicts[:, :-1]]
    key = torch.arange(len(token), device=ids.device)

    def bare() -> None:
        with torch.inference_mode():
            teacher.model(ids, attention_mask=attention, use_cache=False)

    def masked() -> None:
        for _ in teacher.logits(ids, attention, predicts):
            pass

    def extracted() -> None:
        first = 0
        for logits in teacher.logits(ids, attention, predicts):
            part = slice(first, first := first + len(logits))
            sample(logits, token[part], key[part], key[part], settings)

    return {"bare": bare, "masked": masked, "extracted": extracted}


def mean_nucleus(teacher: Teacher, batch: tuple[Tensor, Tensor, Tensor]) -> float:
    """Of the first piece of the batch."""
    logits = next(iter(teacher.logits(*batch)))
    key = torch.arange(len(logits), device=logits.device)
    return float(sample(logits, key, key, key, settings_for(teacher.vocab_used)).top_counts.mean())


def row(name: str, dtype: torch.dtype, nucleus: float, taken: dict[str, list[float]], tokens: int) -> list[object]:
    """A line of the table. taken: sorted durations of each way over so many assistant tokens."""
    each = {way: [duration / tokens * 1e6 for duration in durations] for way, durations in taken.items()}
    bare, masked, extracted = (statistics.median(each[way]) for way in ("bare", "masked", "extracted"))
    return [
        name,
        str(dtype).removeprefix("torch."),
        f"{nucleus:.1f}",
        *(spread(each[way]) for way in ("bare", "masked", "extracted")),
        f"{masked / bare:.3f}",
        f"{extracted / bare:.3f}",
        f"{extracted / masked:.3f}",
    ]


def main() -> None:
    """Print the table."""
    options = tyro.cli(Options, prog="overhead.py")
    torch.set_num_threads(options.threads)
    print(machine_line("torch", "transformers"))
    print(f"batches of {options.tokens} tokens, median of {options.repeats}, threads: {options.threads}\n")
    print_table(HEADER, _rows(options))


def _rows(options: Options) -> Iterator[list[object]]:
    cases: list[tuple[Shape, torch.dtype]] = [(HALF_BILLION, torch.bfloat16)]
    cases += [(shape, dtype) for shape in SMALL for dtype in (torch.bfloat16, torch.float32)]
    for shape, dtype in cases:
        teacher, batch = made_teacher(shape, dtype), batch_of(options.tokens, shape.vocabulary)
        taken = seconds_in_turn(ways(teacher, batch), options.repeats)
        yield row(str(shape), dtype, mean_nucleus(teacher, batch), taken, int(batch[2].sum()))


if __name__ == "__main__":
    main()
