"""Teachers of a real one's shape with random weights, and chats whose tokens are half the assistant's."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from teacher_logits.teacher import Teacher

TEMPLATE = (
    "{% for message in messages %}<|im_start|>"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}{% endfor %}"
)
_SPREAD = 9.0
"""Standard deviation of the logits: about ten of them then hold 98 % of the probability."""


@dataclass(frozen=True)
class Shape:
    """What decides a transformer's cost."""

    hidden: int
    layers: int
    vocabulary: int
    heads: int
    intermediate: int

    def __str__(self) -> str:
        return f"hidden {self.hidden}, {self.layers} layers, vocabulary {self.vocabulary:,}"


HALF_BILLION = Shape(896, 24, 151_936, 14, 4864)
SMALL = (Shape(256, 6, 6_144, 4, 768), Shape(512, 8, 32_000, 8, 1536))
TINY = Shape(32, 1, 320, 2, 64)


def made_model(shape: Shape, dtype: torch.dtype) -> Qwen3ForCausalLM:
    """A Qwen3 with random weights and peaked logits."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=2,
        head_dim=shape.hidden // shape.heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    model = Qwen3ForCausalLM(config).to(dtype).eval()
    with torch.no_grad():
        # The hidden states have the length sqrt(hidden) before this factor, and the embeddings a spread of 0.02.
        model.model.norm.weight.fill_(_SPREAD / (shape.hidden**0.5 * 0.02))
    return model


def made_teacher(shape: Shape, dtype: torch.dtype, device: str = "cpu") -> Teacher:
    """The model as extraction sees it."""
    place, width = torch.device(device), shape.vocabulary
    return Teacher(made_model(shape, dtype).to(place), place, dtype, width, width, dtype, by_hook=False)


def save_teacher(folder: Path, shape: Shape, dtype: torch.dtype) -> Path:
    """A model folder: weights, a tokenizer of single bytes, a chat template that marks the assistant's tokens."""
    made_model(shape, dtype).save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return folder


def write_chats(file: Path, conversations: int, tokens: int) -> Path:
    """Conversations of about so many tokens, half of them the assistant's, in a JSON Lines file."""
    with file.open("w") as lines:
        for question, answer in _pairs(conversations, tokens):
            lines.write(json.dumps({"question": question, "answer": answer}) + "\n")
    return file


def _pairs(conversations: int, tokens: int) -> Iterator[tuple[str, str]]:
    generator = random.Random(0)
    for _ in range(conversations):
        half = max(1, round(tokens / 2 * generator.uniform(0.8, 1.2)) - 2)
        yield tuple("".join(generator.choices("abcdefgh ", k=half)) for _ in range(2))  # type: ignore[misc]
