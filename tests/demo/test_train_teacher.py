"""The demo's teacher: its conversations are sound, and a training of a few steps gives a usable model."""

import json
import subprocess
import sys
from pathlib import Path

from teacher_logits.conversations import Unusable, load_tokenizer, open_source, renderer_spec
from teacher_logits.settings import ExtractionConfig
from teacher_logits.teacher import identify_teacher, load_teacher

DEMO = Path(__file__).resolve().parents[2] / "demo"


def train(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, DEMO / "train_teacher.py", folder, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_conversations_are_distinct_and_end_with_the_assistant():
    rows = [json.loads(line) for line in (DEMO / "conversations.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 300 and len({json.dumps(row["messages"]) for row in rows}) == len(rows)
    for row in rows:
        roles = [message["role"] for message in row["messages"]]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2) and turns
        assert all(message["content"].strip() for message in row["messages"]) and row["subject"]


def test_a_teacher_renders_and_loads_and_is_not_trained_twice(tmp_path: Path):
    folder = tmp_path / "teacher"
    done = train(folder, "--steps", "2")
    assert done.returncode == 0, done.stderr
    config = ExtractionConfig(model=str(folder), dataset=str(DEMO / "conversations.jsonl"), output="./unused")
    identity = identify_teacher(config)
    tokenizer = load_tokenizer(str(folder), None, False)
    source = open_source(config)
    renderer = renderer_spec(config, tokenizer, None, identity.end_ids).build()
    conversations = list(source.conversations(source.rows))
    for conversation, example in zip(conversations, renderer.render(conversations), strict=True):
        assert not isinstance(example, Unusable) and not isinstance(conversation, Unusable)
        assert len(example.input_ids) <= (identity.context or 0)
        marked = tokenizer.decode(example.input_ids[example.positions])
        answers = [message["content"] for message in conversation.messages if message["role"] == "assistant"]
        assert marked == "".join(f"{answer}<|im_end|>" for answer in answers)
    assert load_teacher(config, identity, len(tokenizer), len(tokenizer) - 1).vocab_used == 2048

    weights = (folder / "model.safetensors").read_bytes()
    again = train(folder, "--steps", "2")
    assert again.returncode == 0 and "already" in again.stdout
    assert (folder / "model.safetensors").read_bytes() == weights


def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path: Path):
    missing = train(tmp_path / "teacher", "--conversations", str(tmp_path / "none.jsonl"))
    assert missing.returncode == 2 and "Traceback" not in missing.stderr and "none.jsonl" in missing.stderr
