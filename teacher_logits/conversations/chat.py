"""Conversations to token ids through the tokenizer's chat template."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from teacher_logits.conversations.fitting import has_calls, wanted_arguments, wants_parts, with_arguments, with_parts
from teacher_logits.conversations.masks import (
    NO_ASSISTANT_TOKENS,
    Unusable,
    bracketed,
    marked_text,
    marked_tokens,
    require_marks,
    spans_in_brackets,
    think_spans,
)
from teacher_logits.conversations.source import Source
from teacher_logits.errors import ChatTemplateError, TeacherError
from teacher_logits.records import Conversation, Example, Int64
from teacher_logits.settings import ExtractionConfig, SourceOptions

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerFast

MASK_METHOD = "template"
"""How assistant tokens are found: by the template's own markers."""

_TEMPLATE_FAILURES = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""What a template can raise for a conversation, besides Jinja's own errors: it is a program."""


@dataclass(frozen=True)
class RendererSpec:
    """All that decides how a conversation becomes tokens, in a form that travels to worker processes."""

    model: str
    revision: str | None
    trust_remote_code: bool
    template: str
    pinned_date: str | None
    """ISO date that a template which prints the day's date is given, so that a run over midnight stays the same."""
    exclude_think_tokens: bool = False
    end_ids: tuple[int, ...] = ()
    """Ids of end tokens to leave out."""
    turns: Literal["all", "last"] = "all"
    """Which of the assistant's turns are marked."""

    def build(self) -> "ChatRenderer":
        """Load the tokenizer and make the renderer."""
        return ChatRenderer(self, load_tokenizer(self.model, self.revision, self.trust_remote_code))


