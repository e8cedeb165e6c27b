"""The tokens of a dataset that was written without them: the conversation rendered again, or nothing at all.

A token beside the wrong distribution would be worse than none. So everything that decides the tokens must be what the
run's fingerprint says it was, there must be as many of them as are stored, and their log-probabilities must be those
that the stored distributions give them.
"""

import functools
import json
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teacher_logits.codec.quantize import STEPS
from teacher_logits.errors import DatasetError, FormatError
from teacher_logits.exploring.decoding import Sample, dequantize_sampled_logits, dequantize_top_logits
from teacher_logits.exploring.runs import CHECKPOINT, config_of, open_chats
from teacher_logits.records import Conversation, Example
from teacher_logits.settings import ExtractionConfig, differing_fields, fingerprint

_FLOAT32 = 2.0**-22
"""Room for a few roundings to float32, relative to the number, or to 1 where that is smaller."""
_RECIPE: Mapping[str, Callable[[Any], bool]] = {
    "chat_template": lambda value: isinstance(value, str),
    "pinned_date": lambda value: value is None or _is_date(value),
    "mask_method": lambda value: value in ("template", "prefix", "sentinel"),
    "exclusions": lambda value: _are_exclusions(value),
    "turns": lambda value: value in ("all", "last"),
    "model_revision": lambda value: value is None or isinstance(value, str),
}
"""What the metadata must tell, and whether a value can be it."""


def retokenized(sample: Sample, dataset: str | None = None) -> Sample:
    """The sample with `input_ids` and `positions`; itself where it has them.

    sample: of a dataset written with --no-store-tokens, as `get_sample` gives it. Its conversation is read from the
    source dataset that checkpoint.json names, and rendered with the chat template that stands there. Source and
    tokenizer are opened once for all samples of a run. No code that comes with a model is run.
    dataset: where the source is now, if it isn't where the run read it.

    Raises FormatError where anything that decides the tokens isn't what it was, or the tokens don't fit the stored
    distributions; DatasetError and TeacherError where source or tokenizer can't be opened.
    """
    if "input_ids" in sample and "positions" in sample:
        return sample
    run = sample.get("run") or {}
    config, metadata = (dict(run.get(part) or {}) for part in ("config", "metadata"))
    if not config or not metadata:
        raise FormatError(
            f"This sample doesn't tell the options of its run, which stand in {CHECKPOINT}; its tokens can't be had "
            "again. Take it from a dataset that has the file, with get_sample or load_logit_dataset."
        )
    if dataset is not None:
        config["dataset"] = dataset
    try:
        run_again = _run_of(json.dumps([config, metadata], sort_keys=True))
    except DatasetError as error:
        raise FormatError(
            f"The source dataset of the run can't be opened: {error} Its options name it as seen from the folder where "
            "the run was started; say where it is now with dataset= in Python (of dataset_report source_dataset=), "
            "--dataset in a terminal."
        ) from error
    example = run_again.example(sample["index"])
    _check(sample, example)
    return {**sample, "input_ids": example.input_ids, "positions": example.positions}


class _Run:
    """The source and the renderer of a run, as they were."""

    def __init__(self, config: ExtractionConfig, metadata: Mapping[str, Any]) -> None:
        """Raises FormatError where they have changed."""
        from teacher_logits import conversations

        _require_recipe(metadata)
        if not config.model:
            raise FormatError(f"{CHECKPOINT} names no model; the tokens can't be had again.")
        chats = open_chats(config, metadata)
        commit = metadata.get("model_revision")
        tokenizer = conversations.load_tokenizer(config.model, commit, trust_remote_code=False)
        now = dict(metadata)
        end_ids: tuple[int, ...] = ()
        if "end_tokens" in metadata["exclusions"]:
            from teacher_logits.teacher import identify_teacher

            identity = identify_teacher(config, commit)
            eos = tokenizer.eos_token_id
            end_ids = tuple(sorted({*identity.end_ids, *([] if eos is None else [eos])}))
            now["model_content"] = identity.content
        spec = conversations.RendererSpec(
            model=config.model,
            revision=commit,
            trust_remote_code=False,
            template=metadata["chat_template"],
            pinned_date=metadata["pinned_date"],
            mask_method=metadata["mask_method"],
            think_tags=conversations.tags_named(metadata["exclusions"]),
            end_ids=end_ids,
            turns=metadata["turns"],
        )
        now |= conversations.source_metadata(chats) | conversations.rendering_metadata(spec, tokenizer)
        differing = differing_fields(metadata, now)
        if differing:
            raise FormatError(
                "The conversations can't be rendered as they were, so their tokens are not known. Different now: "
                f"{'; '.join(differing)}."
            )
        self._renderer, self._chats = conversations.ChatRenderer(spec, tokenizer), chats

    def example(self, index: int) -> Example:
        """The conversation of that number. Raises FormatError where there is none, or none that can be used."""
        rows = np.flatnonzero(self._chats.index == index)
        if not len(rows):
            raise FormatError(f"The source dataset {self._chats.name} has no conversation {index}.")
        (conversation,) = self._chats.conversations(rows)
        (found,) = self._renderer.render([conversation]) if isinstance(conversation, Conversation) else (conversation,)
        if isinstance(found, Example):
            return found
        raise FormatError(f"Conversation {index} can't be rendered again: {found}.")


