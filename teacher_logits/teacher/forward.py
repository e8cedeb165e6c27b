"""The teacher's logits at chosen positions, without computing them anywhere else.

Legend: B conversations, L padded length, P chosen positions, V vocabulary.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from teacher_logits.errors import TeacherError
from teacher_logits.settings import MAX_VOCABULARY, ExtractionConfig
from teacher_logits.teacher.identity import TeacherIdentity
from teacher_logits.teacher.placement import attention_choices, resolve_device, resolve_dtype

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_REFUSALS = (TypeError, ValueError, IndexError, AttributeError, RuntimeError)
"""What a model raises that can't give logits in the way it is tried."""
LOGITS_BYTES = 2 << 30
"""Logits computed at a time. Where a batch has more, the head runs over its hidden states piece by piece."""


@dataclass(frozen=True)
class Teacher:
    """A loaded model and how to get rows of logits from it."""

    model: "PreTrainedModel"
    device: torch.device
    dtype: torch.dtype
    """Type it computes in."""
    vocab_size: int
    """Width of its logits."""
    vocab_used: int
    """Token ids from here on count as impossible."""
    logits_dtype: torch.dtype
    """Type of the logits themselves (float32 where the model caps them in float32)."""
    by_hook: bool
    """Whether rows are chosen by a hook on the output embedding, for models without `logits_to_keep`."""
    decoder_once: bool = True
    """Whether logits in pieces need the decoder's work only once. Not for models that call it several times, or change
    what it gave."""

    @property
    def bytes_per_number(self) -> int:
        """Bytes of one number of the type it computes in."""
        return self.dtype.itemsize

    @property
    def hidden_size(self) -> int:
        """Width of its hidden states."""
        return int(self.model.config.get_text_config().hidden_size)

    def logits(self, input_ids_BL: Tensor, attention_mask_BL: Tensor, predicts_BL: Tensor) -> Iterator[Tensor]:
        """Logits of the positions where `predicts_BL` is true, row by row, in pieces of bounded size [p, V].

        All tensors lie on the model's device; `predicts_BL` is bool. The pieces together hold one row a true entry.
        """
        places = predicts_BL.nonzero()
        rows = max(1, LOGITS_BYTES // (self.vocab_size * self.logits_dtype.itemsize))
        pieces = places.split(rows)
        kept: list[Any] = []
        for number, piece in enumerate(pieces):
            chosen = torch.zeros_like(predicts_BL)
            chosen[piece[:, 0], piece[:, 1]] = True
            once = self.decoder_once and len(pieces) > 1
            with torch.inference_mode(), _decoder_once(self.model, kept) if once else contextlib.nullcontext():
                logits = masked_logits(self.model, input_ids_BL, attention_mask_BL, chosen, self.by_hook)
            if number == len(pieces) - 1:
                kept.clear()  # nobody needs it while the last piece is worked on
            yield logits


def masked_logits(
    model: "PreTrainedModel", input_ids_BL: Tensor, attention_mask_BL: Tensor, chosen_BL: Tensor, by_hook: bool
) -> Tensor:
    """[P, V] logits where `chosen_BL` is true, in row-by-row order.

    The rows are chosen before the output embedding, and whatever the model does after it (scaling, soft-capping)
    is kept. Calling the output embedding directly would leave that out and be wrong for Gemma, Cohere or Granite.
    """
    arguments: dict[str, Any] = {"attention_mask": attention_mask_BL, "use_cache": False}
    if not by_hook:
        return model(input_ids_BL, logits_to_keep=chosen_BL, **arguments).logits
    with _rows_before_head(model, chosen_BL):
        return model(input_ids_BL, **arguments).logits[0]


@contextlib.contextmanager
def _rows_before_head(model: "PreTrainedModel", chosen_BL: Tensor) -> Iterator[None]:
    def select(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][chosen_BL][None], *inputs[1:])  # as one long sequence: [1, P, hidden]

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _decoder_once(model: "PreTrainedModel", kept: list[Any]) -> Iterator[None]:
    """Let the decoder below the head run where `kept` is empty, and else give again what it gave then.

    What a model does between its decoder and its logits (scaling, soft-capping) is its own and can't be called apart
    from its forward pass, so that is called again with the decoder's work left out.
    """
    decoder = model.base_model
    if decoder is model:
        yield
        return
    own = vars(decoder).get("forward")  # put there by accelerate, where the model is spread over devices
    forward = decoder.forward

    def once(*arguments: Any, **named: Any) -> Any:
        if not kept:
            kept.append(forward(*arguments, **named))
        return kept[0]

    decoder.forward = once
    try:
        yield
    finally:
        if own is None:
            del decoder.forward
        else:
            decoder.forward = own


def load_teacher(
    config: ExtractionConfig,
    identity: TeacherIdentity,
    tokenizer_length: int,
    largest_id: int,
    dtype: str | None = None,
) -> Teacher:
    """Load the model, find out how rows of its logits are had, and check that the format can hold them.

    tokenizer_length, largest_id: length of the tokenizer and its largest token id.   dtype: that of a resumed run.
    Raises TeacherError where the model can't be loaded or used.
    """
    device = resolve_device(config.device)
    kind = resolve_dtype(dtype or config.dtype, device)
    model = _load(config, identity, device, kind)
    embeddings = model.get_input_embeddings().weight.shape[0]
    if largest_id >= embeddings:
        raise TeacherError(
            f"The tokenizer has token ids up to {largest_id:,}, but the model {identity.name} knows {embeddings:,} "
            "tokens only. Use the tokenizer that belongs to the model."
        )
    device = model.get_input_embeddings().weight.device
    sample, by_hook, once = _find_masked_logits(model, device, min(embeddings, tokenizer_length))
    width = sample.shape[-1]
    return Teacher(
        model=model,
        device=device,
        dtype=kind,
        vocab_size=width,
        vocab_used=vocabulary_in_use(config, identity.name, width, tokenizer_length),
        logits_dtype=sample.dtype,
        by_hook=by_hook,
        decoder_once=once,
    )


