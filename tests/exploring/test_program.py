"""The face and the command line."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import explore_logits
from teacher_logits.command_line.explore import main
from tests.exploring.made import Made

ROOT = Path(explore_logits.__file__).parent
NAMES = """
unpack_indices load_logit_dataset get_sample print_sample_info dequantize_logits dequantize_top_logits
dequantize_sampled_logits dequantize_all_logits logits_to_probs get_nucleus_probability_mass decode_top_tokens
print_top_tokens plot_logit_distribution plot_nucleus_vs_sampled plot_nucleus_sizes compute_dataset_stats
print_dataset_stats load_extraction_config analyze_token_probabilities visualize_conversation_probabilities
NucleusSizeStats analyze_nucleus_sizes plot_nucleus_size_analysis compute_bytes_per_token_stats quick_explore
execute_analysis
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=120)


def test_the_face_is_quick_and_exact():
    heavy = ["torch", "transformers", "datasets", "pandas", "matplotlib", "huggingface_hub", "termcolor"]
    done = python(
        "-c",
        "import sys; before = set(globals()) | {'before'}\n"
        "from explore_logits import *\n"
        "print(sorted(set(globals()) - before))\n"
        f"print([name for name in {heavy} if name in sys.modules])",
    )
    assert done.stdout.splitlines() == [str(sorted(explore_logits.__all__)), "[]"], done.stderr


def test_the_face_has_its_names():
    """Users know them from elsewhere: none may go, and what is added has another way in."""
    assert sorted(explore_logits.__all__) == sorted(NAMES.split())
    assert all(getattr(explore_logits, name).__doc__ for name in NAMES.split())


def test_summary(made: Made, capsys: pytest.CaptureFixture[str]):
    assert main([str(made.folder)]) == 0
    assert "rows          4 in 2 shards" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "index"), [(["1"], 123), (["--index", "9"], 9), ([], 17), (["0", "--split", "train"], 17)]
)
def test_show(made: Made, capsys: pytest.CaptureFixture[str], no_colours: None, arguments: list[str], index: int):
    assert main([str(made.folder), "show", *arguments]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"conversation {index}: ")
    table = printed.split("most surprising tokens\n")[1].splitlines()
    assert 4 <= len(table) <= 6 and "the teacher's choices" in table[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["./nowhere"], "no folder ./nowhere"),
        (["OUTPUT", "show", "4"], "no row 4"),
        (["OUTPUT", "show", "--index", "4"], "No row has index 4"),
        (["OUTPUT", "show", "1", "--index", "9"], "not both"),
        (["OUTPUT", "show", "--tokenizer", "./nothing"], "can't be loaded"),
        (["OUTPUT", "--split", "test"], "no split 'test'"),
        (["OUTPUT", "stats", "--split", "test"], "no split 'test'"),
        (["OUTPUT", "stats", "--surprising", "-1"], "--surprising is -1"),
        (["OUTPUT", "stats", "--tokenizer", "./nothing"], "can't be loaded"),
        (["OUTPUT", "plots", "-o", "unused", "--index", "4"], "No row has index 4"),
        (["OUTPUT", "plots", "-o", "unused", "1", "--index", "9"], "not both"),
        (["OUTPUT", "plots", "-o", "unused", "--position", "99"], "no stored token at position 99"),
        (["OUTPUT", "plots", "-o", "OUTPUT/checkpoint.json"], "there is a file of that name"),
    ],
)
def test_errors(made: Made, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str):
    assert main([word.replace("OUTPUT", str(made.folder)) for word in arguments]) == 2
    assert not Path("unused").exists()
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err and captured.out == ""


@pytest.mark.parametrize(
    "arguments", [[], ["OUTPUT", "shout"], ["OUTPUT", "show", "first"], ["OUTPUT", "--no-such"], ["OUTPUT", "plots"]]
)
def test_options_that_can_not_be_read(arguments: list[str]):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2


def test_as_a_program(made: Made):
    done = python("explore_logits.py", str(made.folder), "show", "2")
    assert done.returncode == 0 and "🙂" in done.stdout, done.stderr
    assert "\x1b" not in done.stdout
    failed = python("explore_logits.py", "./nowhere")
    assert failed.returncode == 2 and failed.stderr.count("\n") == 1


@pytest.mark.parametrize("damage", ["positions beyond the tokens", "no nucleus sizes"])
@pytest.mark.parametrize("command", [[], ["show"], ["stats"]])
def test_columns_that_do_not_belong_together(
    copy: Path, damage: str, command: list[str], capsys: pytest.CaptureFixture[str], no_colours: None
):
    for shard in sorted((copy / "data").glob("*.parquet")):
        table = pq.read_table(shard)
        if damage == "no nucleus sizes":
            table = table.drop_columns(["top_counts"])
        else:
            beyond = pa.array([[10**6] * len(row) for row in table["positions"].to_pylist()], pa.list_(pa.int32()))
            table = table.set_column(table.column_names.index("positions"), "positions", beyond)
        pq.write_table(table, shard)
    code = main([str(copy), *command])
    told = capsys.readouterr().err
    assert (code, told.count("error: ")) == (2, 1) or (code, command, damage[:3]) == (0, [], "pos"), told
