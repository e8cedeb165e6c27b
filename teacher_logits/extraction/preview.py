"""What --verify-mask shows: a few conversations of a run, each token that is the assistant's marked."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from teacher_logits.conversations import MarkedConversation, Unusable, select_rows
from teacher_logits.conversations.thoughts import opens_thoughts
from teacher_logits.conversations.unprinted import THOUGHTS
from teacher_logits.extraction.prepare import PreparedRun, prepare_run, refuse_all
from teacher_logits.extraction.resume import find_stored_run, require_same_run
from teacher_logits.hub import open_repository, patiently
from teacher_logits.journal import RunCache
from teacher_logits.printable import visible
from teacher_logits.records import Conversation, Example
from teacher_logits.settings import ExtractionConfig

LOOKED_AT = 300
"""Conversations from which the ones to show are taken."""
_SPEAKING = ("tool_calls", *THOUGHTS)


@dataclass(frozen=True)
class MaskPreview:
    """A few conversations of a run."""

    method: str
    share: float
    """Of the tokens of all that were looked at, those that are marked."""
    looked_at: int
    skipped: Counter[str]
    """Of these, those that can't be used, by reason."""
    shown: list[tuple[str, MarkedConversation]]
    """Each with what it stands for."""

    def text(self, show: Callable[[MarkedConversation], str] = MarkedConversation.text) -> str:
        """All of it. show: how a conversation is written; by default with its assistant tokens between [[ and ]]."""
        lines = [
            f"assistant tokens by --mask-source {self.method}: {self.share:.0%} of the tokens of the first "
            f"{self.looked_at:,} conversations",
            *(f"{count:,} of them can't be used: {visible(reason)}" for reason, count in self.skipped.most_common(5)),
        ]
        for title, seen in self.shown:
            share = f"{seen.marked.sum():,} of {len(seen.marked):,} tokens marked"
            lines += ["", f"--- {title}: {share}", "", show(seen)]
        return "\n".join(lines)


def preview_mask(config: ExtractionConfig) -> MaskPreview:
    """What a run with these options would mark. Nothing is written; with --resume, as the stored run does it."""
    stored = None
    if config.require_complete().resume:
        repository = open_repository(str(config.output), config.private)
        cache = RunCache(Path(config.cache_dir).expanduser())
        stored = find_stored_run(config, cache, repository, patiently(repository.snapshot))
    run = prepare_run(config, stored)
    if stored is not None:
        require_same_run(stored, run.metadata, str(config.output))
    return mask_preview(run)


def mask_preview(run: PreparedRun) -> MaskPreview:
    """The preview of a prepared run. Raises DatasetError or ChatTemplateError where none of the first can be used."""
    rows = select_rows(run.source, run.config)[:LOOKED_AT]
    found = list(run.source.conversations(rows))
    examples = run.renderer.render(found)
    skipped = Counter(str(example) for example in examples if isinstance(example, Unusable))
    usable = [
        (conversation, example)
        for conversation, example in zip(found, examples, strict=True)
        if isinstance(conversation, Conversation) and isinstance(example, Example)
    ]
    if not usable:
        refuse_all(skipped)
    tokens = sum(len(example.input_ids) for _, example in usable)
    share = sum(len(example.positions) for _, example in usable) / tokens
    shown = [(title, run.renderer.look(conversation)) for title, conversation in _chosen(usable)]
    return MaskPreview(run.spec.mask_method, share, len(rows), skipped, shown)


def _chosen(usable: list[tuple[Conversation, Example]]) -> Iterator[tuple[str, Conversation]]:
    """The conversations to show, with what each stands for; none twice."""
    conversations = [conversation for conversation, _ in usable]
    longest, _ = max(usable, key=lambda pair: len(pair[1].input_ids))
    kinds = [
        ("the first", conversations[0]),
        ("one with several turns", next(filter(_has_turns, conversations), None)),
        ("one with tools or thoughts", next(filter(_has_more, conversations), None)),
        ("the longest", longest),
    ]
    seen: set[int] = set()
    for title, conversation in kinds:
        if conversation is not None and conversation.index not in seen:
            seen.add(conversation.index)
            yield f"{title} (index {conversation.index})", conversation


def _has_turns(conversation: Conversation) -> bool:
    return sum(message.get("role") == "assistant" for message in conversation.messages) > 1


def _has_more(conversation: Conversation) -> bool:
    said = [message for message in conversation.messages if message.get("role") == "assistant"]
    return bool(conversation.tools) or any(
        opens_thoughts(str(message.get("content"))) or any(message.get(key) for key in _SPEAKING) for message in said
    )
