"""What notebooks print: the only module here that writes to the standard output."""

from typing import Any

from teacher_logits.exploring.analysis import as_sample, decode_top_tokens
from teacher_logits.exploring.conversation import conversation_text
from teacher_logits.exploring.decoding import Sample
from teacher_logits.exploring.page import ConversationView, conversation_view
from teacher_logits.exploring.text import sample_info_text, top_tokens_text


def print_sample_info(sample: Sample, tokenizer: Any = None) -> None:
    """Print what a sample holds; with a tokenizer also the beginning of its text."""
    print(sample_info_text(sample, tokenizer))


def print_top_tokens(sample: Sample, position: int, tokenizer: Any = None, k: int = 10) -> None:
    """Print the teacher's `k` most probable choices for one token as a table; see `decode_top_tokens`."""
    choices = decode_top_tokens(sample, position, tokenizer, k)
    entry = range(sample["num_tokens"])[position]
    size = sample["top_counts"][entry]
    print(top_tokens_text(choices, f"stored token {entry} of conversation {sample['index']}: nucleus of {size}"))


def visualize_conversation_probabilities(
    sample_or_dataset: Any,
    place: int | None = None,
    *,
    index: int | None = None,
    tokenizer: Any = None,
    html: bool = False,
    retokenize: bool = False,
) -> ConversationView | None:
    """Print a whole conversation, its stored tokens coloured by the probability the teacher gave them.

    sample_or_dataset: what `get_sample` gives, or a dataset with a place (by default 0) or an `index` in it.
    html: print nothing, and return `conversation_view`, which a notebook shows and `.save("page.html")` keeps.
    retokenize: where the dataset was written without its tokens, render the conversation again; see `retokenized`.
    Errors are those of `conversation_text`, or of `conversation_view`.
    """
    if html:
        return conversation_view(sample_or_dataset, place, index=index, tokenizer=tokenizer, retokenize=retokenize)
    print(conversation_text(as_sample(sample_or_dataset, place, index, retokenize), tokenizer))
    return None