class ChatRenderer:
    """Turns conversations into `Example`s. Can be pickled where the tokenizer can."""

    def __init__(self, spec: RendererSpec, tokenizer: "PreTrainedTokenizerFast") -> None:
        self.spec, self.tokenizer = spec, tokenizer
        require_marks(spec.template)
        self._bracketed = bracketed(spec.template)
        self._named_tokens = dict(tokenizer.special_tokens_map)  # the property makes it anew each time
        for template in (spec.template, self._bracketed):
            _compile(template)

    def __reduce__(self) -> tuple[type["ChatRenderer"], tuple[RendererSpec, Any]]:
        return ChatRenderer, (self.spec, self.tokenizer)

    def render(self, conversations: Iterable[Conversation | Unusable]) -> list[Example | Unusable]:
        """The examples of some conversations, in their order; in place of one that can't be used, the reason."""
        results: list[Example | Unusable] = []
        places: list[int] = []
        rendered: list[tuple[Conversation, str, list[tuple[int, int]]]] = []
        for place, conversation in enumerate(conversations):
            try:
                if isinstance(conversation, Unusable):
                    raise conversation
                rendered.append((conversation, *self._text_and_spans(conversation)))
                places.append(place)
                results.append(Unusable())
            except Unusable as reason:
                results.append(reason)
        if not rendered:
            return results
        encoded = self._encode([text for _, text, _ in rendered])
        for place, (conversation, text, spans), ids, encoding in zip(
            places, rendered, encoded["input_ids"], encoded.encodings, strict=True
        ):
            try:
                results[place] = self._example(conversation, text, spans, ids, _characters(encoding))
            except Unusable as reason:
                results[place] = reason
        return results

    def show(self, conversation: Conversation, start: str = "[[", end: str = "]]") -> str:
        """The conversation as the teacher sees it, its assistant tokens between `start` and `end`."""
        text, _ = self._text_and_spans(conversation)
        (example,) = self.render([conversation])
        if isinstance(example, Unusable):
            raise example
        offsets = _characters(self._encode([text]).encodings[0])
        marked = np.zeros(len(offsets), np.bool_)
        marked[example.positions] = True
        # The text between two tokens belongs to the one before it; bytes of one character, to the last of them.
        begins = np.append(offsets[1:, 0], len(text))
        pieces = [text[max(first, 0) : max(first, past)] for first, past in zip(offsets[:, 0], begins, strict=True)]
        return marked_text(pieces, marked, start, end)

    def _text_and_spans(self, conversation: Conversation) -> tuple[str, list[tuple[int, int]]]:
        """The rendered text and the character spans of the assistant's turns that count."""
        text, spans = self._all_spans(conversation)
        if self.spec.turns == "last":
            spans = spans[len(self._spans_before_last(conversation)) :]
        return text, spans

    def _spans_before_last(self, conversation: Conversation) -> list[tuple[int, int]]:
        """The spans of all turns of the assistant but the last: those of the conversation that ends before it."""
        roles = [message.get("role") for message in conversation.messages]
        last = max((place for place, role in enumerate(roles) if role == "assistant"), default=0)
        if "assistant" not in roles[:last]:
            return []
        return self._all_spans(replace(conversation, messages=conversation.messages[:last]))[1]

    def _all_spans(self, conversation: Conversation) -> tuple[str, list[tuple[int, int]]]:
        """The rendered text and the character spans that the template marks as the assistant's."""
        messages = [{k: v for k, v in message.items() if v is not None} for message in conversation.messages]
        if self._wants_parts:
            messages = with_parts(messages)
        if has_calls(messages) and self._wanted_arguments is not None:
            messages = with_arguments(messages, self._wanted_arguments)
        text = self._rendered(self.spec.template, messages, conversation.tools)
        return text, spans_in_brackets(self._rendered(self._bracketed, messages, conversation.tools), text)

    @cached_property
    def _wants_parts(self) -> bool:
        return wants_parts(lambda messages: self._rendered(self.spec.template, messages, None))

    @cached_property
    def _wanted_arguments(self) -> type | None:
        return wanted_arguments(lambda messages: self._rendered(self.spec.template, messages, None))

    def _rendered(self, template: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        render, failures = _jinja()
        if self.spec.pinned_date is not None:
            # Each time, since transformers keeps compiled templates and another renderer may have another date.
            _pin_date(template, date.fromisoformat(self.spec.pinned_date))
        try:
            texts, _ = render(conversations=[messages], tools=tools, chat_template=template, **self._named_tokens)
        except failures as error:
            raise Unusable(f"the chat template refuses it: {str(error) or type(error).__name__}") from error
        return texts[0]

    def _encode(self, texts: list[str]) -> Any:
        """transformers' `BatchEncoding`. Offsets are taken from its encodings one by one (`_characters`): those of a
        whole batch, tens of thousands of tuples, would be walked by the garbage collector again and again."""
        return self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )

    def _example(
        self, conversation: Conversation, text: str, spans: Sequence[tuple[int, int]], ids: list[int], characters: Int64
    ) -> Example:
        input_ids = np.fromiter(ids, np.int32, len(ids))
        marked = marked_tokens(characters, spans)
        if self.spec.exclude_think_tokens:
            marked &= ~marked_tokens(characters, think_spans(text, spans))
        if self.spec.end_ids:
            marked &= ~np.isin(input_ids, self.spec.end_ids)
        marked[:1] = False  # nothing predicts the token at position 0
        positions = np.flatnonzero(marked).astype(np.int32)
        if not len(positions):
            raise Unusable(NO_ASSISTANT_TOKENS)
        return Example(conversation.index, input_ids, positions)


class ConversationDataset:
    """Examples of chosen rows of a source, rendered when they are asked for."""

    def __init__(self, source: Source, rows: Int64, renderer: ChatRenderer) -> None:
        self.source, self.rows, self.renderer = source, rows, renderer

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Example | Unusable:
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[int]) -> list[Example | Unusable]:
        """Several at once, tokenized together."""
        return self.renderer.render(self.source.conversations(self.rows[list(places)]))


