"""`ExtractionConfig`: a field is the option, its docstring is the help, `__post_init__` is the validation.

Fields marked `RESULT` change what is stored for a given conversation; a resumed run must keep them. The others
choose conversations, speed and place, and may change between a run and its continuation.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import tyro

from teacher_logits.errors import SettingsError

RESULT = "changes the result"

MAX_VOCABULARY = 1 << 18
"""Token ids are stored in 16 + 2 bits."""
MAX_NUCLEUS = 255
"""Nucleus sizes are stored in 8 bits."""


def _counts_from_json(text: str) -> dict[str, int]:
    """Read `{"name": number}` as an option is given on the command line."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{text!r} is not JSON ({error}); expected something like '{{\"name\": 10}}'") from error
    if not _is_counts(value):
        raise ValueError(f"{text!r} is not a JSON object of names and whole numbers such as '{{\"name\": 10}}'")
    return value


def _is_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(count, int) and not isinstance(count, bool) and count >= 0
        for key, count in value.items()
    )


_JSON_COUNTS = tyro.constructors.PrimitiveConstructorSpec[dict[str, int] | None](
    nargs=1,
    metavar="JSON",
    instance_from_str=lambda words: _counts_from_json(words[0]),
    is_instance=lambda value: value is None or _is_counts(value),
    str_from_instance=lambda value: ["None" if value is None else json.dumps(value)],
)


def _option(name: str | None = None, metavar: str | None = None) -> Any:
    return tyro.conf.arg(name=name, metavar=metavar)


_Text = Annotated[str | None, _option(metavar="TEXT")]
_Number = Annotated[int | None, _option(metavar="N")]
_Fraction = Annotated[float | None, _option(metavar="X")]


