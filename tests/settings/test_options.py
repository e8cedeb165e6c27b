"""Options as they are given: on the command line, in a file, in Python."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tyro
import yaml

from teacher_logits.errors import SettingsError
from teacher_logits.settings import ExtractionConfig, is_folder, local_folder, result_options, same_output

REQUIRED = ["--model", "m", "--dataset", "d", "--output", "./o"]


def parsed(*words: str) -> ExtractionConfig:
    return tyro.cli(ExtractionConfig, args=list(words))


def test_defaults_are_the_documented_ones():
    config = parsed()
    assert config == ExtractionConfig()
    assert (config.top_p, config.top_p_max_elements, config.sampled_n, config.seed) == (0.98, 100, 24, 42)
    assert (config.upload_every, config.store_tokens, config.split) == (500, True, "train")
    assert config.cache_dir == ".logit_extraction_cache"


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--model", "a/b"], "model", "a/b"),
        (["--split", "train[10%:20%]"], "split", "train[10%:20%]"),
        (["--top-p", "1"], "top_p", 1.0),
        (["--top-p-max", "255"], "top_p_max_elements", 255),
        (["--sampled-n", "1"], "sampled_n", 1),
        (["--seed", str(2**64 - 1)], "seed", 2**64 - 1),
        (["--limit", "7"], "limit", 7),
        (["--no-store-tokens"], "store_tokens", False),
        (["--turns", "last"], "turns", "last"),
        (["--system-prompt", "Be kind."], "system_prompt", "Be kind."),
        (["--data-files", "*.jsonl"], "data_files", "*.jsonl"),
        (["--exclude-think-tokens"], "exclude_think_tokens", True),
        (["--think-tags", "<a> </a>"], "think_tags", "<a> </a>"),
        (["--random-sample"], "random_sample", True),
        (["--vocab-limit", "tokenizer"], "vocab_limit", "tokenizer"),
        (["--vocab-limit", "262144"], "vocab_limit", 262144),
        (["--dtype", "bfloat16"], "dtype", "bfloat16"),
        (["--attn", "sdpa"], "attn", "sdpa"),
        (["--upload-size-mb", "0.5"], "upload_size_mb", 0.5),
        (["--max-runtime-minutes", "90"], "max_runtime_minutes", 90.0),
        (["--batch-thresholds", '{"1024": 4, "512": 8}'], "batch_thresholds", {"1024": 4, "512": 8}),
        (["--sample-subject", '{"maths": 20, "*": 6, "": 0}'], "sample_subject", {"maths": 20, "*": 6, "": 0}),
        (["--sample-subject={}"], "sample_subject", {}),
        (["--resume"], "resume", True),
        (["--hub-retry-seconds", "0"], "hub_retry_seconds", 0),
    ],
)
def test_command_line(words: list[str], field: str, value: Any):
    config = parsed(*words)
    assert getattr(config, field) == value and type(getattr(config, field)) is type(value)
    assert config == dataclasses.replace(ExtractionConfig(), **{field: value}), "and nothing else"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--top-p", "much"], "--top-p"),
        (["--limit", "1.5"], "--limit"),
        (["--dtype", "int8"], "--dtype"),
        (["--vocab-limit", "some"], "--vocab-limit"),
        (["--sample-subject", "maths=20"], "is not JSON"),
        (["--sample-subject", "[1]"], "JSON object of names and whole numbers"),
        (["--sample-subject", '{"maths": 1.5}'], "JSON object of names and whole numbers"),
        (["--sample-subject", '{"maths": true}'], "JSON object of names and whole numbers"),
        (["--batch-thresholds", '{"512": -1}'], "JSON object of names and whole numbers"),
        (["--unheard-of", "1"], "--unheard-of"),
    ],
)
def test_words_that_cant_be_read_end_with_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        parsed(*words)
    assert stop.value.code == 2
    shown = capsys.readouterr()
    flat = " ".join((shown.out + shown.err).replace("│", " ").split())
    assert said in flat


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        parsed("--help")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(ExtractionConfig):
        name = "top-p-max" if field.name == "top_p_max_elements" else field.name.replace("_", "-")
        assert f"--{name}" in shown or f"--no-{name}" in shown, name


BAD_VALUES = [
    ("top_p", 0, "--top-p"),
    ("top_p", 1.0001, "--top-p"),
    ("top_p", -0.5, "--top-p"),
    ("top_p", math.nan, "--top-p"),
    ("top_p_max_elements", 0, "--top-p-max"),
    ("top_p_max_elements", 256, "--top-p-max"),
    ("sampled_n", 0, "--sampled-n"),
    ("seed", -1, "--seed"),
    ("seed", 2**64, "--seed"),
    ("mask_source", "generation", "--mask-source"),
    ("start_offset", -1, "--start-offset"),
    ("upload_every", 0, "--upload-every"),
    ("hub_retry_seconds", -1, "--hub-retry-seconds"),
    ("system_prompt", " ", "--system-prompt"),
    ("limit", 0, "--limit"),
    ("limit", -3, "--limit"),
    ("max_seq_len", 0, "--max-seq-len"),
    ("batch_tokens", 0, "--batch-tokens"),
    ("max_batch_size", 0, "--max-batch-size"),
    ("upload_size_mb", 0, "--upload-size-mb"),
    ("upload_size_mb", math.nan, "--upload-size-mb"),
    ("max_runtime_minutes", 0, "--max-runtime-minutes"),
    ("max_runtime_minutes", -1.0, "--max-runtime-minutes"),
    ("vocab_limit", 0, "--vocab-limit"),
    ("vocab_limit", 262145, "--vocab-limit"),
    ("sample_subject", {"a": -1}, "--sample-subject"),
    ("sample_subject", {1: 1}, "--sample-subject"),
    ("sample_subject", {"a": True}, "--sample-subject"),
    ("batch_thresholds", {"long": 4}, "--batch-thresholds"),
    ("batch_thresholds", {"1024": 0}, "--batch-thresholds"),
    ("batch_thresholds", {"-5": 4}, "--batch-thresholds"),
    ("think_tags", "", "--think-tags"),
    ("think_tags", "<a>", "--think-tags"),
    ("think_tags", "<a> <a>", "--think-tags"),
    ("think_tags", "<a> </a> <b>", "--think-tags"),
    ("split", "", "--split"),
    ("split", "train+test", "--split"),
    ("split", "train[:10", "--split"),
    ("split", "../train", "--split"),
    ("split", "train\n", "--split"),
    ("system_prompt", "a\udcff", "--system-prompt"),
    ("user_col", "\udcff", "--user-col"),
    ("think_tags", "<a> <\ud800>", "--think-tags"),
    ("device", "\udcff", "--device"),
    ("sample_subject", {"a": 1, "\udcff": 1}, "--sample-subject"),
]


@pytest.mark.parametrize(("field", "value", "option"), BAD_VALUES)
def test_bad_values_name_their_option(field: str, value: Any, option: str):
    with pytest.raises(SettingsError) as refused:
        ExtractionConfig(**{field: value})
    assert str(refused.value).startswith(f"{option} is {value!r}; expected ")


def test_bad_values_on_the_command_line_are_settings_errors_too():
    with pytest.raises(SettingsError, match="--top-p-max is 256; expected 1 to 255"):
        parsed("--top-p-max", "256")


def test_names_of_files_may_hold_any_bytes():
    odd = dict.fromkeys(("dataset", "output", "data_files", "chat_template", "cache_dir"), "./\udcff")
    config = ExtractionConfig(model="./\udcff", **odd)
    assert {name: getattr(config, name) for name in odd} == odd


def test_all_characters_are_text():
    assert ExtractionConfig(system_prompt="\ud7ff\ue000\U0001f600").system_prompt == "\ud7ff\ue000\U0001f600"


@pytest.mark.parametrize("split", ["train", "train_sft", "val-2.x", "train[:1000]", "train[10%:20%]", "train[-5:]"])
def test_good_splits(split: str):
    assert ExtractionConfig(split=split).split == split


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": None}, "Not given: --model\\."),
        ({"model": "", "output": None}, "Not given: --model, --output\\."),
        ({"full_dataset": True, "limit": 5}, "--full-dataset contradicts"),
        ({"full_dataset": True, "start_offset": 5}, "--full-dataset contradicts"),
        ({"full_dataset": True, "sample_subject": {"a": 1}, "subject_col": "s"}, "--full-dataset contradicts"),
        ({"sample_subject": {"a": 1}}, "--sample-subject needs --subject-col"),
        ({"random_sample": True}, "--random-sample needs"),
        ({"batch_tokens": 5, "batch_thresholds": {"5": 1}}, "--batch-tokens and --batch-thresholds"),
        ({"resume": True, "force_restart": True}, "--resume continues"),
    ],
)
def test_options_that_dont_go_together(options: Mapping[str, Any], said: str):
    config = ExtractionConfig(**{"model": "m", "dataset": "d", "output": "o", **options})
    with pytest.raises(SettingsError, match=said):
        config.require_complete()


def test_complete():
    config = ExtractionConfig(model="m", dataset="d", output="o", limit=3, random_sample=True)
    assert config.require_complete() is config
    whole = config.without_limits()
    assert (whole.limit, whole.start_offset, whole.random_sample, whole.sample_subject) == (None, 0, False, None)
    assert dataclasses.replace(whole, full_dataset=True).require_complete().full_dataset


GOOD_FILE = """
model: a/b
dataset: c/d
top-p: 1
top-p-max: 50
sampled_n: 12
"""


def test_options_of_a_file():
    options = yaml.safe_load(GOOD_FILE)
    options |= {
        "sample-subject": {"maths": 3},
        "upload_size_mb": 12,
        "vocab_limit": "tokenizer",
        "store-tokens": False,
        "limit": None,
    }
    config = ExtractionConfig.from_mapping(options, "run.yaml")
    assert config == ExtractionConfig(
        model="a/b",
        dataset="c/d",
        top_p=1.0,
        top_p_max_elements=50,
        sampled_n=12,
        sample_subject={"maths": 3},
        upload_size_mb=12,
        vocab_limit="tokenizer",
        store_tokens=False,
    )
    assert type(config.top_p) is float
    for name in ("top_p_max_elements", "top-p-max-elements", "top_p_max"):
        assert ExtractionConfig.from_mapping({name: 9}, "run.yaml").top_p_max_elements == 9


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"no_such": 1}, "run.yaml has an unknown option 'no_such'. Known: .*top-p-max"),
        ({7: 1}, "unknown option 7"),
        ({"top_p": "0.9"}, "run.yaml: top_p is '0.9', which is not of the type that --top-p takes"),
        ({"top-p": True}, "--top-p takes"),
        ({"top_p": None}, "--top-p takes"),
        ({"top-p-max": 10.0}, "--top-p-max takes"),
        ({"limit": "10"}, "--limit takes"),
        ({"limit": True}, "--limit takes"),
        ({"seed": 1.0}, "--seed takes"),
        ({"model": 5}, "--model takes"),
        ({"store_tokens": 1}, "--store-tokens takes"),
        ({"store_tokens": "no"}, "--store-tokens takes"),
        ({"dtype": "int8"}, "--dtype takes"),
        ({"dtype": None}, "--dtype takes"),
        ({"vocab_limit": "all"}, "--vocab-limit takes"),
        ({"vocab_limit": 5.0}, "--vocab-limit takes"),
        ({"sample_subject": '{"a": 1}'}, "--sample-subject takes"),
        ({"sample_subject": {"a": 1.5}}, "--sample-subject takes"),
        ({"batch_thresholds": {1024: 4.5}}, "--batch-thresholds takes"),
        ({"model": ["a"]}, "--model takes"),
        ({"top_p": 2.0}, "--top-p is 2.0; expected"),
    ],
)
def test_options_of_a_file_that_cant_be_used(options: Mapping[Any, Any], said: str):
    with pytest.raises(SettingsError, match=said):
        ExtractionConfig.from_mapping(options, "run.yaml")


def test_numbers_as_names_are_what_yaml_makes_of_them():
    assert ExtractionConfig.from_mapping({"batch_thresholds": {1024: 4}}, "f").batch_thresholds == {"1024": 4}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("./o", "./o/", True),
        ("./o", "file://./o", True),
        ("./o", "./p", False),
        ("me/o", "me/o", True),
        ("me/o", "./me/o", False),
    ],
)
def test_the_same_output_however_it_is_written(one: str, other: str, same: bool):
    assert same_output(one, other) is same


def test_every_option_survives_json():
    """As a resumed run finds its options in checkpoint.json."""
    config = parsed(*REQUIRED, "--limit", "5", "--batch-thresholds", '{"9": 1}', "--vocab-limit", "77", "--top-p", "1")
    stored = json.loads(json.dumps(config.as_dict()))
    assert set(stored) == {field.name for field in dataclasses.fields(ExtractionConfig)}
    assert ExtractionConfig.from_mapping(stored, "checkpoint.json") == config


def test_options_cant_be_changed_afterwards():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ExtractionConfig().seed = 3


def test_options_that_change_the_result():
    source = {"dataset", "split", "dataset_config", "dataset_revision", "data_files"}
    source |= {"user_col", "assistant_col", "messages_col", "input_col", "system_col", "tools_col", "system_prompt"}
    rendering = {"index_col", "chat_template", "mask_source", "turns", "store_tokens"}
    rendering |= {"exclude_think_tokens", "think_tags", "exclude_end_tokens"}
    teacher = {"model", "revision", "dtype"}
    sampling = {"top_p", "top_p_max_elements", "sampled_n", "vocab_limit", "seed"}
    assert set(result_options()) == source | rendering | teacher | sampling


def test_whole_numbers_for_top_p_mean_the_same_in_python_as_elsewhere():
    """The fingerprint tells 1 from 1.0, so a run begun in Python could not be resumed from the command line."""
    assert type(ExtractionConfig(top_p=1).top_p) is float


@pytest.mark.parametrize(
    ("output", "folder"),
    [
        ("./logits", Path("logits")),
        ("../logits", Path("../logits")),
        (".", Path()),
        ("/data/logits", Path("/data/logits")),
        ("~/logits", Path.home() / "logits"),
        ("file:///data/logits", Path("/data/logits")),
        ("file://~/logits", Path.home() / "logits"),
        ("somebody/logits", None),
        ("logits", None),
        ("somebody/.hidden", None),
    ],
)
def test_folder_or_hub(output: str, folder: Path | None):
    assert is_folder(output) == (folder is not None)
    if folder is not None:
        assert local_folder(output) == folder
