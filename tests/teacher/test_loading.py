"""What a teacher is, which are refused, and what the options about device, type and vocabulary mean."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from teacher_logits.errors import TeacherError
from teacher_logits.settings import ExtractionConfig
from teacher_logits.teacher import (
    Teacher,
    TeacherIdentity,
    default_batch_tokens,
    forward,
    identify_teacher,
    load_teacher,
    memory,
    placement,
)
from teacher_logits.teacher.forward import vocabulary_in_use
from teacher_logits.teacher.placement import attention_choices, resolve_device, resolve_dtype
from tests.tiny import CONTEXT, WIDTH, tiny_model

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def identity(folder: Path | str, **options: Any) -> TeacherIdentity:
    return identify_teacher(ExtractionConfig(model=str(folder), **options))


def load(folder: Path, tokenizer_length: int = 384, largest_id: int = 383, **options: Any) -> Teacher:
    config = ExtractionConfig(model=str(folder), device="cpu", **options)
    return load_teacher(config, identify_teacher(config), tokenizer_length, largest_id)


@pytest.fixture
def copy(tiny_teacher: Path, tmp_path: Path) -> Path:
    """A copy of the tiny teacher, to be changed."""
    return Path(shutil.copytree(tiny_teacher, tmp_path / "copy"))


def change(file: Path, **entries: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


class TestIdentity:
    def test_of_a_folder(self, tiny_teacher: Path) -> None:
        found = identity(tiny_teacher)
        assert (found.name, found.address, found.commit) == ("llama", str(tiny_teacher), None)
        assert (found.context, found.vocabulary, found.end_ids) == (CONTEXT, WIDTH, (0, 2))
        assert found.content.startswith("sha256:")

    def test_other_names_for_the_same_numbers(self, save_tiny_teacher: Callable[..., Path]) -> None:
        found = identity(save_tiny_teacher("gpt2"))
        assert (found.context, found.vocabulary) == (CONTEXT, WIDTH)

    def test_a_home_folder(self, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(copy.parent))
        assert identity("~/copy").name == "copy"
        assert identity("~/copy").content == identity(copy).content

    def test_end_tokens_without_a_generation_config(self, copy: Path) -> None:
        (copy / "generation_config.json").unlink()
        assert identity(copy).end_ids == (0,)
        change(copy / "config.json", eos_token_id=[5, 3])
        assert identity(copy).end_ids == (3, 5)
        change(copy / "config.json", eos_token_id=None)
        assert identity(copy).end_ids == ()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ('{"model_type":', "can't be opened"),
            ("[1]", "can't be opened"),
            ('{"model_type": "nonesuch"}', "nonesuch"),
            ('{"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}', "--trust-remote-code"),
        ],
    )
    def test_a_config_that_can_not_be_used(self, content: str, message: str, copy: Path) -> None:
        (copy / "config.json").write_text(content)
        (copy / "own.py").write_text("raise SystemExit('code of the model ran')")
        with pytest.raises(TeacherError, match=message):
            identity(copy)

    def test_a_damaged_generation_config(self, copy: Path) -> None:
        (copy / "generation_config.json").write_text('{"eos_token_id":')
        with pytest.raises(TeacherError, match=r"generation_config\.json"):
            identity(copy)

    def test_a_folder_without_config(self, tmp_path: Path) -> None:
        with pytest.raises(TeacherError, match=r"can't be opened.*config\.json"):
            identity(tmp_path)

    @pytest.mark.parametrize("name", ["./nothing", "/nowhere/at/all", "a/b/c"])
    def test_neither_folder_nor_hub_id(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(TeacherError, match=f"There is no folder {name}|The model '{name}' can't be opened"):
            identity(name)

    def test_a_hub_that_is_not_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(TeacherError, match="'nobody/nothing' can't be opened"):
            identity("nobody/nothing")


class TestContentHash:
    def test_independent_of_the_place(self, copy: Path, tiny_teacher: Path) -> None:
        assert identity(copy).content == identity(tiny_teacher).content

    def test_independent_of_what_changes_no_logit(self, copy: Path, tiny_teacher: Path) -> None:
        change(copy / "config.json", transformers_version="0.0.1")
        (copy / "README.md").write_text("other words")
        (copy / "chat_template.jinja").write_text("another template, which has a hash of its own")
        assert identity(copy).content == identity(tiny_teacher).content

    def test_sees_the_config(self, copy: Path) -> None:
        before = identity(copy).content
        change(copy / "config.json", rms_norm_eps=1e-3)
        assert identity(copy).content != before

    @pytest.mark.parametrize("name", ["model.norm.weight", "lm_head.weight", "model.layers.1.self_attn.k_proj.weight"])
    def test_sees_a_weight(self, name: str, copy: Path) -> None:
        """One number in the middle of a tensor; sizes and header stay as they are."""
        before = identity(copy).content
        weights = load_file(copy / "model.safetensors")
        flat = weights[name].view(-1)
        flat[len(flat) // 2] += 0.5
        save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
        assert identity(copy).content != before

    def test_sees_another_seed(self, copy: Path, save_tiny_teacher: Callable[..., Path]) -> None:
        assert identity(save_tiny_teacher(seed=1)).content != identity(copy).content

    def test_sees_every_file(self, tmp_path: Path) -> None:
        tiny_model().save_pretrained(tmp_path, max_shard_size="50KB")
        files = sorted(tmp_path.glob("*.safetensors"))
        assert len(files) > 2
        seen = {identity(tmp_path).content}
        for file in files:
            weights = load_file(file)
            next(iter(weights.values())).add_(1)
            save_file(weights, file, metadata={"format": "pt"})
            seen.add(identity(tmp_path).content)
        assert len(seen) == len(files) + 1


class TestWeights:
    def test_they_are_those_of_the_files(self, tiny_teacher: Path) -> None:
        stored = load_file(tiny_teacher / "model.safetensors")
        for name, parameter in load(tiny_teacher).model.named_parameters():
            assert torch.equal(parameter, stored[name])

    def test_the_model_is_not_in_training(self, tiny_teacher: Path) -> None:
        assert not load(tiny_teacher).model.training

    def test_none(self, copy: Path) -> None:
        (copy / "model.safetensors").unlink()
        with pytest.raises(TeacherError, match=r"copy can't be loaded.*\.safetensors"):
            load(copy)

    def test_those_that_can_hold_programs(self, copy: Path) -> None:
        torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
        (copy / "model.safetensors").unlink()
        with pytest.raises(TeacherError, match=r"must be \.safetensors files \(others can hold programs\)"):
            load(copy)

    @pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -1])
    def test_half_a_file(self, kept: float, copy: Path) -> None:
        file = copy / "model.safetensors"
        content = file.read_bytes()
        file.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
        with pytest.raises(TeacherError, match=r"model\.safetensors is not a whole \.safetensors file"):
            identity(copy)

    def test_a_pointer_instead_of_a_file(self, copy: Path) -> None:
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 166624\n"
        (copy / "model.safetensors").write_text(pointer)
        with pytest.raises(TeacherError, match="Git LFS"):
            identity(copy)

    @pytest.mark.parametrize("missing", ["lm_head.weight", "model.layers.0.mlp.up_proj.weight"])
    def test_random_numbers_do_not_stand_in_for_missing_ones(self, missing: str, copy: Path) -> None:
        weights = load_file(copy / "model.safetensors")
        del weights[missing]
        save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(TeacherError, match=f"lacks 1 of the weights of its architecture, such as {missing}"):
            load(copy)

    def test_tied_weights_are_not_missing(self, save_tiny_teacher: Callable[..., Path]) -> None:
        folder = save_tiny_teacher(tie_word_embeddings=True)
        assert "lm_head.weight" not in load_file(folder / "model.safetensors")
        model = load(folder).model
        assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)

    def test_weights_of_another_shape(self, copy: Path) -> None:
        change(copy / "config.json", intermediate_size=40)
        with pytest.raises(TeacherError, match="copy can't be loaded"):
            load(copy)

    def test_an_attention_that_is_not_installed(self, tiny_teacher: Path) -> None:
        with pytest.raises(TeacherError, match="can't be loaded"):
            load(tiny_teacher, attn="flash_attention_2")


class TestVocabulary:
    CONFIG = ExtractionConfig()

    @pytest.mark.parametrize(("width", "limit", "used"), [(400, None, 400), (400, "tokenizer", 384), (400, 390, 390)])
    def test_in_use(self, width: int, limit: Any, used: int, save_tiny_teacher: Callable[..., Path]) -> None:
        teacher = load(save_tiny_teacher(), vocab_limit=limit)
        assert (teacher.vocab_size, teacher.vocab_used) == (width, used)

    def test_a_limit_above_the_width(self, tiny_teacher: Path) -> None:
        assert load(tiny_teacher, vocab_limit=5000).vocab_used == WIDTH
        assert load(tiny_teacher, vocab_limit="tokenizer", tokenizer_length=5000).vocab_used == WIDTH

    def test_the_largest_that_fits(self) -> None:
        assert vocabulary_in_use(self.CONFIG, "m", 262_144, 1000) == 262_144
        with pytest.raises(TeacherError, match=r"m has logits for 262,145 tokens.*--vocab-limit 262144 .*\(1,000\)"):
            vocabulary_in_use(self.CONFIG, "m", 262_145, 1000)

    def test_a_limit_helps(self) -> None:
        def used(limit: Any, tokenizer_length: int) -> int:
            return vocabulary_in_use(ExtractionConfig(vocab_limit=limit), "m", 300_000, tokenizer_length)

        assert used(262_144, 262_144) == 262_144
        assert used("tokenizer", 262_000) == 262_000
        with pytest.raises(TeacherError, match="280,000 tokens"):
            used("tokenizer", 280_000)

    def test_a_real_one_that_is_too_wide(self, save_tiny_teacher: Callable[..., Path]) -> None:
        folder = save_tiny_teacher(vocabulary=262_145, hidden_size=8, num_attention_heads=1, num_key_value_heads=1)
        with pytest.raises(TeacherError, match="--vocab-limit"):
            load(folder)
        teacher = load(folder, vocab_limit="tokenizer")
        assert (teacher.vocab_size, teacher.vocab_used) == (262_145, 384)

    def test_too_few(self) -> None:
        assert vocabulary_in_use(self.CONFIG, "m", 125, 125) == 125  # 100 + 24 + 1
        with pytest.raises(TeacherError, match=r"m has 124 tokens, fewer than .* = 125\. Lower --top-p-max"):
            vocabulary_in_use(self.CONFIG, "m", 124, 124)
        with pytest.raises(TeacherError, match="has 124 tokens"):
            vocabulary_in_use(ExtractionConfig(vocab_limit=124), "m", 50_000, 50_000)
        assert vocabulary_in_use(ExtractionConfig(top_p_max_elements=10, sampled_n=5), "m", 16, 16) == 16

    def test_a_tokenizer_that_is_not_the_models(self, tiny_teacher: Path) -> None:
        assert load(tiny_teacher, largest_id=WIDTH - 1)
        with pytest.raises(TeacherError, match="ids up to 400, but the model llama knows 400 tokens"):
            load(tiny_teacher, largest_id=WIDTH)


class TestPlacement:
    def test_the_devices_there_are(self) -> None:
        assert resolve_device("cpu") == CPU
        assert resolve_device("auto").type in ("cpu", "cuda", "mps")

    @pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "cpu:x"])
    def test_others(self, name: str) -> None:
        with pytest.raises(TeacherError, match=f"--device {name} can't be used here"):
            resolve_device(name)

    def test_types(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert resolve_dtype("auto", CPU) == torch.float32
        assert resolve_dtype("float64", CPU) == torch.float64
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
        assert resolve_dtype("auto", CUDA) == torch.bfloat16
        assert resolve_dtype("float32", CUDA) == torch.float32
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: False)
        assert resolve_dtype("auto", CUDA) == torch.float16

    def test_a_stored_type_wins(self, tiny_teacher: Path) -> None:
        config = ExtractionConfig(model=str(tiny_teacher), device="cpu")
        teacher = load_teacher(config, identify_teacher(config), 384, 383, dtype="float64")
        assert teacher.dtype == torch.float64 and teacher.model.dtype == torch.float64

    @pytest.mark.parametrize("installed", [True, False])
    def test_attention(self, installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(placement.importlib.util, "find_spec", lambda name: object() if installed else None)
        flash = ["flash_attention_2"] if installed else []
        assert attention_choices("auto", CUDA, torch.bfloat16) == [*flash, "sdpa", "eager"]
        assert attention_choices("auto", CUDA, torch.float16) == [*flash, "sdpa", "eager"]
        assert attention_choices("auto", CUDA, torch.float32) == ["sdpa", "eager"]
        assert attention_choices("auto", CPU, torch.bfloat16) == ["sdpa", "eager"]
        assert attention_choices("eager", CUDA, torch.bfloat16) == ["eager"]

    def test_the_next_attention_is_tried(self, tiny_teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(forward, "attention_choices", lambda *_: ["flash_attention_2", "eager"])
        assert load(tiny_teacher).model.config._attn_implementation == "eager"


class TestBatchTokens:
    @pytest.mark.parametrize(("free", "tokens"), [(0, 512), (1 << 20, 512), (1 << 40, 4096)])
    def test_bounded(self, free: int, tokens: int, tiny_teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory, "_free_bytes", lambda device: free)
        assert default_batch_tokens(load(tiny_teacher)) == tokens

    def test_by_the_free_memory_in_between(self, tiny_teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        teacher = load(tiny_teacher)
        assert teacher.hidden_size == 32
        a_token = (WIDTH + 40 * 32) * 4
        monkeypatch.setattr(memory, "_free_bytes", lambda device: 1000 * a_token / 0.4)
        assert default_batch_tokens(teacher) in (999, 1000)

    def test_of_this_machine(self, tiny_teacher: Path, save_tiny_teacher: Callable[..., Path]) -> None:
        for folder in (tiny_teacher, save_tiny_teacher("gpt2")):
            assert 512 <= default_batch_tokens(load(folder)) <= 4096


def test_nothing_is_said_of_ordinary_teachers(tiny_teacher: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load(tiny_teacher)
    assert not caplog.records
