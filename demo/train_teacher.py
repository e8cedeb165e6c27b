"""Train the demo's teacher: a tiny Llama that knows a few hundred short conversations, and nothing else.

A real teacher is a download of gigabytes. This one is made in half a minute on two CPU cores, without a network, so
that the whole way from conversations to a logits dataset can be walked at once. It learns its conversations almost by
heart, so that its next-token distributions have the shape of a real model's: most positions are nearly certain, some
are open between many tokens.

    python demo/train_teacher.py OUTPUT_FOLDER [--conversations FILE] [--steps N] [--seed N]

The folder is an ordinary model folder (config, safetensors, tokenizer, chat template) for `from_pretrained`. It also
holds `demo_teacher.json`, written last: where that file agrees with the conversations, the settings and this script,
the teacher is there already and nothing is done.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Imported where they are used: a second run that finds its teacher should not wait for torch.
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

MARKER = "demo_teacher.json"
VOCABULARY = 2048
CONTEXT = 512  # The least `max_position_embeddings`; longer conversations raise it.
BATCH = 16  # Conversations a step.
LEARNING_RATE = 6e-3  # At its peak, after the warm-up.

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# ChatML. The `generation` markers tell which tokens are the assistant's: its content and the token that ends its turn.
CHAT_TEMPLATE = r"""
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}
            {{- message['content'] + '<|im_end|>' }}
        {%- endgeneration %}
    {%- else %}
        {{- message['content'] + '<|im_end|>' }}
    {%- endif %}
    {{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
""".strip()

Conversation = list[dict[str, str]]  # Messages: {"role": ..., "content": ...}.


class DemoError(ValueError):
    """Something the user can put right; its text is one sentence that says how."""


def read_conversations(file: Path) -> list[Conversation]:
    """The column `messages` of a JSON Lines file, one conversation a line."""
    if not file.is_file():
        raise DemoError(f"There is no file {file}; pass a JSON Lines file of conversations with --conversations.")
    conversations = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            messages = json.loads(line)["messages"]
            conversations.append([{"role": m["role"], "content": m["content"]} for m in messages])
        except (ValueError, KeyError, TypeError) as error:
            raise DemoError(
                f'Line {number} of {file} is no conversation; expected {{"messages": [{{"role": ..., "content": ...}}]}}.'
            ) from error
    if not conversations:
        raise DemoError(f"{file} is empty; pass a file with at least one conversation.")
    return conversations


def train_tokenizer(conversations: list[Conversation]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `VOCABULARY` tokens, which therefore encodes any text; digits stand alone."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bytes_in_words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_in_words])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator((m[key] for c in conversations for m in c for key in ("role", "content")), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[TURN_START],
        chat_template=CHAT_TEMPLATE,
    )


def train_model(
    tokenizer: PreTrainedTokenizerFast, conversations: list[Conversation], steps: int, seed: int
) -> tuple[LlamaForCausalLM, float]:
    """The trained model, and its mean loss (nats a token, over every role) in the last tenth of the steps."""
    import torch
    from torch.nn.utils.rnn import pad_sequence
    from tqdm import tqdm
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)

    texts = [torch.tensor(tokenizer.apply_chat_template(c, return_dict=False)) for c in conversations]
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=320,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=max(CONTEXT, *(len(text) + 1 for text in texts)),
            tie_word_embeddings=True,
            initializer_range=0.05,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)

    order = random.Random(seed)
    batches: list[list[torch.Tensor]] = []
    losses = []
    progress = tqdm(range(steps), desc="Training the demo teacher", unit="step")
    for _ in progress:
        if not batches:  # A new epoch. Neighbours in length share a batch, so that little of it is padding.
            by_length = sorted(texts, key=lambda text: len(text) + order.uniform(-8, 8))
            batches = [by_length[i : i + BATCH] for i in range(0, len(by_length), BATCH)]
            order.shuffle(batches)
        batch = batches.pop()
        # Padding is on the right and attention looks to the left: it needs no mask, only labels that don't count.
        inputs = pad_sequence(batch, batch_first=True, padding_value=tokenizer.pad_token_id)
        labels = pad_sequence(batch, batch_first=True, padding_value=-100)
        loss = model(input_ids=inputs, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        progress.set_postfix(loss=f"{losses[-1]:.2f}")
    last = losses[-max(1, steps // 10) :]
    return model.eval(), sum(last) / len(last)


def make_teacher(folder: Path, file: Path, steps: int, seed: int) -> str:
    """Train a teacher into `folder`, unless it is there already; returns the sentence to tell the user."""
    began = time.perf_counter()
    if steps < 1:
        raise DemoError(f"--steps is {steps}; pass at least 1.")
    conversations = read_conversations(file)
    made_of = {"steps": steps, "seed": seed}
    for name, source in (("conversations_sha256", file), ("script_sha256", Path(__file__))):
        made_of[name] = hashlib.sha256(source.read_bytes()).hexdigest()

    marker = folder / MARKER
    if marker.is_file():
        if json.loads(marker.read_text(encoding="utf-8")).get("made_of") == made_of:
            return f"{folder} already holds this teacher."
        marker.unlink()
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DemoError(f"{folder} holds something other than a demo teacher; pass a new or empty folder.")

    tokenizer = train_tokenizer(conversations)
    model, loss = train_model(tokenizer, conversations, steps, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    marker.write_text(json.dumps({"made_of": made_of, "loss": loss}, indent=2) + "\n", encoding="utf-8")
    return (
        f"{folder} holds the teacher: {model.num_parameters():,} parameters, {len(tokenizer):,} tokens, "
        f"loss {loss:.2f} nats a token, made in {time.perf_counter() - began:.0f} s."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Train the demo's teacher: a tiny Llama on a few hundred conversations.")
    parser.add_argument("output_folder", type=Path, help="where to save the model and its tokenizer")
    parser.add_argument(
        "--conversations",
        type=Path,
        default=Path(__file__).with_name("conversations.jsonl"),
        help="JSON Lines file with a column `messages` (default: %(default)s)",
    )
    parser.add_argument("--steps", type=int, default=250, help="training steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the order (default: %(default)s)")
    options = parser.parse_args()
    try:
        print(make_teacher(options.output_folder, options.conversations, options.steps, options.seed))
    except DemoError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
