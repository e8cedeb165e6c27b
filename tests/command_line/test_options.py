"""Command lines and configuration files to options: which of them wins, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from teacher_logits.command_line.extract import parse_args
from teacher_logits.errors import SettingsError
from teacher_logits.journal import RunCache
from teacher_logits.settings import ExtractionConfig

REQUIRED = ["--model", "m", "--dataset", "d.jsonl", "--output", "./o"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_yaml(text: str) -> list[str]:
    Path("run.yaml").write_text(text)
    return ["--config", "run.yaml"]


def keep(folder: str = ".logit_extraction_cache", **options: Any) -> None:
    """A cache folder with an unfinished run of these options."""
    Path(folder).mkdir()
    config = ExtractionConfig(model="kept-m", dataset="kept-d", output="./kept-o", cache_dir=folder, **options)
    content = {"output": config.output, "complete": False, "config": config.as_dict(), "metadata": {}}
    RunCache(Path(folder)).write_checkpoint(content)


def test_defaults():
    assert parse_args(REQUIRED) == ExtractionConfig(model="m", dataset="d.jsonl", output="./o")


def test_every_kind_of_option():
    config = parse_args([
        *REQUIRED, "--top-p", "1", "--top-p-max", "50", "--vocab-limit", "tokenizer", "--no-store-tokens", "--resume",
        "--batch-thresholds", '{"1024": 4}', "--subject-col", "s", "--sample-subject", '{"a": 1, "*": 2, "": 3}',
        "--max-runtime-minutes", "0.5", "--dtype", "bfloat16", "--seed", "7",
    ])  # fmt: skip
    assert (config.top_p, config.top_p_max_elements, config.vocab_limit, config.store_tokens) == (
        1.0,
        50,
        "tokenizer",
        False,
    )
    assert config.batch_thresholds == {"1024": 4} and config.sample_subject == {"a": 1, "*": 2, "": 3}
    assert (config.max_runtime_minutes, config.dtype, config.seed, config.resume) == (0.5, "bfloat16", 7, True)
    assert parse_args([*REQUIRED, "--vocab-limit", "9000"]).vocab_limit == 9000


def test_command_line_over_file_over_kept_over_defaults():
    keep(limit=1, seed=1, upload_every=1, private=True)
    filed = write_yaml("limit: 2\nseed: 2\ntop-p: 0.5\n")
    config = parse_args(["--resume", *filed, "--limit", "3"])
    assert (config.limit, config.seed, config.upload_every, config.top_p) == (3, 2, 1, 0.5)
    assert (config.model, config.output, config.private, config.sampled_n) == ("kept-m", "./kept-o", True, 24)
    config = parse_args([*REQUIRED, *filed])
    assert (config.limit, config.upload_every, config.private) == (2, 500, False), "without --resume nothing is kept"


def test_file_may_name_the_run_to_resume():
    keep("elsewhere", limit=5)
    assert parse_args(["--resume", *write_yaml("cache_dir: elsewhere\n")]).limit == 5
    config = parse_args(["--resume", *write_yaml("model: m\ndataset: d\noutput: ./new\n")])
    assert (config.output, config.resume, config.limit) == ("./new", True, None), "nothing is stored there yet"
    assert parse_args(write_yaml("resume: true\ncache_dir: elsewhere\n")).limit == 5


def test_full_dataset_wins_over_kept_and_filed_limits():
    keep(limit=5, start_offset=2)
    config = parse_args(["--resume", "--full-dataset"])
    assert (config.limit, config.start_offset, config.full_dataset) == (None, 0, True)
    config = parse_args([*REQUIRED, *write_yaml("limit: 5\nrandom_sample: true\n"), "--full-dataset"])
    assert (config.limit, config.random_sample) == (None, False)
    with pytest.raises(SettingsError, match="--full-dataset contradicts"):
        parse_args([*REQUIRED, "--full-dataset", "--limit", "3"])


def test_kept_cache_folder_is_the_one_that_is_named():
    """The folder may have moved since."""
    keep("before", limit=5)
    Path("before").rename("after")
    assert parse_args(["--resume", "--cache-dir", "after"]).cache_dir == "after"


def test_dashes_and_underscores_in_a_file():
    config = parse_args(
        [*REQUIRED, *write_yaml("top-p-max: 9\nsampled_n: 3\nupload-every: 4\nvocab-limit: tokenizer\n")]
    )
    assert (config.top_p_max_elements, config.sampled_n, config.upload_every) == (9, 3, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limmit: 3\n", "unknown option 'limmit'.*Known: .*limit"),
        ("limit: many\n", "limit is 'many'"),
        ("limit: true\n", "limit is True"),
        ("top_p: 2\n", r"--top-p is 2\.0; expected more than 0"),
        ("dtype: int8\n", "dtype is 'int8'"),
        ("- limit\n", "should hold options"),
        ("", "should hold options"),
        ("limit: [\n", "can't be read"),
    ],
)
def test_files_that_are_refused(text: str, message: str):
    with pytest.raises(SettingsError, match=message):
        parse_args([*REQUIRED, *write_yaml(text)])


def test_file_that_is_not_there():
    with pytest.raises(SettingsError, match=r"--config nothing\.yaml can't be read"):
        parse_args([*REQUIRED, "--config", "nothing.yaml"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Not given: --model, --dataset, --output."),
        (["--model", "m"], "Not given: --dataset, --output."),
        (["--resume"], r"\.logit_extraction_cache holds none"),
        ([*REQUIRED, "--resume", "--force-restart"], "--resume continues a run and --force-restart"),
        ([*REQUIRED, "--top-p-max", "256"], "1 to 255"),
        ([*REQUIRED, "--batch-tokens", "9", "--batch-thresholds", "{}"], "two ways to size batches"),
        ([*REQUIRED, "--sample-subject", "{}"], "needs --subject-col"),
        ([*REQUIRED, "--random-sample"], "needs --limit"),
    ],
)
def test_values_that_are_refused(arguments: list[str], message: str):
    with pytest.raises(SettingsError, match=message) as refusal:
        parse_args(arguments)
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--limit", "many"],
        ["--unknown", "3"],
        ["--sample-subject", "{maths"],
        ["--sample-subject", '["maths"]'],
        ["--sample-subject", '{"maths": -1}'],
        ["--batch-thresholds", '{"1024": "4"}'],
        ["--dtype", "int8"],
        ["stray"],
    ],
    ids=" ".join,
)
def test_command_lines_that_cannot_be_read(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        parse_args([*REQUIRED, *arguments])
    said = capsys.readouterr()
    assert left.value.code == 2 and said.out == "" and arguments[0] in said.err and "Traceback" not in said.err


def test_damaged_cache_says_what_to_do():
    keep()
    Path(".logit_extraction_cache/checkpoint.json").write_text("{")
    with pytest.raises(Exception, match=r"can't be read.*--force-restart"):
        parse_args(["--resume"])
    assert json.loads(json.dumps(parse_args(REQUIRED).as_dict()))["model"] == "m", "a new run does not look there"
