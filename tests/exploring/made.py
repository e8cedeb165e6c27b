"""A small logits dataset whose every number is known: tokenizer, conversations, logits, files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from teacher_logits.codec import Contents, encode_rows
from teacher_logits.files import write_json
from teacher_logits.records import Example, JoinedExamples, SparseDistribution
from teacher_logits.sampling import SamplingSettings, sample
from teacher_logits.shards import write_shard

VOCABULARY = 70_000
"""Beyond 16 bits, and far beyond the tokenizer."""
CAP, SAMPLED_N, TOP_P = 6, 8, 0.98
RUN = "0123abcd"
SMILE = "🙂"
TEXTS = {
    17: ("<|user|>Say something long.<|end|>", f"The answer is 42,\nand {SMILE} is a face. 日本語 too.<|end|>"),
    123: ("<|user|>Hello?<|end|>", "Hello there, and\x1b[31m goodbye.<|end|>"),
    5: ("<|user|>Short.<|end|>", f"Yes{SMILE}<|end|>"),
    9: ("<|user|>Nothing.<|end|>", "No.<|end|>"),
}
"""Prompt and answer of each conversation by its index, the longest first."""


IMPOSSIBLE = [
    ("logsumexp", 1e300),
    ("logsumexp", -1e300),
    ("logsumexp_t2", 1e38),
    ("logsumexp_t4", -1e38),
    ("top_min", -1e38),
    ("top_min", 1e38),
    ("sampled_min", -1e38),
    ("sampled_min", 1e38),
    ("sampled_max", 1e38),
]
"""Columns, and finite numbers that no entry has there."""


@dataclass(frozen=True)
class Made:
    """The dataset in `folder`, and what it was made of."""

    folder: Path
    tokenizer: Any
    examples: dict[int, Example]
    logits: dict[int, torch.Tensor]
    """[n, VOCABULARY] bfloat16 by index."""
    entries: dict[int, SparseDistribution]

    def probabilities(self, index: int) -> np.ndarray:
        """[n, VOCABULARY] the whole distributions, float64."""
        return torch.softmax(self.logits[index].double(), dim=1).numpy()

    def tokens(self, index: int) -> np.ndarray:
        """[n] ids of the stored tokens."""
        return self.examples[index].input_ids[self.examples[index].positions]


def made_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that has no emoji: those are four tokens each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|user|>", "<|assistant|>", "<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the answer is long and the face is there, hello goodbye something"] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def made_example(tokenizer: Any, index: int) -> Example:
    prompt, answer = (tokenizer(text)["input_ids"] for text in TEXTS[index])
    ids = [*prompt, tokenizer.convert_tokens_to_ids("<|assistant|>"), *answer]
    positions = np.arange(len(ids) - len(answer), len(ids), dtype=np.int32)
    return Example(index, np.array(ids, np.int32), positions)


def made_logits(example: Example) -> torch.Tensor:
    """[n, VOCABULARY] bfloat16, another at every position: a few tall tokens over noise.

    Every third entry has its own token as the second choice, the next third as the first one, and the last third
    leaves it in the noise.
    """
    generator = torch.Generator().manual_seed(example.index)
    own = torch.tensor(example.input_ids[example.positions], dtype=torch.int64)
    logits = torch.randn(len(own), VOCABULARY, generator=generator)
    for entry, token in enumerate(own.tolist()):
        tall = torch.randint(300, VOCABULARY, (2 + entry % 7,), generator=generator)
        logits[entry, tall] = 20.0 - torch.arange(len(tall)) / 2
        if entry % 3 < 2:
            logits[entry, token] = (19.75, 21.0)[entry % 3]
    return logits.bfloat16()


def drawn(example: Example, logits: torch.Tensor) -> SparseDistribution:
    """What the extraction keeps of the logits."""
    positions = torch.tensor(example.positions, dtype=torch.int64)
    tokens = torch.tensor(example.input_ids[example.positions], dtype=torch.int64)
    settings = SamplingSettings(TOP_P, CAP, SAMPLED_N, 42, VOCABULARY)
    return sample(logits, tokens, torch.full_like(positions, example.index), positions, settings)


def with_sampled_token(example: Example, entry: int, entries: SparseDistribution) -> Example:
    """The example with the first draw of `entry` as the token that stands there."""
    ids = example.input_ids.copy()
    ids[example.positions[entry]] = entries.sampled_ids[entry, 0]
    return Example(example.index, ids, example.positions)


def made_dataset(folder: Path, tokenizer_folder: Path, store_tokens: bool = True) -> Made:
    """Four conversations in two shards, with checkpoint.json, README.md and skipped.jsonl."""
    tokenizer = made_tokenizer()
    tokenizer.save_pretrained(tokenizer_folder)
    examples = {index: made_example(tokenizer, index) for index in TEXTS}
    logits = {index: made_logits(example) for index, example in examples.items()}
    # Nothing drawn depends on the token that stands there, so one may be chosen among the draws.
    examples[9] = with_sampled_token(examples[9], 2, drawn(examples[9], logits[9]))
    entries = {index: drawn(example, logits[index]) for index, example in examples.items()}
    write_files(folder, tokenizer_folder, [(examples[index], entries[index]) for index in TEXTS], store_tokens)
    return Made(folder, tokenizer, examples, logits, entries)


def write_files(
    folder: Path, model: Path, rows: Sequence[tuple[Example, SparseDistribution]], store_tokens: bool
) -> None:
    metadata = {"format_version": 1, "fingerprint": RUN * 8, "logits_dtype": "bfloat16", "model": "teacher"}
    (folder / "data").mkdir(parents=True)
    shards = {}
    for number, part in enumerate((rows[:2], rows[2:])):
        tables = [
            encode_rows(entries, JoinedExamples.of([example]), Contents(store_tokens)) for example, entries in part
        ]
        name = f"data/train-{RUN}-{number:05d}.parquet"
        write_shard(pa.concat_tables(tables), folder / name, metadata)
        shards[name] = {"rows": len(part), "tokens": sum(len(entries) for _, entries in part), "sha256": ""}
    checkpoint = {
        "format_version": 1,
        "fingerprint": RUN * 8,
        "complete": True,
        "total_samples": len(rows),
        "total_tokens": sum(len(entries) for _, entries in rows),
        "shards": shards,
        "config": {"model": str(model), "dataset": "somebody/chats", "top_p_max_elements": CAP},
        "metadata": metadata,
    }
    write_json(folder / "checkpoint.json", checkpoint)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
        f"    path: data/train-{RUN}-*.parquet\n---\n# Logits\n"
    )
    lines = ['{"index": 1, "reason": "too long"}', '{"index": 2, "reason": "empty"}', '{"index": 3, "reason": "empty"}']
    (folder / "skipped.jsonl").write_text("\n".join(lines) + '\n{"ind')