def get_transform_fn(renderer: ChatRenderer) -> Callable[[Conversation], Example]:
    """A function from one conversation to its example. It raises Unusable where there is none."""

    def transform(conversation: Conversation) -> Example:
        (example,) = renderer.render([conversation])
        if isinstance(example, Unusable):
            raise example
        return example

    return transform


def renderer_spec(
    config: SourceOptions,
    tokenizer: "PreTrainedTokenizerFast",
    revision: str | None,
    end_ids: Sequence[int],
    pinned_date: str | None = None,
) -> RendererSpec:
    """The renderer that the options ask for.

    end_ids: the model's end tokens, left out with --exclude-end-tokens.   pinned_date: that of a resumed run.
    Raises ChatTemplateError where there is no template, or it is broken, or marks no assistant tokens.
    """
    assert config.model is not None
    template = read_template(config, tokenizer)
    require_marks(template)
    _compile(template)
    today = date.today().isoformat() if "strftime_now" in template else None
    spec = RendererSpec(config.model, revision, config.trust_remote_code, template, pinned_date or today)
    if not isinstance(config, ExtractionConfig):
        return spec
    return replace(
        spec,
        exclude_think_tokens=config.exclude_think_tokens,
        turns=config.turns,
        end_ids=tuple(sorted(set(end_ids))) if config.exclude_end_tokens else (),
    )


def read_template(config: SourceOptions, tokenizer: "PreTrainedTokenizerFast") -> str:
    """The text of the chat template: of --chat-template, else of the tokenizer. Raises ChatTemplateError."""
    if config.chat_template is not None:
        try:
            return Path(config.chat_template).expanduser().read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ChatTemplateError(f"--chat-template {config.chat_template} can't be read: {error}.") from error
    try:
        return tokenizer.get_chat_template()
    except ValueError as error:
        raise ChatTemplateError(
            f"The tokenizer of {config.model} has no chat template. Pass one with --chat-template FILE."
        ) from error


def load_tokenizer(model: str, revision: str | None, trust_remote_code: bool) -> "PreTrainedTokenizerFast":
    """The model's tokenizer. Raises TeacherError where there is none, or it gives no offsets."""
    from transformers import AutoTokenizer

    path = Path(model).expanduser()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(path) if path.is_dir() else model, revision=revision, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # for a damaged tokenizer.json the library raises whatever comes, plain Exceptions too
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TeacherError(f"The tokenizer of {model} can't be loaded: {first}") from error
    if not tokenizer.is_fast:
        raise TeacherError(
            f"The tokenizer of {model} ({type(tokenizer).__name__}) can't say which characters a token stands for, and "
            "so not which tokens are the assistant's. Use a model with a fast tokenizer (tokenizer.json)."
        )
    return tokenizer


def _characters(encoding: "Encoding") -> Int64:
    """[T, 2] the first and the past-the-last character of each token."""
    offsets = encoding.offsets
    return np.fromiter(chain.from_iterable(offsets), np.int64, 2 * len(offsets)).reshape(-1, 2)


@cache
def _jinja() -> tuple[Callable[..., Any], tuple[type[Exception], ...]]:
    """transformers' rendering function, and what it can raise for a conversation."""
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    return render_jinja_template, (*_TEMPLATE_FAILURES, jinja2.TemplateError)


def _compile(template: str) -> Any:
    """The compiled template, which transformers keeps. Raises ChatTemplateError where it isn't valid Jinja."""
    import jinja2
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        compiled = _compile_jinja_template(template)
    except jinja2.TemplateError as error:
        line = f" (line {error.lineno})" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise ChatTemplateError(
            f"The chat template is not valid Jinja: {error}{line}. Mend it, or pass another with --chat-template FILE."
        ) from error
    if not isinstance(compiled.globals, dict):
        # Jinja copies them for every rendering, which is slow where they are a chain of mappings.
        compiled.globals = dict(compiled.globals)
    return compiled


def _pin_date(template: str, day: date) -> None:
    """Make `strftime_now` in this template give `day`."""
    _compile(template).globals["strftime_now"] = datetime(day.year, day.month, day.day).strftime
