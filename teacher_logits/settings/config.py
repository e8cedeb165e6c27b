"""`ExtractionConfig`: a field is the option, its docstring is the help, `__post_init__` is the validation.

Fields marked `RESULT` change what is stored for a given conversation; a resumed run must keep them. The others
choose conversations, speed and place, and may change between a run and its continuation.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_type_hints

from teacher_logits.errors import SettingsError
from teacher_logits.settings.options import RESULT, Fraction, JsonCounts, Number, Text, fits, option, option_name
from teacher_logits.settings.outputs import absolute_output, same_output
from teacher_logits.settings.source_options import SourceOptions

MAX_VOCABULARY = 1 << 18
"""Token ids are stored in 16 + 2 bits."""
MAX_NUCLEUS = 255
"""Nucleus sizes are stored in 8 bits."""
LEAST_COMMIT_INTERVAL = 0.5
"""minutes"""
MOST_MINUTES = 100_000
"""More than two months: for what counts minutes."""
_COMMIT_INTERVAL = f"{LEAST_COMMIT_INTERVAL} to {MOST_MINUTES:,}: the Hub allows about 128 commits an hour"


@dataclasses.dataclass(frozen=True)
class ExtractionConfig(SourceOptions):
    """Run a teacher over a chat dataset and store its distribution at every assistant token."""

    length_col: Text = None
    """Column that already holds the token length of each conversation, so that it isn't counted again."""
    tokenized_dataset: Text = None
    """Dataset made by compute_lengths.py, from which lengths are taken by original_index."""
    max_seq_len: Number = None
    """Skip conversations of more tokens than this; by default than the model's context."""

    top_p: Annotated[float, option(metavar="X"), RESULT] = 0.98
    """Probability the nucleus must reach; 1 stores the cap for every token."""
    top_p_max_elements: Annotated[int, option(name="top-p-max", metavar="N"), RESULT] = 100
    """Most tokens a nucleus may have, 1 to 255."""
    sampled_n: Annotated[int, option(metavar="N"), RESULT] = 24
    """Gumbel-max samples of the rest of the vocabulary, at least 1."""
    vocab_limit: Annotated[int | Literal["tokenizer"] | None, option(metavar="N|tokenizer"), RESULT] = None
    """Treat token ids from here on as impossible, such as padding of the vocabulary; tokenizer: from its length on."""
    store_tokens: Annotated[bool, RESULT] = True
    """Store the rendered conversation and the positions of its assistant tokens (columns input_ids, positions)."""
    turns: Annotated[Literal["all", "last"], RESULT] = "all"
    """Which of the assistant's turns count: all, or only the last one of each conversation."""
    exclude_think_tokens: Annotated[bool, RESULT] = False
    """Leave out what the assistant thinks: from <think> through </think>, or the tags of the chat template's family."""
    think_tags: Annotated[Text, option(metavar="'OPEN CLOSE'"), RESULT] = None
    """With --exclude-think-tokens, the only tags to go by, as in '<reason> </reason>'."""
    exclude_end_tokens: Annotated[bool, RESULT] = False
    """Leave out end-of-turn and end-of-text tokens."""
    verify_mask: bool = False
    """Print a few conversations with their assistant tokens marked, and ask before going on if on a terminal."""
    verify_mask_only: bool = False
    """Print them and stop: nothing is loaded, extracted or written, and --output isn't needed."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps, ..."""
    dtype: Annotated[Literal["auto", "float64", "float32", "bfloat16", "float16"], RESULT] = "auto"
    """Type to compute in. auto, whatever type is stored: float32 on a CPU, bfloat16 on CUDA, float16 on old cards."""
    attn: Literal["auto", "flash_attention_2", "sdpa", "eager"] = "auto"
    """Attention. auto: flash_attention_2 on CUDA in 16 bits where it is installed, else sdpa, else eager."""
    device_map: Text = None
    """Spread one model over several GPUs, as transformers does: auto, balanced, sequential."""

    batch_tokens: Number = None
    """Padded tokens a batch; by default from the device's free memory."""
    batch_thresholds: JsonCounts = None
    """Instead of --batch-tokens: '{"1024": 4, "512": 8}' takes 4 of up to 1,024 tokens, 8 of up to 512, else 1."""
    max_batch_size: Number = None
    """Most conversations in a batch."""

    upload_every: Annotated[int, option(metavar="N")] = 500
    """Conversations a shard; a shard is what is written to the output at a time."""
    upload_size_mb: Fraction = None
    """Close a shard at this size, in memory, before --upload-every is reached; 256 MiB close it in any case."""
    spool_limit_gb: float = 50.0
    """Where shards that wait for being committed take this much of the cache folder, extraction waits."""
    commit_interval_minutes: float = 5.0
    """How far apart commits to the Hub are, at least 0.5; the first is made as soon as there is a shard."""
    upload_on_stop: bool = False
    """When the run is stopped, upload what fills no shard as a last small one: for machines that lose their disk."""
    hub_retry_seconds: Annotated[int, option(metavar="N")] = 3600
    """How long a failing Hub is tried before the rest is left in the cache folder and the run ends with exit code 1."""
    max_runtime_minutes: Fraction = None
    """Stop in time to have everything kept (output or cache folder) this long after the start; --resume goes on."""
    resume: bool = False
    """Continue the run of the cache folder or of --output; alone it takes the options that are kept there."""
    cache_dir: Annotated[str, option(metavar="FOLDER")] = ".logit_extraction_cache"
    """Where unfinished work is kept."""
    config: Annotated[Text, option(metavar="FILE")] = None
    """A YAML file with any of these options; the command line wins over it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(0 < self.top_p <= 1, "top_p", "more than 0 and at most 1")
        object.__setattr__(self, "top_p", float(self.top_p))  # 1 and 1.0 would have different fingerprints
        self._check(1 <= self.top_p_max_elements <= MAX_NUCLEUS, "top_p_max_elements", f"1 to {MAX_NUCLEUS}")
        self._check(self.sampled_n >= 1, "sampled_n", "at least 1")
        self._check(self.upload_every >= 1, "upload_every", "at least 1")
        self._check(self.hub_retry_seconds >= 0, "hub_retry_seconds", "at least 0")
        self._check(0 < self.spool_limit_gb < math.inf, "spool_limit_gb", "more than 0, and finite")
        interval = self.commit_interval_minutes
        self._check(LEAST_COMMIT_INTERVAL <= interval <= MOST_MINUTES, "commit_interval_minutes", _COMMIT_INTERVAL)
        limit_minutes = self.max_runtime_minutes
        whole = limit_minutes is None or 0 < limit_minutes <= MOST_MINUTES
        self._check(whole, "max_runtime_minutes", f"more than 0 and at most {MOST_MINUTES:,}")
        for name in ("max_seq_len", "batch_tokens", "max_batch_size"):
            value = getattr(self, name)
            self._check(value is None or value >= 1, name, "at least 1")
        size = self.upload_size_mb
        self._check(size is None or 0 < size < math.inf, "upload_size_mb", "more than 0, and finite")
        limit = self.vocab_limit
        whole = not isinstance(limit, int) or 1 <= limit <= MAX_VOCABULARY
        self._check(whole, "vocab_limit", f"1 to {MAX_VOCABULARY:,}")
        tags = (self.think_tags or "").split()
        whole = self.think_tags is None or len(tags) == len(set(tags)) == 2
        self._check(whole, "think_tags", "two different tags with a space between")
        self._check_counts("batch_thresholds")
        sizes = (self.batch_thresholds or {}).items()
        whole = all(length.isdecimal() and size >= 1 for length, size in sizes)
        self._check(whole, "batch_thresholds", "token lengths with batch sizes of at least 1")

    def require_complete(self) -> Self:
        super().require_complete()
        if self.batch_tokens is not None and self.batch_thresholds is not None:
            raise SettingsError("--batch-tokens and --batch-thresholds are two ways to size batches. Give one of them.")
        if self.think_tags is not None and not self.exclude_think_tokens:
            raise SettingsError("--think-tags says what --exclude-think-tokens leaves out. Give both, or neither.")
        if self.resume and self.force_restart:
            raise SettingsError("--resume continues a run and --force-restart begins it anew. Give one of them.")
        if self.output is not None and same_output(
            absolute_output(self.output), str(Path(self.cache_dir).expanduser().resolve())
        ):
            raise SettingsError("--output and --cache-dir are the same folder. Give the run a cache folder of its own.")
        return self

    def _needed(self) -> tuple[str, ...]:
        needed = super()._needed()
        return needed[:2] if self.verify_mask_only and not self.resume else needed  # nothing is written

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any], origin: str) -> "ExtractionConfig":
        """The defaults with the options of a file. Raises as `read_options` does."""
        return cls(**cls.read_options(options, origin))

    @classmethod
    def read_options(cls, options: Mapping[str, Any], origin: str) -> dict[str, Any]:
        """The options of a file, by field; dashes in their names are allowed. `origin` names the file in errors.

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
            if isinstance(value, dict):  # YAML reads {1024: 4} with a number for a name
                value = {str(each): count for each, count in value.items()}
            if not fits(value, hints[name]):
                raise SettingsError(
                    f"{origin}: {key} is {value!r}, which is not of the type that {option_name(name)} takes."
                )
            values[name] = value
        return values


def result_options() -> list[str]:
    """Names of the fields that change what is stored for a conversation."""
    hints = get_type_hints(ExtractionConfig, include_extras=True)
    return [field.name for field in dataclasses.fields(ExtractionConfig) if RESULT in get_args(hints[field.name])]