@dataclasses.dataclass(frozen=True)
class ExtractionConfig:
    """Run a teacher over a chat dataset and store its distribution at every assistant token."""

    model: Annotated[_Text, RESULT] = None
    """The teacher: a Hub id, or a folder with a model. Required."""
    dataset: Annotated[_Text, RESULT] = None
    """The chat dataset: a Hub id, a .jsonl, .json or .parquet file, or a folder. Required."""
    output: _Text = None
    """Where the logits go: a folder when it begins with '.', '/', '~' or 'file://', else a Hub dataset. Required."""

    split: Annotated[str, RESULT] = "train"
    """Split of the dataset; a slice such as 'train[:1000]' selects rows of it."""
    dataset_config: Annotated[_Text, RESULT] = None
    """Configuration (subset) of a Hub dataset that has several."""
    dataset_revision: Annotated[_Text, RESULT] = None
    """Branch, tag or commit of a Hub dataset; the commit it stands for is stored and used again on resume."""
    user_col: Annotated[str, RESULT] = "question"
    """Column with the user's text."""
    assistant_col: Annotated[str, RESULT] = "answer"
    """Column with the assistant's text."""
    messages_col: Annotated[_Text, RESULT] = None
    """Column of message lists (role/content, or from/value); found by itself when called messages or conversations."""
    index_col: Annotated[_Text, RESULT] = None
    """Column that numbers the conversations; by default original_index where there is one, else the row number."""

    limit: _Number = None
    """Take at most this many conversations."""
    start_offset: Annotated[int, _option(metavar="N")] = 0
    """Leave out this many conversations at the beginning."""
    random_sample: bool = False
    """Choose the conversations of --limit at random (by --seed) instead of the first ones."""
    full_dataset: bool = False
    """Take every conversation. This is the default; given here it also wins over limits from a config file."""
    subject_col: _Text = None
    """Column with the subject, for --sample-subject."""
    sample_subject: Annotated[dict[str, int] | None, _JSON_COUNTS] = None
    """How many conversations of each subject: '{"maths": 20000, "*": 6000, "": 100}'; '*' is every other subject,
    '' are rows without one."""
    length_col: _Text = None
    """Column that already holds the token length of each conversation, so that it isn't counted again."""
    tokenized_dataset: _Text = None
    """Dataset made by compute_lengths.py, from which lengths are taken by original_index."""
    max_seq_len: _Number = None
    """Skip conversations of more tokens than this; by default than the model's context."""

    top_p: Annotated[float, _option(metavar="X"), RESULT] = 0.98
    """Probability the nucleus must reach; 1 stores the cap for every token."""
    top_p_max_elements: Annotated[int, _option(name="top-p-max", metavar="N"), RESULT] = 100
    """Most tokens a nucleus may have, 1 to 255."""
    sampled_n: Annotated[int, _option(metavar="N"), RESULT] = 24
    """Gumbel-max samples of the rest of the vocabulary, at least 1."""
    vocab_limit: Annotated[int | Literal["tokenizer"] | None, _option(metavar="N|tokenizer"), RESULT] = None
    """Treat token ids from here on as impossible; 'tokenizer' means the tokenizer's own length."""
    seed: Annotated[int, _option(metavar="N"), RESULT] = 42
    """Seed of the draws and of --random-sample."""
    store_tokens: Annotated[bool, RESULT] = True
    """Store the rendered conversation and the positions of its assistant tokens (columns input_ids, positions)."""
    exclude_think_tokens: Annotated[bool, RESULT] = False
    """Leave out assistant tokens from <think> through </think>."""
    exclude_end_tokens: Annotated[bool, RESULT] = False
    """Leave out end-of-turn and end-of-text tokens."""
    chat_template: Annotated[_Text, _option(metavar="FILE"), RESULT] = None
    """A Jinja file to use instead of the tokenizer's own chat template."""
    verify_mask: bool = False
    """Print a conversation with its assistant tokens marked, and ask before going on where there is a terminal."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps, ..."""
    dtype: Annotated[Literal["auto", "float64", "float32", "bfloat16", "float16"], RESULT] = "auto"
    """Type the teacher computes in. auto is not the type the weights are stored in, as elsewhere, but: bfloat16 on
    CUDA where the card has it, else float16 there; float32 on a CPU."""
    attn: Literal["auto", "flash_attention_2", "sdpa", "eager"] = "auto"
    """Attention. auto: flash_attention_2 on CUDA in 16 bits where it is installed, else sdpa, else eager."""
    device_map: _Text = None
    """Spread one model over several GPUs, as transformers does: auto, balanced, sequential."""
    revision: Annotated[_Text, RESULT] = None
    """Branch, tag or commit of the model on the Hub; the commit it stands for is stored and used again on resume."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off: code from a model repository can do anything you can."""

    batch_tokens: _Number = None
    """Padded tokens a batch; by default from the device's free memory."""
    batch_thresholds: Annotated[dict[str, int] | None, _JSON_COUNTS] = None
    """Instead of --batch-tokens: '{"1024": 4, "512": 8}' puts at most 4 conversations of up to 1,024 tokens in a
    batch, 8 of up to 512; longer ones go alone."""
    max_batch_size: _Number = None
    """Most conversations in a batch."""

    upload_every: Annotated[int, _option(metavar="N")] = 500
    """Conversations a shard."""
    upload_size_mb: _Fraction = None
    """Close a shard at this size (in memory, before compression) if --upload-every isn't reached; at most 256."""
    private: bool = False
    """Create the Hub dataset as a private one."""
    hub_retry_seconds: Annotated[int, _option(metavar="N")] = 3600
    """How long a failing Hub is tried before the rest is left in the cache folder and the run ends with exit code 1."""
    max_runtime_minutes: _Fraction = None
    """Stop in time to have everything saved this long after the start; --resume goes on."""
    resume: bool = False
    """Continue the run of the cache folder or of --output; alone it takes the options that are kept there."""
    force_restart: bool = False
    """Remove the rows the output already has (on the Hub its history keeps them) and begin anew."""
    cache_dir: Annotated[str, _option(metavar="FOLDER")] = ".logit_extraction_cache"
    """Where unfinished work is kept."""
    config: Annotated[_Text, _option(metavar="FILE")] = None
    """A YAML file with any of these options; the command line wins over it."""

    def __post_init__(self) -> None:
        """Check each value alone. What is required together is checked by `require_complete`."""
        self._check(0 < self.top_p <= 1, "top_p", "more than 0 and at most 1")
        self._check(1 <= self.top_p_max_elements <= MAX_NUCLEUS, "top_p_max_elements", f"1 to {MAX_NUCLEUS}")
        self._check(self.sampled_n >= 1, "sampled_n", "at least 1")
        self._check(0 <= self.seed < 1 << 64, "seed", "0 to 2^64 - 1")
        self._check(self.start_offset >= 0, "start_offset", "at least 0")
        self._check(self.upload_every >= 1, "upload_every", "at least 1")
        self._check(self.hub_retry_seconds >= 0, "hub_retry_seconds", "at least 0")
        for name in ("limit", "max_seq_len", "batch_tokens", "max_batch_size"):
            value = getattr(self, name)
            self._check(value is None or value >= 1, name, "at least 1")
        for name in ("upload_size_mb", "max_runtime_minutes"):
            value = getattr(self, name)
            self._check(value is None or value > 0, name, "more than 0")
        limit = self.vocab_limit
        self._check(
            not isinstance(limit, int) or 1 <= limit <= MAX_VOCABULARY,
            "vocab_limit",
            f"1 to {MAX_VOCABULARY:,}",
        )
        for name in ("sample_subject", "batch_thresholds"):
            value = getattr(self, name)
            self._check(value is None or _is_counts(value), name, "an object of names and whole numbers")
        for key, size in (self.batch_thresholds or {}).items():
            self._check(
                key.isdecimal() and size >= 1,
                "batch_thresholds",
                "token lengths with batch sizes of at least 1",
            )
        self._check(
            bool(re.fullmatch(r"[\w.\-]+(\[[^\]]*\])?", self.split)),
            "split",
            "one split, with or without a slice",
        )

    def _check(self, holds: bool, name: str, expected: str) -> None:
        if not holds:
            raise SettingsError(f"{option_name(name)} is {getattr(self, name)!r}; expected {expected}.")

    def require_complete(self) -> "ExtractionConfig":
        """This config, checked as a whole. Raises SettingsError where options are missing or contradict."""
        missing = [option_name(name) for name in ("model", "dataset", "output") if not getattr(self, name)]
        if missing:
            raise SettingsError(
                f"{', '.join(missing)} missing. Give --model, --dataset and --output, or --resume alone to continue "
                f"the run kept in the cache folder ({self.cache_dir})."
            )
        if self.full_dataset and (self.limit is not None or self.start_offset or self.sample_subject):
            raise SettingsError(
                "--full-dataset contradicts --limit, --start-offset and --sample-subject. Give one of them."
            )
        if self.sample_subject is not None and self.subject_col is None:
            raise SettingsError("--sample-subject needs --subject-col, the column that names each row's subject.")
        if self.random_sample and self.limit is None and self.sample_subject is None:
            raise SettingsError("--random-sample needs --limit or --sample-subject: how many conversations to choose.")
        if self.batch_tokens is not None and self.batch_thresholds is not None:
            raise SettingsError("--batch-tokens and --batch-thresholds are two ways to size batches. Give one of them.")
        if self.resume and self.force_restart:
            raise SettingsError("--resume continues a run and --force-restart begins it anew. Give one of them.")
        return self

    def without_limits(self) -> "ExtractionConfig":
        """The same options with every conversation selected."""
        return dataclasses.replace(self, limit=None, start_offset=0, random_sample=False, sample_subject=None)

    def as_dict(self) -> dict[str, Any]:
        """Every option by its field's name, as JSON takes it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any], origin: str) -> "ExtractionConfig":
        """The options of a file; dashes in their names are allowed. `origin` names the file in errors.

        Raises SettingsError for an unknown option or a value of the wrong type.
        """
        aliases = {option_name(field.name).removeprefix("--"): field.name for field in dataclasses.fields(cls)}
        hints = get_type_hints(cls)
        values: dict[str, Any] = {}
        for key, value in options.items():
            name = aliases.get(str(key).replace("_", "-"), str(key).replace("-", "_"))
            if name not in hints:
                raise SettingsError(f"{origin} has an unknown option {key!r}. Known: {', '.join(sorted(aliases))}.")
            if hints[name] is float and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            if not _fits(value, hints[name]):
                raise SettingsError(
                    f"{origin}: {key} is {value!r}, which is not of the type that {option_name(name)} takes."
                )
            values[name] = value
        return cls(**values)


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value from a file has the type a field is annotated with (the few kinds fields have)."""
    choices = get_args(annotation)
    if annotation in (str, int, float, bool):
        return type(value) is annotation
    if annotation is type(None):
        return value is None
    if getattr(annotation, "__origin__", None) is dict:
        return _is_counts(value)
    if getattr(annotation, "__origin__", None) is Literal:
        return value in choices
    if float in choices and type(value) is int:
        return True
    return any(_fits(value, choice) for choice in choices)


def option_name(field: str) -> str:
    """The option a field is given by, with its dashes: 'top_p_max_elements' -> '--top-p-max'."""
    return "--top-p-max" if field == "top_p_max_elements" else "--" + field.replace("_", "-")


def result_options() -> list[str]:
    """Names of the fields that change what is stored for a conversation."""
    hints = get_type_hints(ExtractionConfig, include_extras=True)
    return [field.name for field in dataclasses.fields(ExtractionConfig) if RESULT in get_args(hints[field.name])]


def is_folder(output: str) -> bool:
    """Whether `--output` names a folder on this machine and not a Hub dataset."""
    return output.startswith((".", "/", "~", "file://"))


def local_folder(output: str) -> Path:
    """The folder that an `--output` for which `is_folder` holds means."""
    return Path(output.removeprefix("file://")).expanduser()
