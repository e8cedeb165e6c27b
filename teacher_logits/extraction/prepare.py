"""Everything that is found out, checked and refused before the teacher's weights are loaded."""

import dataclasses
import importlib.metadata
import logging
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from teacher_logits.batching import LengthTable, count_lengths
from teacher_logits.conversations import (
    ChatRenderer,
    RendererSpec,
    Source,
    Unusable,
    choose_mask,
    load_tokenizer,
    log_mask_method,
    open_source,
    renderer_spec,
    rendering_metadata,
    select_rows,
    source_metadata,
)
from teacher_logits.conversations.masks import NO_ASSISTANT_TOKENS
from teacher_logits.conversations.thoughts import named
from teacher_logits.errors import ChatTemplateError, DatasetError
from teacher_logits.extraction.known_lengths import known_lengths, warn_of_wrong_lengths
from teacher_logits.extraction.resume import StoredRun
from teacher_logits.journal import SkippedLog
from teacher_logits.records import Int64
from teacher_logits.settings import ExtractionConfig, fingerprint
from teacher_logits.shards import FORMAT_VERSION
from teacher_logits.teacher import TeacherIdentity, identify_teacher
from teacher_logits.teacher.forward import vocabulary_in_use
from teacher_logits.teacher.placement import resolve_device, resolve_dtype
from teacher_logits.version import __version__

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)

_TRIAL = 20
"""Conversations that are rendered first: a template that marks none of them ends the run before anything is loaded."""


@dataclass(frozen=True)
class PreparedRun:
    """A run whose input is known to be usable."""

    config: ExtractionConfig
    source: Source
    tokenizer: "PreTrainedTokenizerFast"
    identity: TeacherIdentity
    spec: RendererSpec
    metadata: dict[str, Any]
    """As docs/format.md lists it, but for what only the loaded teacher knows."""

    @property
    def fingerprint(self) -> str:
        """Of what decides a row's content."""
        return fingerprint(self.metadata)

    @cached_property
    def renderer(self) -> ChatRenderer:
        """Used by one thread at a time."""
        return ChatRenderer(self.spec, self.tokenizer)

    @property
    def longest(self) -> float:
        """Tokens a conversation may have: --max-seq-len or the model's context, whichever is less."""
        return min(self.config.max_seq_len or np.inf, self.identity.context or np.inf)

    @property
    def too_long(self) -> Unusable:
        """What is said of longer ones."""
        return Unusable(f"longer than {self.longest:,} tokens")

    @property
    def pad_id(self) -> int:
        """What batches are padded with; its logits are never read."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id or 0)


@dataclass(frozen=True)
class Plan:
    """The conversations to compute, in the source's order."""

    rows: Int64
    lengths: Int64
    """[rows] tokens"""


def prepare_run(config: ExtractionConfig, stored: StoredRun | None) -> PreparedRun:
    """Open source, tokenizer and model config. With `stored`, its commits, date and type are taken where the options
    leave them open. Raises InputErrors for all that can't be used."""
    before: dict[str, Any] = dict(stored.metadata) if stored else {}

    def kept(field: str, *options: str) -> Any:
        """What the stored run resolved these options to, if they are what they were."""
        same = stored is not None and all(stored.config.get(name) == getattr(config, name) for name in options)
        return before.get(field) if same else None

    identity = identify_teacher(config, kept("model_revision", "model", "revision"))
    tokenizer = load_tokenizer(identity.address, identity.commit, config.trust_remote_code)
    if identity.vocabulary is not None:
        vocabulary_in_use(config, identity.name, identity.vocabulary, len(tokenizer))
    end_ids = {*identity.end_ids, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])}
    spec = renderer_spec(config, tokenizer, identity.commit, sorted(end_ids), before.get("pinned_date"))
    source = open_source(config, kept("source_revision", "dataset", "dataset_revision"))
    log.info("reading %s", source.describe())
    # A run keeps its method: another would mark other tokens.
    method = kept("mask_method", "mask_source", "chat_template")
    spec = dataclasses.replace(spec, mask_method=method) if method else choose_mask(spec, tokenizer, config, source)
    dtype = kept("model_dtype", "dtype")
    if dtype is None:
        dtype = str(resolve_dtype(config.dtype, resolve_device(config.device))).removeprefix("torch.")
    metadata = {
        "format_version": FORMAT_VERSION,
        "model": identity.name,
        "model_revision": identity.commit,
        "model_content": identity.content,
        "model_dtype": dtype,
        **rendering_metadata(spec, tokenizer),
        "turns": config.turns,
        "exclusions": [*named(spec.think_tags), *["end_tokens"] * config.exclude_end_tokens],
        **source_metadata(source),
        "top_p": config.top_p,
        "top_p_max_elements": config.top_p_max_elements,
        "sampled_n": config.sampled_n,
        "vocab_limit": config.vocab_limit,
        "seed": config.seed,
        "store_tokens": config.store_tokens,
        "versions": {
            "teacher_logits": __version__,
            **{name: importlib.metadata.version(name) for name in ("torch", "transformers")},
        },
    }
    metadata["fingerprint"] = fingerprint(metadata)
    run = PreparedRun(config, source, tokenizer, identity, spec, metadata)
    log_mask_method(run.renderer)
    return run


