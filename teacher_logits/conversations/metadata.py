"""What a run's metadata says of the conversations that are read, and of how they become tokens."""

from typing import TYPE_CHECKING, Any

from teacher_logits.conversations.chat import RendererSpec
from teacher_logits.conversations.identity import text_sha256, tokenizer_sha256
from teacher_logits.conversations.source import Source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def source_metadata(source: Source) -> dict[str, Any]:
    """Which conversations, of which columns."""
    return {
        "system_prompt": source.system_prompt,
        "source": source.name,
        "source_revision": source.revision,
        "source_content": source.content,
        "source_split": source.split,
        "source_columns": source.columns.names() | ({"index": source.index_column} if source.index_column else {}),
    }


def rendering_metadata(spec: RendererSpec, tokenizer: "PreTrainedTokenizerFast") -> dict[str, Any]:
    """How they are rendered, and which tokens are the assistant's."""
    return {
        "tokenizer_length": len(tokenizer),
        "tokenizer_sha256": tokenizer_sha256(tokenizer),
        "chat_template": spec.template,
        "chat_template_sha256": text_sha256(spec.template),
        "pinned_date": spec.pinned_date,
        "mask_method": spec.mask_method,
    }
