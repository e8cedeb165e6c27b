"""Tiny teachers, tokenizers and chats, made in a second without a network.

    folder = save_teacher(tmp_path / "teacher", architecture="gemma2")     # an ordinary model folder
    write_jsonl(tmp_path / "chat.jsonl", question_rows(20))                # question, answer, subject

The models are random, but their output embeddings are scaled so that their distributions are peaked like those of
real ones: the nucleus holds a few tokens at some positions and many at others. Equal arguments give equal weights.
"""

import json
import random
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = (END_OF_TEXT, TURN_START, TURN_END)
"""Ids 0, 1 and 2 of the tokenizer."""
WIDTH = 400
"""Tokens of a tiny model unless told otherwise: a few more than its tokenizer has, as with most real models."""
CONTEXT = 512

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}"
    "{{ '\\n' }}{% endfor %}"  # a bare line end after a block tag is dropped
)
"""Marks the content of the assistant's turns and the token that ends them."""
UNMARKED = CHATML.replace("{% generation %}", "").replace("{% endgeneration %}", "")

CORPUS = (
    "What is the name of the river that runs through the town? It is the one with the old stone bridge.",
    "How many apples are left when three of them are given away? There are four apples left in the basket.",
    "Please explain why the sky looks blue. The short waves of the light are scattered more than the long ones.",
    "The answer is that the number of the days in a week is seven, and the number of the months is twelve.",
)

_COMMON = {"initializer_range": 0.4, "tie_word_embeddings": False, "max_position_embeddings": CONTEXT}
_SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
_SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2, **_COMMON}
_HEADS = {"head_dim": 8}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "llama": _SHAPE,
    "mistral": _SHAPE,
    "qwen2": _SHAPE,
    "qwen3": {**_SHAPE, **_HEADS},
    "gemma2": {**_SHAPE, **_HEADS, "final_logit_softcapping": 14.0, "sliding_window": 16},
    "gemma3_text": {**_SHAPE, **_HEADS, "final_logit_softcapping": 14.0, "sliding_window": 16},
    "cohere": {**_SHAPE, "logit_scale": 0.25},
    "granite": {**_SHAPE, "logits_scaling": 3.0, "residual_multiplier": 0.7, "embedding_multiplier": 1.5},
    "phi3": {**_SHAPE, "pad_token_id": 0},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, "tie_word_embeddings": False},
    "gpt_neox": {**_SHAPE, "hidden_dropout": 0.0},
    "mixtral": {**_SHAPE, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {**_SHAPE, **_EXPERTS, "shared_expert_intermediate_size": 16},
}
"""What `tiny_model` can make, by transformers' model type."""


@cache
def _trained() -> str:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(CORPUS, trainer)
    return bpe.to_str()


def tiny_tokenizer(template: str | None = CHATML, nfc: bool = False, **options: Any) -> PreTrainedTokenizerFast:
    """A byte-level BPE, which takes any text; with `nfc` it composes characters first, as some real ones do."""
    backend = Tokenizer.from_str(_trained())
    if nfc:
        backend.normalizer = normalizers.NFC()
    named = {"eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **(named | options))
    tokenizer.chat_template = template
    return tokenizer


def tiny_model(
    architecture: str = "llama", vocabulary: int = WIDTH, seed: int = 0, spread: float = 6.0, **overrides: Any
) -> PreTrainedModel:
    """A random float32 model whose logits have a standard deviation of about `spread`, soft-capping included."""
    shape = {**ARCHITECTURES[architecture], "vocab_size": vocabulary, "bos_token_id": None, **overrides}
    config = AutoConfig.for_model(architecture, **({"eos_token_id": 0} | shape))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
        ids = torch.randint(0, vocabulary, (2, 24))
    head = model.get_output_embeddings()
    with torch.inference_mode():
        for _ in range(4):  # more than one, because soft-capped logits don't grow with their weights
            head.weight.data *= spread / float(model(ids, use_cache=False).logits.std())
    return model


def save_teacher(
    folder: Path, architecture: str = "llama", template: str | None = CHATML, nfc: bool = False, **options: Any
) -> Path:
    """Write a tiny model and its tokenizer to `folder`, as `from_pretrained` takes them. options: of `tiny_model`.

    The generation config has the end of a turn as an end token, the model config the end of the text.
    """
    model = tiny_model(architecture, **options)
    model.generation_config = GenerationConfig(eos_token_id=[0, 2])
    model.save_pretrained(folder)
    tiny_tokenizer(template, nfc).save_pretrained(folder)
    return folder


def words(count: int, seed: int) -> str:
    """`count` words of the corpus, the same for equal arguments."""
    vocabulary = sorted({word.strip(".,?") for line in CORPUS for word in line.split()})
    return " ".join(random.Random(seed).choices(vocabulary, k=count))


def question_rows(count: int, longest: int = 20) -> list[dict[str, Any]]:
    """Rows of question, answer and subject whose answers have 1 to `longest` words, mixed."""
    return [
        {
            "question": words(3 + number % 5, seed=2 * number) + "?",
            "answer": words(1 + number * 7 % longest, seed=2 * number + 1) + ".",
            "subject": ("maths", "history", "art")[number % 3],
        }
        for number in range(count)
    ]


def messages(*contents: str, system: str | None = None) -> list[dict[str, Any]]:
    """A conversation of user and assistant in turn, after a system message where given."""
    turns = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(contents)]
    return ([] if system is None else [{"role": "system", "content": system}]) + turns


def message_rows(count: int, turns: int = 2) -> list[dict[str, Any]]:
    """Rows of `messages` with `turns` questions and answers each."""
    return [
        {"messages": messages(*(words(2 + (number + place) % 6, 100 * number + place) for place in range(2 * turns)))}
        for number in range(count)
    ]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows as JSON Lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