def plan_rows(run: PreparedRun, done: Int64, skipped: SkippedLog) -> Plan:
    """The selected conversations that are in no shard yet, with their lengths; those that can't be used go to
    `skipped`. Raises DatasetError or ChatTemplateError where none of the selected can be used."""
    config, source = run.config, run.source
    selected = select_rows(source, config)
    rows = selected[~np.isin(source.index[selected], done)]
    if not len(rows):
        return Plan(rows, np.zeros(0, np.int64))
    table = _lengths(run, rows)
    reasons = dict(table.reasons)
    for place in np.flatnonzero(table.lengths > run.longest).tolist():
        reasons.setdefault(place, str(run.too_long))
    for place, reason in reasons.items():
        skipped.add(int(source.index[rows[place]]), reason)
    usable = np.ones(len(rows), np.bool_)
    usable[list(reasons)] = False
    skipped.drop(source.index[rows[usable]].tolist())
    if not usable.any() and not len(done):
        refuse_all(Counter(reasons.values()))
    return Plan(rows[usable], table.lengths[usable])


def _lengths(run: PreparedRun, rows: Int64) -> LengthTable:
    """Token lengths of the rows, from where the options say. A few conversations are rendered in any case, so that
    a template that marks nothing is refused before anything long begins."""
    examples = run.renderer.render(run.source.conversations(rows[:_TRIAL]))
    if all(isinstance(example, Unusable) and str(example) == NO_ASSISTANT_TOKENS for example in examples):
        refuse_all(Counter(map(str, examples)))
    lengths = known_lengths(run.config, run.source, run.metadata, rows)
    if lengths is None:
        return count_lengths(run.source, rows, run.renderer)
    true_lengths = [0 if isinstance(example, Unusable) else len(example.input_ids) for example in examples]
    warn_of_wrong_lengths(run.source.index[rows], lengths, true_lengths)
    return _completed(run, rows, lengths)


def _completed(run: PreparedRun, rows: Int64, lengths: Int64) -> LengthTable:
    """Lengths that were counted elsewhere are good enough to make batches of, but not to skip a conversation for:
    those that would be, and those that are missing, are counted here."""
    missing, too_long = lengths <= 0, lengths > run.longest
    reasons: dict[int, str] = {}
    doubted = np.flatnonzero(missing | too_long)
    if len(doubted):
        log.info(
            "%s conversations have no known length, or one beyond the context: these are counted", f"{len(doubted):,}"
        )
        again = count_lengths(run.source, rows[doubted], run.renderer)
        lengths = lengths.copy()
        lengths[doubted] = again.lengths
        reasons = {int(doubted[place]): reason for place, reason in again.reasons.items()}
    return LengthTable(lengths, np.zeros(len(rows), np.int64), reasons)


def refuse_all(reasons: "Counter[str]") -> None:
    """Raise ChatTemplateError or DatasetError: not one conversation can be used, for these reasons."""
    total = reasons.total()
    found = ", ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common(5))
    if set(reasons) == {NO_ASSISTANT_TOKENS}:
        raise ChatTemplateError(
            f"0 assistant tokens in the first {total:,} conversations: the template's generation markers "
            "enclose nothing of them (or --exclude-think-tokens and --exclude-end-tokens leave nothing). Leave the "
            "markers aside with --mask-source prefix or sentinel, or pass another with --chat-template FILE."
        )
    raise DatasetError(
        f"None of the {total:,} conversations can be used: {found}. Look at a few rows and at the options that say "
        "what is read of them (columns, template, length)."
    )


def stored_options(config: ExtractionConfig) -> dict[str, Any]:
    """The options as they are kept for --resume. Those that say how to go on are not part of them, nor is the trust in
    a model's code: an output that somebody else wrote must not make a program run."""
    return dataclasses.replace(
        config,
        resume=False,
        force_restart=False,
        full_dataset=False,
        verify_mask=False,
        verify_mask_only=False,
        config=None,
        trust_remote_code=False,
    ).as_dict()
