"""Logits of chosen positions are the rows of the full logits, whatever the architecture and the batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from teacher_logits.errors import TeacherError
from teacher_logits.records import Example
from teacher_logits.settings import ExtractionConfig
from teacher_logits.teacher import Teacher, forward, identify_teacher, load_teacher
from teacher_logits.teacher.forward import masked_logits
from tests.tiny import ARCHITECTURES, WIDTH, tiny_model

CLOSE = {"rtol": 0.0, "atol": 1e-3}
"""float32 rounding of logits of 20 and more; another position differs by 20."""


def teacher_of(folder: Path, **options: Any) -> Teacher:
    config = ExtractionConfig(model=str(folder), device="cpu", **options)
    return load_teacher(config, identify_teacher(config), 384, 383)


def made(model: PreTrainedModel, by_hook: bool = False) -> Teacher:
    """A teacher round a model that is already there."""
    cpu, kind = torch.device("cpu"), torch.float32
    return Teacher(model, cpu, kind, WIDTH, WIDTH, kind, by_hook)


def batch(seed: int = 0, lengths: tuple[int, ...] = (21, 13, 1, 17)) -> tuple[Tensor, Tensor, Tensor]:
    """Right-padded ids, attention, and scattered choices: none in the third row, the last token in the fourth."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    ids = torch.randint(3, 380, shape, generator=generator)
    attention = (torch.arange(shape[1]) < torch.tensor(lengths)[:, None]).long()
    chosen = (torch.rand(shape, generator=generator) < 0.4) & attention.bool()
    chosen[2] = False
    chosen[3, lengths[3] - 1] = True
    return ids * attention, attention, chosen


