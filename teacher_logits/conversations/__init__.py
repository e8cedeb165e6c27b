"""From the rows of a chat dataset to token ids with their assistant positions."""

from teacher_logits.conversations.chat import (
    ChatRenderer,
    ConversationDataset,
    RendererSpec,
    get_transform_fn,
    load_tokenizer,
    renderer_spec,
)
from teacher_logits.conversations.choosing import choose_mask, log_mask_method
from teacher_logits.conversations.identity import tokenizer_sha256
from teacher_logits.conversations.looking import MARKED, TEMPLATE, MarkedConversation
from teacher_logits.conversations.masks import Unusable
from teacher_logits.conversations.metadata import rendering_metadata, source_metadata
from teacher_logits.conversations.select import select_rows
from teacher_logits.conversations.source import Source, open_source, prepare_dataset
from teacher_logits.conversations.thoughts import tags_named

__all__ = [
    "MARKED",
    "TEMPLATE",
    "ChatRenderer",
    "ConversationDataset",
    "MarkedConversation",
    "RendererSpec",
    "Source",
    "Unusable",
    "choose_mask",
    "get_transform_fn",
    "load_tokenizer",
    "log_mask_method",
    "open_source",
    "prepare_dataset",
    "renderer_spec",
    "rendering_metadata",
    "select_rows",
    "source_metadata",
    "tags_named",
    "tokenizer_sha256",
]
