"""Conversations to token ids through the tokenizer's chat template."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from itertools import chain, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from teacher_logits.conversations.fitting import (
    content_of_calls,
    has_calls,
    wanted_arguments,
    with_arguments,
    with_content,
)
from teacher_logits.conversations.looking import MarkedConversation, roles_of
from teacher_logits.conversations.masks import (
    NO_ASSISTANT_TOKENS,
    Unmarkable,
    Unusable,
    bracketed,
    marked_tokens,
    require_marks,
    spans_in_brackets,
    tokens_of_others,
)
from teacher_logits.conversations.prefix import prefix_turns
from teacher_logits.conversations.sentinel import sentinel_turns
from teacher_logits.conversations.source import Source
from teacher_logits.conversations.template import ChatTemplate, Messages, Tools, read_template
from teacher_logits.conversations.thoughts import ThinkTags, think_spans, think_tags
from teacher_logits.conversations.turns import Turn, TurnEnds, answers_in, require_whole_tokens, turn_ends
from teacher_logits.conversations.unprinted import CALLS_UNPRINTED, calls_vanish
from teacher_logits.errors import ChatTemplateError, TeacherError
from teacher_logits.records import Conversation, Example, Int64
from teacher_logits.settings import ExtractionConfig, SourceOptions, is_folder

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerFast

BY_MARKS = "template"
"""The mask method that takes the template's own markers."""
DERIVED: Mapping[str, Callable[[ChatTemplate, TurnEnds, Messages, Tools, str, bool], list[Turn]]] = {
    "prefix": prefix_turns,
    "sentinel": sentinel_turns,
}
"""The others, for templates without, in the order they are tried."""


