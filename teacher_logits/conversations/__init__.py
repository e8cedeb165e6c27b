"""From the rows of a chat dataset to token ids with their assistant positions."""

from teacher_logits.conversations.chat import (
    ChatRenderer,
    ConversationDataset,
    RendererSpec,
    get_transform_fn,
    load_tokenizer,
    renderer_spec,
)
from teacher_logits.conversations.identity import tokenizer_sha256
from teacher_logits.conversations.masks import Unusable, marked_text
from teacher_logits.conversations.select import select_rows
from teacher_logits.conversations.source import Source, open_source, prepare_dataset

__all__ = [
    "ChatRenderer",
    "ConversationDataset",
    "RendererSpec",
    "Source",
    "Unusable",
    "get_transform_fn",
    "load_tokenizer",
    "marked_text",
    "open_source",
    "prepare_dataset",
    "renderer_spec",
    "select_rows",
    "tokenizer_sha256",
]
