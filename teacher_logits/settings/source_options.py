"""The options that say which conversations are read, and how: shared by all commands that read a chat dataset."""

import dataclasses
import os
import re
from typing import Annotated, Any, Literal, Self

from teacher_logits.errors import SettingsError
from teacher_logits.settings.options import RESULT, JsonCounts, Number, Text, is_counts, option, option_name
from teacher_logits.settings.outputs import touches

_PATHS = ("model", "dataset", "output", "chat_template", "tokenized_dataset", "cache_dir", "config")
"""Options that are or may be paths on this machine, also of the classes that build on this one."""
_HALF = re.compile("[\ud800-\udfff]")
MASK_SOURCES = ("auto", "template", "prefix", "sentinel")


@dataclasses.dataclass(frozen=True)
class SourceOptions:
    """A chat dataset, the model whose tokenizer and template render it, and where the result goes."""

    model: Annotated[Text, RESULT] = None
    """The teacher: a Hub id, or a folder with a model. Required."""
    dataset: Annotated[Text, RESULT] = None
    """The chat dataset: a Hub id, hf://datasets/..., a file, a folder, or a pattern as './chats/*.jsonl'. Required."""
    output: Text = None
    """Where the result goes: a folder when it begins with '.', '/', '~' or 'file://', else a Hub dataset. Required."""
    split: Annotated[str, RESULT] = "train"
    """Split of the dataset; a slice such as 'train[:1000]' selects rows of it."""
    dataset_config: Annotated[Text, RESULT] = None
    """Configuration (subset) of a Hub dataset that has several."""
    dataset_revision: Annotated[Text, RESULT] = None
    """Branch, tag or commit of a Hub dataset; the commit it stands for is stored and used again on resume."""
    data_files: Annotated[Text, option(metavar="PATTERN"), RESULT] = None
    """Read only these files of a Hub dataset or a folder, such as 'data/*.parquet'; all of them make up the split."""
    user_col: Annotated[str, RESULT] = "question"
    """Column with the user's text."""
    assistant_col: Annotated[str, RESULT] = "answer"
    """Column with the assistant's text."""
    messages_col: Annotated[Text, RESULT] = None
    """Column of message lists (role/content, or from/value); found by itself when called messages or conversations."""
    input_col: Annotated[Text, RESULT] = None
    """Column whose text follows the user's after an empty line, as Alpaca's input does."""
    system_col: Annotated[Text, RESULT] = None
    """Column with a system prompt, for conversations that have no system message."""
    system_prompt: Annotated[Text, RESULT] = None
    """System prompt for conversations that have no system message, and none in --system-col; others keep their own."""
    tools_col: Annotated[Text, RESULT] = None
    """Column with the tools that may be called, for the chat template; found by itself when called tools."""
    index_col: Annotated[Text, RESULT] = None
    """Column that numbers the conversations; by default original_index where there is one, else the row number."""
    chat_template: Annotated[Text, option(metavar="FILE"), RESULT] = None
    """A Jinja file to use instead of the tokenizer's own chat template."""
    mask_source: Annotated[Literal["auto", "template", "prefix", "sentinel"], RESULT] = "auto"
    """What tells the assistant's tokens. template: its {% generation %} marks; prefix, sentinel: what it prints."""
    limit: Number = None
    """Take at most this many conversations, or of each subject with --subject-col, before skipping unusable ones."""
    start_offset: Annotated[int, option(metavar="N")] = 0
    """Leave out this many conversations at the beginning."""
    random_sample: bool = False
    """Choose the conversations of --limit at random (by --seed) instead of the first ones."""
    full_dataset: bool = False
    """Take every conversation. This is the default; given here it also wins over limits from a config file."""
    subject_col: Text = None
    """Column with the subject: --limit then counts for each of them, unless --sample-subject says how many of each."""
    sample_subject: JsonCounts = None
    """How many of each subject: '{"maths": 20000, "*": 6000, "": 100}'; "*" is each other one, "" rows without one."""
    seed: Annotated[int, option(metavar="N"), RESULT] = 42
    """Seed of the draws and of --random-sample."""
    revision: Annotated[Text, RESULT] = None
    """Branch, tag or commit of the model on the Hub; the commit it stands for is stored and used again on resume."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off: code from a model repository can do anything you can."""
    private: bool = False
    """Create the Hub dataset as a private one."""
    force_restart: bool = False
    """Remove what the output already has (on the Hub its history keeps it) and begin anew."""

    def __post_init__(self) -> None:
        """Check each value alone. What is required together is checked by `require_complete`."""
        self._check_texts()
        self._check(0 <= self.seed < 1 << 64, "seed", "0 to 2^64 - 1")
        self._check(self.mask_source in MASK_SOURCES, "mask_source", f"one of {', '.join(MASK_SOURCES)}")
        self._check(self.start_offset >= 0, "start_offset", "at least 0")
        self._check(self.limit is None or self.limit >= 1, "limit", "at least 1")
        self._check_counts("sample_subject")
        for name in _PATHS:
            value = getattr(self, name, None) or ""
            known = not value.startswith("~") or os.path.expanduser(value) != value  # noqa: PTH111
            self._check(known, name, "a path; there is no such home folder")
        self._check(self.system_prompt is None or bool(self.system_prompt.strip()), "system_prompt", "some text")
        split = re.fullmatch(r"[\w.\-]+(\[[^\]]*\])?", self.split)
        self._check(split is not None, "split", "one split, with or without a slice")

    def _check(self, holds: bool, name: str, expected: str) -> None:
        if not holds:
            raise SettingsError(f"{option_name(name)} is {getattr(self, name)!r}; expected {expected}.")

    def _check_texts(self) -> None:
        """Names of files may hold any bytes. All else goes where only UTF-8 can, such as to tokenizers; of what isn't,
        Python makes halves of characters."""
        for name in (field.name for field in dataclasses.fields(self) if field.name not in (*_PATHS, "data_files")):
            value = getattr(self, name)
            texts = value if isinstance(value, dict) else [value]
            whole = not any(isinstance(text, str) and _HALF.search(text) for text in texts)
            self._check(whole, name, "text in UTF-8")

    def _check_counts(self, name: str) -> None:
        value = getattr(self, name)
        self._check(value is None or is_counts(value), name, "an object of names and whole numbers")

    def require_complete(self) -> Self:
        """These options, checked as a whole. Raises SettingsError where some are missing or contradict."""
        missing = [option_name(name) for name in self._needed() if not getattr(self, name)]
        if missing:
            raise SettingsError(f"Not given: {', '.join(missing)}. Each run needs --model, --dataset and --output.")
        if self.dataset is not None and self.output is not None and touches(self.dataset, self.output):
            raise SettingsError(
                f"--output {self.output} and --dataset {self.dataset} are one place, or one lies in the other: what is "
                "written would change what is read. Choose another --output."
            )
        if self.full_dataset and (self.limit is not None or self.start_offset or self.sample_subject):
            raise SettingsError(
                "--full-dataset contradicts --limit, --start-offset and --sample-subject. Give one of them."
            )
        if self.sample_subject is not None and self.subject_col is None:
            raise SettingsError("--sample-subject needs --subject-col, the column that names each row's subject.")
        if self.random_sample and self.limit is None and self.sample_subject is None:
            raise SettingsError("--random-sample needs --limit or --sample-subject: how many conversations to choose.")
        return self

    def _needed(self) -> tuple[str, ...]:
        return ("model", "dataset", "output")

    def without_limits(self) -> Self:
        """The same options with every conversation selected."""
        return dataclasses.replace(self, limit=None, start_offset=0, random_sample=False, sample_subject=None)

    def as_dict(self) -> dict[str, Any]:
        """Every option by its field's name, as JSON takes it."""
        return dataclasses.asdict(self)