@dataclass(frozen=True)
class RendererSpec:
    """All that decides how a conversation becomes tokens, in a form that travels to worker processes."""

    model: str
    revision: str | None
    trust_remote_code: bool
    template: str
    pinned_date: str | None
    """ISO date that a template which prints the day's date is given, so that a run over midnight stays the same."""
    mask_method: str = BY_MARKS
    """How assistant tokens are found: "template" or a key of `DERIVED`."""
    think_tags: tuple[ThinkTags, ...] = ()
    """Tags of thoughts to leave out."""
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
        """Raises ChatTemplateError where the template is broken, or the mask method can't work with it."""
        self.spec, self.tokenizer = spec, tokenizer
        named_tokens = dict(tokenizer.special_tokens_map)  # the property makes it anew each time
        self.template = ChatTemplate(spec.template, named_tokens, spec.pinned_date)
        self.ends: TurnEnds | None = None
        if spec.mask_method == BY_MARKS:
            require_marks(spec.template)
            marked = bracketed(spec.template)
            self._bracketed = ChatTemplate(marked, named_tokens, spec.pinned_date, self.template.parts)
        else:
            self.ends = turn_ends(self.template, tokenizer)

    def __reduce__(self) -> tuple[type["ChatRenderer"], tuple[RendererSpec, Any]]:
        return ChatRenderer, (self.spec, self.tokenizer)

    def render(self, conversations: Iterable[Conversation | Unusable]) -> list[Example | Unusable]:
        """The examples of some conversations, in their order; in place of one that can't be used, the reason."""
        results: list[Example | Unusable] = []
        places: list[int] = []
        rendered: list[tuple[Conversation, str, list[Turn]]] = []
        for place, conversation in enumerate(conversations):
            try:
                if isinstance(conversation, Unusable):
                    raise conversation
                rendered.append((conversation, *self.turns(conversation)))
                places.append(place)
                results.append(Unusable())
            except Unusable as reason:
                results.append(reason)
        if not rendered:
            return results
        encoded = self._encode([text for _, text, _ in rendered])
        for place, (conversation, text, turns), ids, encoding in zip(
            places, rendered, encoded["input_ids"], encoded.encodings, strict=True
        ):
            try:
                results[place] = self._example(conversation, text, turns, ids, _characters(encoding))
            except Unusable as reason:
                results[place] = reason
        return results

    def show(self, conversation: Conversation, start: str = "[[", end: str = "]]") -> str:
        """The conversation as the teacher sees it, its assistant tokens between `start` and `end`."""
        return self.look(conversation).text(start, end)

    def look(self, conversation: Conversation) -> MarkedConversation:
        """The conversation as the teacher sees it, token by token. Raises Unusable where there is nothing to see."""
        text, _ = self.turns(conversation)
        (example,) = self.render([conversation])
        if isinstance(example, Unusable):
            raise example
        offsets = _characters(self._encode([text]).encodings[0])
        marked = np.zeros(len(offsets), np.bool_)
        marked[example.positions] = True
        # The text between two tokens belongs to the one before it; bytes of one character, to the last of them.
        begins = np.append(offsets[1:, 0], len(text))
        pieces = [text[max(first, 0) : max(first, past)] for first, past in zip(offsets[:, 0], begins, strict=True)]
        return MarkedConversation(pieces, marked, roles_of(pieces, conversation.messages))

    def turns(self, conversation: Conversation) -> tuple[str, list[Turn]]:
        """The rendered text and the characters in it that are the assistant's, in the turns that count. Raises
        Unusable."""
        last_alone = self.spec.turns == "last"
        if self.ends is not None:
            messages, text = self._printed(conversation)
            derive = DERIVED[self.spec.mask_method]
            return text, derive(self.template, self.ends, messages, conversation.tools, text, last_alone)
        text, turns = self.marked(conversation)
        return text, self._of_last(conversation, text, turns) if last_alone else turns

    def _of_last(self, conversation: Conversation, text: str, turns: list[Turn]) -> list[Turn]:
        """What is marked of the assistant's last message: all that isn't marked already in the conversation before it,
        but for what marks the end of that. Raises Unmarkable where this can't be told."""
        *others, last = answers_in(conversation.messages, last_alone=False) or [0]
        if not others:
            return turns
        before, already = self.marked(replace(conversation, messages=conversation.messages[:last]))
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(already, turns, strict=False)))
        gone, new = already[same:], turns[same:]
        upto = gone[0].first if gone else already[-1].past if already else 0
        if before[:upto] != text[:upto] or (gone and new and new[0].first <= upto):
            raise Unmarkable("the template prints a conversation differently when an answer follows")
        return new

    def text(self, conversation: Conversation) -> str:
        """The conversation as the teacher sees it. Raises Unusable where the template refuses it."""
        return self.template.render(self._messages(conversation), conversation.tools)

    def marked(self, conversation: Conversation) -> tuple[str, list[Turn]]:
        """The rendered text and the characters in it that the template's own marks hold. Raises Unusable."""
        messages, text = self._printed(conversation)
        spans = spans_in_brackets(self._bracketed.render(messages, conversation.tools), text)
        return text, [Turn(first, past) for first, past in spans]

    def _printed(self, conversation: Conversation) -> tuple[Messages, str]:
        """The messages as the template takes them, and their text. Raises Unusable."""
        messages, tools = self._messages(conversation), conversation.tools
        text = self.template.render(messages, tools)
        if has_calls(messages) and calls_vanish(lambda said: self.template.render(said, tools), messages):
            raise Unusable(CALLS_UNPRINTED)
        return messages, text

    def _messages(self, conversation: Conversation) -> Messages:
        """The messages as the template takes them."""
        messages = [{k: v for k, v in message.items() if v is not None} for message in conversation.messages]
        if not has_calls(messages):
            return messages
        if self._wanted_arguments is not None:
            messages = with_arguments(messages, self._wanted_arguments)
        return with_content(messages, self._content_of_calls)

    @cached_property
    def _content_of_calls(self) -> dict[str, Any]:
        return content_of_calls(self.template.render)

    @cached_property
    def _wanted_arguments(self) -> type | None:
        return wanted_arguments(self.template.render, self._content_of_calls)

    @cached_property
    def _opened_by_prompt(self) -> list[ThinkTags]:
        return [tags for tags in self.spec.think_tags if self.template.prompt_ends_with(tags[0])]

    def thoughts(self, conversation: Conversation, text: str, turns: Sequence[Turn]) -> Iterator[list[tuple[int, int]]]:
        """The characters of a rendered text that are thoughts to leave out, for each kind of tags."""
        spans = [(turn.first, turn.past) for turn in turns]
        others = [
            str(each.get("content")).rstrip() for each in conversation.messages if each.get("role") != "assistant"
        ]
        for tags in self.spec.think_tags:
            said = any(content.endswith(tags[0]) for content in others)
            yield think_spans(text, spans, tags, tags in self._opened_by_prompt, said)

    def _encode(self, texts: list[str]) -> Any:
        """transformers' `BatchEncoding`. Offsets are taken from its encodings one by one (`_characters`): those of a
        whole batch, tens of thousands of tuples, would be walked by the garbage collector again and again."""
        return self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )

    def _example(
        self, conversation: Conversation, text: str, turns: Sequence[Turn], ids: list[int], characters: Int64
    ) -> Example:
        input_ids = np.fromiter(ids, np.int32, len(ids))
        if self.ends is not None:
            require_whole_tokens(turns, text, characters, input_ids, self.ends.ids)
        spans = [(turn.first, turn.past) for turn in turns]
        marked = marked_tokens(characters, spans)
        if self.ends is None:
            marked &= ~tokens_of_others(characters, text, spans)
        for thoughts in self.thoughts(conversation, text, turns):
            marked &= ~marked_tokens(characters, thoughts)
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
    """The renderer that the options ask for, but for its mask method, which `choose_mask` finds.

    end_ids: the model's end tokens, left out with --exclude-end-tokens.   pinned_date: that of a resumed run.
    Raises ChatTemplateError where there is no template, it is broken, or prints nothing of the messages.
    """
    assert config.model is not None
    template = read_template(config, tokenizer)
    day = pinned_date or (date.today().isoformat() if "strftime_now" in template else None)
    if not ChatTemplate(template, tokenizer.special_tokens_map, day).heeds_contents():
        given = config.chat_template
        name = "the tokenizer's chat template" if given is None else f"--chat-template {given}"
        raise ChatTemplateError(
            f"0 assistant tokens: {name} prints nothing of what the messages say, so it is no chat template, or not "
            "one for `messages` with `role` and `content`. Pass the model's own with --chat-template FILE"
            f"{'' if given is None else ', or leave that option out'}."
        )
    spec = RendererSpec(config.model, revision, config.trust_remote_code, template, day)
    if not isinstance(config, ExtractionConfig):
        return spec
    return replace(
        spec,
        think_tags=think_tags(config.think_tags, template) if config.exclude_think_tokens else (),
        turns=config.turns,
        end_ids=tuple(sorted(set(end_ids))) if config.exclude_end_tokens else (),
    )


def load_tokenizer(model: str, revision: str | None, trust_remote_code: bool) -> "PreTrainedTokenizerFast":
    """The model's tokenizer. Raises TeacherError where there is none, or it gives no offsets."""
    from transformers import AutoTokenizer

    path = Path(model).expanduser()
    if is_folder(model) and not path.exists():
        raise TeacherError(f"The tokenizer of {model} can't be loaded: there is no such folder.")
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