def vocabulary_in_use(config: ExtractionConfig, name: str, width: int, tokenizer_length: int) -> int:
    """How many token ids count, by the width of the logits and --vocab-limit. Raises TeacherError where the format
    can't hold them, or too few are left for nucleus and sample."""
    limit = tokenizer_length if config.vocab_limit == "tokenizer" else config.vocab_limit
    used = width if limit is None else min(width, int(limit))
    if used > MAX_VOCABULARY:
        raise TeacherError(
            f"{name} has logits for {used:,} tokens; the format holds ids below {MAX_VOCABULARY:,} (16 + 2 bits). If "
            f"the ids above are only padding, pass --vocab-limit {MAX_VOCABULARY} or --vocab-limit tokenizer "
            f"({tokenizer_length:,})."
        )
    least = config.top_p_max_elements + config.sampled_n + 1
    if used < least:
        raise TeacherError(
            f"{name} has {used:,} tokens, fewer than --top-p-max + --sampled-n + 1 = {least}. Lower --top-p-max or "
            "--sampled-n."
        )
    return used


def _load(
    config: ExtractionConfig, identity: TeacherIdentity, device: torch.device, dtype: torch.dtype
) -> "PreTrainedModel":
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    failure: Exception | None = None
    for attention in attention_choices(config.attn, device, dtype):
        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                identity.address,
                revision=identity.commit,
                dtype=dtype,
                attn_implementation=attention,
                device_map=config.device_map or {"": device},
                trust_remote_code=config.trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
            )
            _require_all_weights(identity.name, report["missing_keys"])
            return model.eval()
        except (ValueError, ImportError) as error:
            failure = error  # this attention isn't supported by the model or not installed
        except (OSError, RuntimeError, KeyError, SafetensorError) as error:
            failure = error
            break
    first = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
    hint = " Its weights must be .safetensors files (others can hold programs)." if "safetensors" in first else ""
    raise TeacherError(f"The model {identity.name} can't be loaded: {first}{hint}") from failure


def _require_all_weights(name: str, missing: Iterable[str]) -> None:
    """Raise TeacherError where weights are missing: transformers would put random numbers in their place."""
    absent = sorted(missing)
    if absent:
        raise TeacherError(
            f"The model {name} lacks {len(absent):,} of the weights of its architecture, such as {absent[0]}. Pass a "
            "whole causal language model, not its body, an adapter or another kind of model."
        )


def _find_masked_logits(model: "PreTrainedModel", device: torch.device, vocabulary: int) -> tuple[Tensor, bool, bool]:
    """A few rows of logits, whether they need the hook, and whether the decoder need run only once for several pieces.

    Every way is held against the full logits of a short batch, since some models still slice the old way, and a model's
    own code may do anything. Raises TeacherError where neither hook nor argument agrees.
    """
    ids = (torch.arange(16, device=device).view(2, 8) * 37 + 11) % vocabulary
    attention = torch.ones_like(ids)
    attention[1, 6:] = 0
    chosen = torch.zeros_like(ids, dtype=torch.bool)
    chosen[0, 2:5], chosen[1, 1] = True, True
    with torch.inference_mode():
        full = model(ids, attention_mask=attention, use_cache=False).logits[chosen]
        for by_hook in (False, True):
            with contextlib.suppress(*_REFUSALS):
                rows = masked_logits(model, ids, attention, chosen, by_hook)
                if rows.shape == full.shape and _close(rows, full):
                    return rows, by_hook, _decoder_once_suffices(model, ids, attention, chosen, by_hook, full)
    raise TeacherError(
        f"{type(model).__name__} gives no logits for chosen positions: neither logits_to_keep nor a hook on its output "
        "embedding agrees with its full logits. This architecture is not supported."
    )


def _decoder_once_suffices(
    model: "PreTrainedModel", ids_BL: Tensor, attention_BL: Tensor, chosen_BL: Tensor, by_hook: bool, full_PV: Tensor
) -> bool:
    """Whether pieces of one row, with the decoder's work kept from the first, are those of the full logits."""
    kept: list[Any] = []
    rows = []
    for place in chosen_BL.nonzero():
        alone = torch.zeros_like(chosen_BL)
        alone[place[0], place[1]] = True
        try:
            with _decoder_once(model, kept):
                rows.append(masked_logits(model, ids_BL, attention_BL, alone, by_hook))
        except _REFUSALS:
            return False
    return _close(torch.cat(rows), full_PV)


def _close(rows: Tensor, full: Tensor) -> bool:
    """Equal up to the rounding of 16 bits. A teacher that gives NaN is found out conversation by conversation."""
    return torch.allclose(rows.float(), full.float(), rtol=0.02, atol=0.02, equal_nan=True)