def full(model: PreTrainedModel, ids: Tensor, attention: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(ids, attention_mask=attention, use_cache=False).logits


def alone(model: PreTrainedModel, ids: Tensor, attention: Tensor, chosen: Tensor) -> Tensor:
    """The chosen rows, each conversation by itself and without padding."""
    rows = []
    for row, length in enumerate(attention.sum(1).tolist()):
        with torch.inference_mode():
            rows.append(model(ids[row : row + 1, :length], use_cache=False).logits[0][chosen[row, :length]])
    return torch.cat(rows)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
class TestEveryArchitecture:
    def test_rows_of_the_full_logits(self, architecture: str, save_tiny_teacher: Callable[..., Path]) -> None:
        teacher = teacher_of(save_tiny_teacher(architecture))
        assert (teacher.vocab_size, teacher.vocab_used, teacher.by_hook) == (WIDTH, WIDTH, False)
        assert teacher.decoder_once
        ids, attention, chosen = batch()
        (rows,) = teacher.logits(ids, attention, chosen)
        assert rows.shape == (int(chosen.sum()), WIDTH)
        assert torch.equal(rows, full(teacher.model, ids, attention)[chosen])
        assert torch.allclose(rows, alone(teacher.model, ids, attention, chosen), **CLOSE)

    def test_by_the_hook(self, architecture: str, save_tiny_teacher: Callable[..., Path]) -> None:
        model = teacher_of(save_tiny_teacher(architecture)).model
        ids, attention, chosen = batch(1)
        hooked = list(made(model, by_hook=True).logits(ids, attention, chosen))
        assert torch.equal(hooked[0], full(model, ids, attention)[chosen])
        assert full(model, ids, attention).shape == (4, 21, WIDTH)  # the hook is gone again

    def test_the_answer_is_not_the_output_embedding_alone(
        self, architecture: str, save_tiny_teacher: Callable[..., Path]
    ) -> None:
        """These architectures do something after it, which the rows must have too."""
        model = teacher_of(save_tiny_teacher(architecture)).model
        ids, attention, chosen = batch(2)
        caught: list[Tensor] = []
        handle = model.get_output_embeddings().register_forward_hook(lambda module, inputs, out: caught.append(out))
        (rows,) = made(model).logits(ids, attention, chosen)
        handle.remove()
        assert caught[0].shape == rows.shape  # the head ran on the chosen rows and on no others
        scaled = architecture in ("gemma2", "gemma3_text", "cohere", "granite")
        assert torch.allclose(caught[0], rows) == (not scaled)


def test_models_are_what_these_tests_need() -> None:
    """Peaked, and different from position to position: else a wrong row would look right."""
    ids, attention, _ = batch()
    for architecture in ARCHITECTURES:
        logits = full(tiny_model(architecture), ids[:1], attention[:1])[0]
        assert logits.std() > 5
        assert (logits[1:] - logits[:-1]).abs().amax(1).min() > 5


class TestPieces:
    @pytest.mark.parametrize("by_hook", [False, True])
    @pytest.mark.parametrize("rows", [0, 1, 2, 5, 10_000])
    def test_of_any_size_give_the_same_rows(self, rows: int, by_hook: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        teacher = made(tiny_model(), by_hook)
        ids, attention, chosen = batch()
        (whole,) = teacher.logits(ids, attention, chosen)
        monkeypatch.setattr(forward, "LOGITS_BYTES", rows * WIDTH * 4)
        pieces = list(teacher.logits(ids, attention, chosen))
        assert all(0 < len(piece) <= max(1, rows) for piece in pieces)
        assert torch.allclose(torch.cat(pieces), whole, **CLOSE)
        assert len(torch.cat(pieces)) == int(chosen.sum())

    @pytest.mark.parametrize("by_hook", [False, True])
    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_take_one_pass_through_the_decoder(
        self, architecture: str, by_hook: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        teacher = made(tiny_model(architecture), by_hook)
        passes = []
        layer = next(module for module in teacher.model.modules() if isinstance(module, torch.nn.Embedding))
        layer.register_forward_hook(lambda *_: passes.append(1))
        monkeypatch.setattr(forward, "LOGITS_BYTES", 3 * WIDTH * 4)
        for seed in (3, 4):  # another batch isn't answered with what the decoder gave for the one before
            ids, attention, chosen = batch(seed)
            passes.clear()
            pieces = list(teacher.logits(ids, attention, chosen))
            assert len(pieces) > 3 and len(passes) == 1
            assert torch.allclose(torch.cat(pieces), full(teacher.model, ids, attention)[chosen], **CLOSE)
        assert "forward" not in vars(teacher.model.base_model)

    def test_a_decoder_with_a_forward_of_its_own_keeps_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        teacher = made(tiny_model())
        decoder = teacher.model.base_model
        decoder.forward = own = decoder.forward
        monkeypatch.setattr(forward, "LOGITS_BYTES", 3 * WIDTH * 4)
        ids, attention, chosen = batch()
        pieces = list(teacher.logits(ids, attention, chosen))
        assert decoder.forward is own
        assert torch.allclose(torch.cat(pieces), full(teacher.model, ids, attention)[chosen], **CLOSE)

    def test_bytes_are_those_of_the_logits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(forward, "LOGITS_BYTES", 4 * WIDTH * 4)
        teacher = made(tiny_model())
        ids, attention, chosen = batch()
        assert max(len(piece) for piece in teacher.logits(ids, attention, chosen)) == 4
        monkeypatch.setattr(forward, "LOGITS_BYTES", 4 * WIDTH * 8)
        assert max(len(piece) for piece in teacher.logits(ids, attention, chosen)) == 8

    def test_nothing_chosen(self) -> None:
        ids, attention, chosen = batch()
        assert sum(len(piece) for piece in made(tiny_model()).logits(ids, attention, chosen & False)) == 0

    def test_no_gradients(self) -> None:
        (rows,) = made(tiny_model()).logits(*batch())
        assert rows.is_inference() and not rows.requires_grad


def test_a_row_predicts_the_token_after_it() -> None:
    """From an example through its batch to the logits: the row of a token was computed without having seen it."""
    from teacher_logits.batching import collate

    teacher = made(tiny_model())
    ids = torch.arange(5, 17).numpy().astype("int32")
    positions = torch.tensor([1, 4, 11]).numpy().astype("int32")

    def rows(input_ids: Any) -> Tensor:
        joined = collate([Example(0, input_ids, positions)], pad_id=0)
        arrays = (joined.input_ids, joined.attention_mask, joined.predicts)
        return torch.cat(list(teacher.logits(*(torch.from_numpy(array) for array in arrays))))

    before = rows(ids)
    expected = full(teacher.model, torch.from_numpy(ids).long()[None], torch.ones(1, 12, dtype=torch.long))[0]
    assert torch.allclose(before, expected[[0, 3, 10]], **CLOSE)
    for place, position in enumerate(positions):
        changed = ids.copy()
        changed[position] = 300
        different = (rows(changed) - before).abs().amax(1) > 1
        assert different.tolist() == [later > place for later in range(3)]


class WithoutArgument(LlamaForCausalLM):
    """As many models of others: the forward method knows nothing of `logits_to_keep`."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, use_cache: bool = False) -> Any:
        return super().forward(input_ids, attention_mask=attention_mask, use_cache=use_cache)


class IgnoresArgument(LlamaForCausalLM):
    """Takes any argument and heeds none."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Any:
        return super().forward(input_ids, attention_mask=attention_mask, use_cache=False)


class SlicesTheOldWay(LlamaForCausalLM):
    """Knows `logits_to_keep` as a number only, and looks at its logits as [B, L, V] afterwards."""

    def forward(self, input_ids: Tensor, attention_mask: Any = None, logits_to_keep: int = 0, **_: Any) -> Any:
        hidden = self.model(input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        logits = self.lm_head(hidden[:, -logits_to_keep:, :])
        return CausalLMOutput(logits=logits[:, :, :WIDTH])


class WrongRows(LlamaForCausalLM):
    """Gives logits of the right shape for other positions."""

    def forward(self, input_ids: Tensor, attention_mask: Any = None, logits_to_keep: Any = 0, **_: Any) -> Any:
        kept = logits_to_keep.roll(1, dims=1) if isinstance(logits_to_keep, Tensor) else logits_to_keep
        return super().forward(input_ids, attention_mask=attention_mask, use_cache=False, logits_to_keep=kept)


class WithoutHead(WithoutArgument):
    """Nothing to hang a hook on."""

    def get_output_embeddings(self) -> Any:
        return None


class HookedInVain(WithoutArgument):
    """Its output embedding is not what makes its logits."""

    def get_output_embeddings(self) -> Any:
        return torch.nn.Identity()


class TwoPasses(LlamaForCausalLM):
    """Calls its decoder twice, as guided models do."""

    def forward(self, input_ids: Tensor, attention_mask: Any = None, logits_to_keep: Any = 0, **_: Any) -> Any:
        given = {"logits_to_keep": logits_to_keep, "use_cache": False}
        plain = super().forward(input_ids, attention_mask, **given).logits
        unguided = super().forward(torch.full_like(input_ids, 5), attention_mask, **given).logits
        return CausalLMOutput(logits=plain - 0.5 * unguided)


class ScaledInPlace(LlamaForCausalLM):
    """Changes what its decoder gave, where it stands."""

    def forward(self, input_ids: Tensor, attention_mask: Any = None, logits_to_keep: Any = 0, **_: Any) -> Any:
        hidden = self.model(input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        hidden.mul_(0.5)
        kept = hidden[logits_to_keep] if isinstance(logits_to_keep, Tensor) else hidden
        return CausalLMOutput(logits=self.lm_head(kept))


def as_class(kind: type[LlamaForCausalLM]) -> PreTrainedModel:
    model = tiny_model()
    model.__class__ = kind
    return model


class TestOtherModels:
    @pytest.mark.parametrize("kind", [WithoutArgument, IgnoresArgument, SlicesTheOldWay, WrongRows])
    def test_rows_come_by_the_hook(
        self, kind: type[LlamaForCausalLM], tiny_teacher: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = as_class(kind)
        monkeypatch.setattr(forward, "_load", lambda *arguments: model)
        teacher = teacher_of(tiny_teacher)
        assert teacher.by_hook
        ids, attention, chosen = batch()
        (rows,) = teacher.logits(ids, attention, chosen)
        assert torch.equal(rows, full(tiny_model(), ids, attention)[chosen])

    @pytest.mark.parametrize("kind", [TwoPasses, ScaledInPlace])
    def test_pieces_run_the_whole_model_where_that_is_needed(
        self, kind: type[LlamaForCausalLM], tiny_teacher: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = as_class(kind)
        monkeypatch.setattr(forward, "_load", lambda *arguments: model)
        teacher = teacher_of(tiny_teacher)
        assert not teacher.decoder_once
        ids, attention, chosen = batch()
        (whole,) = teacher.logits(ids, attention, chosen)
        monkeypatch.setattr(forward, "LOGITS_BYTES", 3 * WIDTH * 4)
        pieces = list(teacher.logits(ids, attention, chosen))
        assert len(pieces) > 3
        assert torch.allclose(torch.cat(pieces), whole, **CLOSE)

    @pytest.mark.parametrize("kind", [WithoutHead, HookedInVain])
    def test_neither_way_is_refused(
        self, kind: type[LlamaForCausalLM], tiny_teacher: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(forward, "_load", lambda *arguments: as_class(kind))
        with pytest.raises(TeacherError, match=f"{kind.__name__} gives no logits for chosen positions"):
            teacher_of(tiny_teacher)

    def test_a_hook_is_removed_when_the_model_fails(self) -> None:
        model = tiny_model()
        ids, attention, chosen = batch()
        with pytest.raises(IndexError):
            masked_logits(model, ids + 10_000, attention, chosen, by_hook=True)
        assert not model.get_output_embeddings()._forward_pre_hooks


class TestTypes:
    @pytest.mark.parametrize("kind", ["float64", "float32", "bfloat16"])
    def test_logits_come_in_the_type_that_was_asked_for(self, kind: str, tiny_teacher: Path) -> None:
        teacher = teacher_of(tiny_teacher, dtype=kind)
        assert teacher.dtype == teacher.logits_dtype == getattr(torch, kind)
        assert teacher.bytes_per_number == teacher.dtype.itemsize
        ids, attention, chosen = batch()
        (rows,) = teacher.logits(ids, attention, chosen)
        assert rows.dtype == teacher.dtype
        exact = full(tiny_model(), ids, attention)[chosen]
        error = {"float64": 1e-3, "float32": 1e-3, "bfloat16": 2.0}[kind]
        assert (rows.double() - exact).abs().mean() < error

    def test_attention_makes_no_difference(self, tiny_teacher: Path) -> None:
        arguments = batch()
        results = [next(teacher_of(tiny_teacher, attn=attn).logits(*arguments)) for attn in ("eager", "sdpa", "auto")]
        assert torch.allclose(results[0], results[1], **CLOSE)
        assert torch.equal(results[1], results[2])

    def test_padding_ids_are_never_seen(self, tiny_teacher: Path) -> None:
        teacher = teacher_of(tiny_teacher)
        ids, attention, chosen = batch()
        (rows,) = teacher.logits(ids, attention, chosen)
        (other,) = teacher.logits(torch.where(attention == 0, 17, ids), attention, chosen)
        assert torch.equal(rows, other)