@functools.lru_cache(maxsize=2)
def _run_of(config_and_metadata: str) -> _Run:
    config, metadata = json.loads(config_and_metadata)
    return _Run(config_of(config), metadata)


def _require_recipe(metadata: Mapping[str, Any]) -> None:
    """Raise FormatError where the metadata isn't what its fingerprint was made of, or lacks what rendering needs."""
    for name, usable in _RECIPE.items():
        if name not in metadata or not usable(metadata[name]):
            raise FormatError(f"{CHECKPOINT} doesn't tell the run's {name}; its tokens can't be had again.")
    try:
        whole = fingerprint(metadata) == metadata.get("fingerprint")
    except (KeyError, ValueError):
        whole = False
    if not whole:
        raise FormatError(
            f"The metadata in {CHECKPOINT} is not what its fingerprint was made of, so it doesn't tell how the run has "
            "rendered its conversations. Get the file as the run wrote it."
        )


def _is_date(value: Any) -> bool:
    try:
        date.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return True


def _are_exclusions(value: Any) -> bool:
    from teacher_logits.conversations.thoughts import named, tags_named

    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return False
    others = [name for name in value if name != "end_tokens"]
    try:
        return named(tags_named(others)) == others
    except ValueError:
        return False


def _check(sample: Sample, example: Example) -> None:
    """Raise FormatError where the tokens aren't those of the stored distributions."""
    found = len(example.positions)
    if found != sample["num_tokens"]:
        raise FormatError(
            f"Conversation {sample['index']} has {found:,} assistant tokens when it is rendered again, and "
            f"{sample['num_tokens']:,} are stored. Another version of transformers or tokenizers may have made it."
        )
    wrong = _disagreeing(sample, example.input_ids[example.positions])
    if wrong.any():
        first = int(wrong.argmax())
        raise FormatError(
            f"Conversation {sample['index']}: {wrong.sum():,} of {found:,} tokens don't have the log-probability that "
            f"is stored with them, the first at position {example.positions[first]}. Either they are not the tokens "
            "that the teacher saw, or the dataset is damaged; look at it with verify."
        )


def _disagreeing(sample: Sample, tokens: NDArray[np.integer]) -> NDArray[np.bool_]:
    """[n] true where a token can't have the stored log-probability.

    It must be that of the stored logit where the token is among those, and else at most that of the smallest in the
    nucleus. All within half a step of quantization.
    """
    if "token_logprob" not in sample or not len(tokens):
        return np.zeros(len(tokens), np.bool_)
    stored = sample["token_logprob"].astype(np.float64)
    lowest, highest = np.full(len(stored), -np.inf), sample["top_min"] - sample["logsumexp"]
    parts = (
        ("sampled", dequantize_sampled_logits(sample, "float32")),
        ("top", dequantize_top_logits(sample, "float32")),
    )
    for kind, logits in parts:
        half_steps = (sample[f"{kind}_max"].astype(np.float64) - sample[f"{kind}_min"]) / STEPS / 2
        for entry, token in enumerate(tokens.tolist()):
            places = np.flatnonzero(sample[f"{kind}_indices"][entry] == token)
            if len(places):
                logprob = logits[entry][places[0]] - sample["logsumexp"][entry]
                lowest[entry], highest[entry] = logprob - half_steps[entry], logprob + half_steps[entry]
    room = _FLOAT32 * np.maximum(1.0, np.abs(np.where(np.isfinite(stored), stored, 0.0)))
    return ~((stored >= lowest - room) & (stored <= highest + room))
