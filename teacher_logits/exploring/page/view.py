"""The page as an object: shown by notebooks, saved as a file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import escape

from teacher_logits.exploring.analysis import as_sample
from teacher_logits.exploring.decoding import Sample
from teacher_logits.exploring.page.content import page_content
from teacher_logits.exploring.page.frame import framed, save_page

_HEIGHT = 760
"""Pixels of the frame in a notebook."""


@dataclass(frozen=True)
class ConversationView:
    """The token view of one conversation. A notebook shows it; `save` makes a file of it."""

    title: str
    page: str = field(repr=False)
    """The whole HTML page."""

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all, and return where it is. Raises OutputError: see `save_page`."""
        return save_page(path, self.page)

    def _repr_html_(self) -> str:
        """The page in a frame of its own, which can't touch the notebook, nor the notebook's style the page."""
        return (
            f'<iframe srcdoc="{escape(self.page)}" sandbox="allow-scripts" width="100%" height="{_HEIGHT}" '
            f'style="border: 0" title="{escape(self.title)}"></iframe>'
        )


def conversation_view(
    sample_or_dataset: Any,
    place: int | None = None,
    *,
    index: int | None = None,
    tokenizer: Any = None,
    retokenize: bool = False,
) -> ConversationView:
    """The token view of a conversation as one self-contained HTML page; see `conversation_page`.

    sample_or_dataset: what `get_sample` gives, or a dataset with a place (by default 0) or an `index` in it.
    retokenize: where the dataset was written without its tokens, render the conversation again; see `retokenized`.
    """
    content = page_content(as_sample(sample_or_dataset, place, index, retokenize), tokenizer)
    return ConversationView(content.title, framed("page.html.jinja", title=content.title, content=content))


def conversation_page(sample: Sample, tokenizer: Any = None) -> str:
    """One HTML page that shows what the teacher thought of every stored token of a conversation.

    It holds all it needs: it can be mailed, and opens without a network. Tokens are coloured by their probability;
    hovering, a tap or the arrow keys show a token's rank, its surprise, the entropy and the teacher's first choices.
    In a dataset without its tokens the first choices themselves are shown, one cell an entry.
    tokenizer: by default that of the run's model. Raises TeacherError where it can't be loaded.
    """
    return conversation_view(sample, tokenizer=tokenizer).page
