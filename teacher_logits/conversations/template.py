"""A chat template as a function from messages to text."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teacher_logits.conversations.masks import Unusable
from teacher_logits.errors import ChatTemplateError
from teacher_logits.settings import SourceOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Messages = list[dict[str, Any]]
Tools = list[dict[str, Any]] | None

_FAILURES = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""What a template can raise for a conversation, besides Jinja's own errors: it is a program."""

_MISSING = re.compile(r"'(\w+?)(_token)?' is undefined")

PROBE_TOOLS = [
    {
        "type": "function",
        "function": {"name": "probe", "description": "none", "parameters": {"type": "object", "properties": {}}},
    }
]
"""For templates that can't do without tools."""


class ChatTemplate:
    """The text of a template with all that its rendering depends on."""

    def __init__(
        self, text: str, named_tokens: Mapping[str, Any], pinned_date: str | None, parts: bool | None = None
    ) -> None:
        """parts: whether contents are handed over as lists of text parts; by default found out.

        Raises ChatTemplateError where the text isn't valid Jinja.
        """
        self.text, self.named_tokens, self.pinned_date = text, dict(named_tokens), pinned_date
        compiled(text)
        self.parts = False
        self.parts = self._wants_parts() if parts is None else parts

    def render(self, messages: Messages, tools: Tools = None, prompt: bool = False) -> str:
        """The text of a conversation; with `prompt`, and of what begins an answer after it. Raises Unusable where
        the template refuses."""
        render, failures = _jinja()
        if self.pinned_date is not None:
            # Each time, since transformers keeps compiled templates and another renderer may have another date.
            _pin_date(self.text, date.fromisoformat(self.pinned_date))
        said = [_in_parts(message) for message in messages] if self.parts else messages
        try:
            texts, _ = render(
                conversations=[said],
                tools=tools,
                chat_template=self.text,
                add_generation_prompt=prompt,
                **self.named_tokens,
            )
        except failures as error:
            raise Unusable(f"the chat template refuses it: {_in_words(error)}") from error
        return texts[0]

    def prompt_ends_with(self, text: str) -> bool:
        """Whether what begins an answer ends with this text, white space aside: no answer then has to print it."""
        for tools in (None, PROBE_TOOLS):
            try:
                prompt = self.render([{"role": "user", "content": "prqone"}], tools, prompt=True)
            except Unusable:
                continue
            return prompt.rstrip().endswith(text)
        return False

    def heeds_contents(self) -> bool:
        """Whether what messages say makes any difference to what is printed; True where no trial is rendered."""
        rendered = False
        for tools in (None, PROBE_TOOLS):
            for roles in (("user", "assistant"), ("system", "user", "assistant")):
                try:
                    texts = {
                        self.render([{"role": role, "content": f"{word}{role}"} for role in roles], tools)
                        for word in ("prqone", "prqtwo")
                    }
                except Unusable:
                    continue
                if len(texts) > 1:
                    return True
                rendered = True
        return not rendered

    def _wants_parts(self) -> bool:
        """Whether the template fails on contents that are strings, or drops them, and prints lists of parts."""
        if self._prints_probe():
            return False
        self.parts = True
        return self._prints_probe()

    def _prints_probe(self) -> bool:
        messages = [{"role": "user", "content": "prqone"}, {"role": "assistant", "content": "prqtwo"}]
        for tools in (None, PROBE_TOOLS):
            try:
                text = self.render(messages, tools)
            except Unusable:
                continue
            # A list that is printed as it is shows its keys.
            if "prqone" in text and "prqtwo" in text and "'text': 'prq" not in text and '"text": "prq' not in text:
                return True
        return False


def _in_words(error: Exception) -> str:
    """What a template raised, with what it means where a name is missing."""
    said = str(error) or type(error).__name__
    missing = _MISSING.fullmatch(said)
    if missing is None:
        return said
    if missing[2]:
        return f"{said}: this tokenizer has no {missing[1]} token, which the template prints, so it is another model's"
    return f"{said}: chat templates are given messages, tools and the tokenizer's special tokens"


def _in_parts(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def read_template(config: SourceOptions, tokenizer: "PreTrainedTokenizerFast") -> str:
    """The text of the chat template: of --chat-template, else of the tokenizer. Raises ChatTemplateError."""
    if config.chat_template is not None:
        try:
            text = Path(config.chat_template).expanduser().read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ChatTemplateError(f"--chat-template {config.chat_template} can't be read: {error}.") from error
        if _is_json(text):
            raise ChatTemplateError(
                f"--chat-template {config.chat_template} is JSON, not a Jinja template. In a tokenizer_config.json the "
                'template is the value of "chat_template": write that to a file of its own, and pass this.'
            )
        return text
    try:
        return tokenizer.get_chat_template()
    except ValueError as error:
        raise ChatTemplateError(
            f"The tokenizer of {config.model} has no chat template. Pass one with --chat-template FILE."
        ) from error


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), (dict, list, str))
    except (ValueError, RecursionError):
        return False


@cache
def _jinja() -> tuple[Callable[..., Any], tuple[type[Exception], ...]]:
    """transformers' rendering function, and what it can raise for a conversation."""
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    return render_jinja_template, (*_FAILURES, jinja2.TemplateError)


def compiled(template: str) -> Any:
    """The compiled template, which transformers keeps. Raises ChatTemplateError where it isn't valid Jinja."""
    import jinja2
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        program = _compile_jinja_template(template)
    except jinja2.TemplateError as error:
        line = f" (line {error.lineno})" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise ChatTemplateError(
            f"The chat template is not valid Jinja: {error}{line}. Mend it, or pass another with --chat-template FILE."
        ) from error
    if not isinstance(program.globals, dict):
        # Jinja copies them for every rendering, which is slow where they are a chain of mappings.
        program.globals = dict(program.globals)
    return program


def _pin_date(template: str, day: date) -> None:
    """Make `strftime_now` in this template give `day`."""
    compiled(template).globals["strftime_now"] = datetime(day.year, day.month, day.day).strftime
