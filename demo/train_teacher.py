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
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Imported where they are used: a second run that finds its teacher should not wait for torch.
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 2048
CONTEXT = 512  # The least `max_position_embeddings`; longer conversations raise it.
SHAPE = {"hidden_size": 192, "intermediate_size": 384, "num_hidden_layers": 2, "tie_word_embeddings": True}
SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2}
INITIAL_SPREAD = 0.1  # Five times the usual: small weights would need more steps to grow.
BATCH = 16  # Conversations a step.
LEARNING_RATE = 4e-3  # At its peak, after the warm-up.
SHARPNESS = 1.7  # So short a training leaves the model too modest: its logits times this fit what it has read better.

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# ChatML. The `generation` markers tell which tokens are the assistant's: its content and the token that ends its turn.
CHAT_TEMPLATE = r"""
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}
    {%- else %}
        {{- message['content'] + '<|im_end|>' }}
    {%- endif %}
    {{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
""".strip()

Conversation = list[dict[str, str]]  # Messages: {"role": ..., "content": ...}.


class DemoError(ValueError):
    """Something the user can put right; the message is one sentence that says how."""


def read_conversations(file: Path) -> list[Conversation]:
    """The column `messages` of a JSON Lines file, one conversation a line."""
    if not file.is_file():
        raise DemoError(f"There is no file {file}; pass a JSON Lines file of conversations with --conversations.")
    conversations = []
    for number, line in enumerate(file.read_bytes().rstrip().split(b"\n"), start=1):
        try:
            messages = [{"role": m["role"], "content": m["content"]} for m in json.loads(line)["messages"]]
            strings = all(isinstance(value, str) for m in messages for value in m.values())
            if not strings or "assistant" not in [m["role"] for m in messages]:
                raise ValueError
        except (ValueError, KeyError, TypeError) as error:
            raise DemoError(
                f'Line {number} of {file} is no conversation; expected {{"messages": [{{"role": ..., "content": ...}}, '
                "...]}, each content a string and at least one message by the assistant."
            ) from error
        conversations.append(messages)
    return conversations


def train_tokenizer(conversations: list[Conversation]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `VOCABULARY` tokens, which therefore encodes any text; digits stand alone."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bytes_in_words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_in_words])
    bpe.decoder = decoders.ByteLevel()
    specials, alphabet = [END_OF_TEXT, TURN_START, TURN_END], sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator((m[key] for c in conversations for m in c for key in ("role", "content")), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=TURN_END, pad_token=END_OF_TEXT, chat_template=CHAT_TEMPLATE
    )


def train_model(
    tokenizer: PreTrainedTokenizerFast, conversations: list[Conversation], steps: int, seed: int
) -> LlamaForCausalLM:
    """A model trained from nothing on the assistant's tokens; the same arguments give the same weights."""
    import torch
    from torch.nn.utils.rnn import pad_sequence
    from transformers import LlamaConfig, LlamaForCausalLM

    from teacher_logits.progress import progress

    torch.set_num_threads(2)  # More don't help matrices this small, and a fixed number adds up in a fixed order.
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)

    examples = []  # Pairs of token ids and labels; -100 is what the loss leaves out.
    for conversation in conversations:
        encoded = tokenizer.apply_chat_template(conversation, return_assistant_tokens_mask=True, return_dict=True)
        ids = torch.tensor(encoded["input_ids"])
        examples.append((ids, ids.where(torch.tensor(encoded["assistant_masks"]) == 1, -100)))

    padding = tokenizer.pad_token_id
    special_ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": padding}
    context = max(CONTEXT, *(len(ids) + 1 for ids, _ in examples))
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": context, "initializer_range": INITIAL_SPREAD}
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, **sizes, **special_ids)).train()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1, anneal_strategy="linear", cycle_momentum=False
    )

    order = random.Random(seed)
    batches: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
    with progress("training the demo teacher", steps, "steps") as bar:
        for _ in range(steps):
            if not batches:  # A new epoch. Neighbours in length share a batch, so that little of it is padding.
                by_length = sorted(examples, key=lambda example: len(example[0]) + order.uniform(-8, 8))
                batches = [by_length[i : i + BATCH] for i in range(0, len(by_length), BATCH)]
                order.shuffle(batches)
            ids, labels = zip(*batches.pop(), strict=True)
            # Padding is on the right and attention looks to the left, so it needs no mask.
            ids = pad_sequence(ids, batch_first=True, padding_value=padding)
            labels = pad_sequence(labels, batch_first=True, padding_value=-100)
            loss = model(input_ids=ids, labels=labels, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            bar.advance(note=f"loss {loss.item():.2f}")

    model.model.norm.weight.data *= SHARPNESS  # The output layer is linear, so this scales the logits.
    return model.eval()


def make_teacher(folder: Path, file: Path, steps: int, seed: int) -> str:
    """Train a teacher into `folder`, unless it is there already; returns the sentence to tell the user."""
    began = time.perf_counter()
    if steps < 1:
        raise DemoError(f"--steps is {steps}; pass at least 1.")
    conversations = read_conversations(file)
    made_of: dict[str, int | str] = {"steps": steps, "seed": seed}
    for name, source in (("conversations_sha256", file), ("script_sha256", Path(__file__))):
        made_of[name] = hashlib.sha256(source.read_bytes()).hexdigest()
    marker, mark = folder / "demo_teacher.json", json.dumps(made_of, indent=2) + "\n"

    if marker.is_file():
        if marker.read_text(encoding="utf-8") == mark:
            return f"{folder} already holds this teacher."
        marker.unlink()
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DemoError(f"{folder} holds something other than a demo teacher; pass a new or empty folder.")
    folder.mkdir(parents=True, exist_ok=True)

    from transformers.utils.logging import disable_progress_bar

    tokenizer = train_tokenizer(conversations)
    model = train_model(tokenizer, conversations, steps, seed)
    disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    marker.write_text(mark, encoding="utf-8")
    parameters, seconds = model.num_parameters(), time.perf_counter() - began
    return f"{folder} holds the teacher: {parameters:,} parameters, {len(tokenizer):,} tokens, made in {seconds:.0f} s."


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo's teacher, a tiny Llama.")
    default = Path(__file__).with_name("conversations.jsonl")
    parser.add_argument("output_folder", type=Path, help="where to save the model and its tokenizer")
    parser.add_argument("--conversations", type=Path, default=default, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=210, metavar="N", help="of training, default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    options = parser.parse_args()
    try:
        print(make_teacher(options.output_folder, options.conversations, options.steps, options.seed))
    except (DemoError, OSError) as error:
        parser.exit(2, f"Error: {error}\n")


if __name__ == "__main__":
    main()
