"""How the assistant's tokens are found in real chat templates, and whether what is marked is right.

    python -m benchmarks.templates --templates FOLDER --tokenizer FOLDER

The folder of templates holds `index.json`, a list of objects whose `path` names a file in it. Each template is tried
with the tokenizer, after the special tokens that it prints were added to it. What is marked is judged by decoding it,
with nothing of the program's own way of finding it: each run of marked tokens has to be one answer and at most one
special token behind it (or one and the end-of-text token), in their order, and no answer may be missing. Of an answer
that has thoughts of its own or tool calls it has to hold all that is said there, and nothing that others say. Where a
template has marks of its own, they are taken as they are; they may include more of a turn, such as empty thoughts.
"""

import copy
import dataclasses
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from benchmarks.measuring import print_table
from teacher_logits.conversations import ChatRenderer, RendererSpec, Unusable
from teacher_logits.conversations.choosing import with_mask_method
from teacher_logits.conversations.masks import MARK_IT, PASS_ANOTHER
from teacher_logits.errors import ChatTemplateError
from teacher_logits.records import Conversation, Example

SPECIAL = re.compile(
    r"<\|[^|<>\s'\"{}]{1,40}\|>|<｜[^｜<>\s'\"{}]{1,40}｜>|\[\|\w{1,40}\|\]|</?s>|\[/?[A-Z_]{3,40}\]"
    r"|<(?:start|end)_of_\w+>|</?think>|<sep>|<(?:bos|eos|sop|eop)>|\[gMASK\]|<seed:\w+>|\]~!?b\[|\[e~\[|<\|[a-z_]+>|<[a-z_]+\|>"
)
"""What templates print that is one token of their own model's tokenizer."""
DATE = "2024-07-01"
CITY = {"type": "object", "properties": {"city": {"type": "string", "description": "which"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "of today", "parameters": CITY}}
CALL = {"id": "a1b2c3d4e", "type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}


@dataclasses.dataclass(frozen=True)
class Options:
    """Try every chat template of a folder."""

    templates: str
    """Folder with the templates and index.json."""
    tokenizer: str
    """Folder of a tokenizer."""
    only: str = ""
    """Only templates whose name holds this."""
    show: bool = False
    """Print what is marked, too."""


def conversations() -> dict[str, Conversation]:
    """One of each kind, by its name. One answer is said twice, and one is part of another."""

    def said(*texts: str, system: str | None = None) -> list[dict[str, Any]]:
        turns = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
        return ([{"role": "system", "content": system}] if system else []) + turns

    three = (
        "What is 2 + 2?",
        "It is four.",
        "And once more?",
        "It is four.",
        "Thanks, and\nin words?",
        "four\n\n- é 🙂",
    )
    thoughts = ("Why?", "<think>\nLet me see.\n</think>\n\nBecause.", "How?", "<think>\nHm.\n</think>\n\nLike that.")
    kinds = {
        "one turn": said(*three[:2]),
        "three turns": said(*three),
        "system + three turns": said(*three, system="Be brief."),
        "thinking": said(*thoughts, "And?", "<think>\nSo.\n</think>\n\nNothing."),
        "thoughts apart": said("Why?", "Because."),
        "tool calls": said("Is it warm in Rome?", "", "21 degrees", "Mild."),
    }
    kinds["thoughts apart"][1]["reasoning_content"] = "Let me see."
    kinds["tool calls"][1]["tool_calls"] = [CALL]
    kinds["tool calls"][2] |= {"role": "tool", "name": "weather", "tool_call_id": CALL["id"]}
    return {
        name: Conversation(number, messages, [TOOL] if name == "tool calls" else None)
        for number, (name, messages) in enumerate(kinds.items())
    }


def with_specials_of(tokenizer: PreTrainedTokenizerFast, template: str) -> PreTrainedTokenizerFast:
    """A copy of the tokenizer that has the special tokens of a template's own model."""
    own = copy.deepcopy(tokenizer)
    found = set(SPECIAL.findall(template))
    if "bos_token" in template:
        own.bos_token = "<s>"
        found.add("<s>")
    if "eos_token" in template:
        own.eos_token = next((each for each in ("<|im_end|>", "</s>") if each in found), "</s>")
        found.add(own.eos_token)
    if "<|END_OF_TURN_TOKEN|>" in found:  # at which Cohere's models stop
        own.eos_token = "<|END_OF_TURN_TOKEN|>"
    own.add_special_tokens({"additional_special_tokens": sorted(found)}, replace_extra_special_tokens=False)
    return own


def judge(example: Example, messages: list[dict[str, Any]], tokenizer: PreTrainedTokenizerFast, method: str) -> str:
    """What is marked, judged by its text: "right", "as marked" by the template (which may include more of the turn),
    or what is wrong with it."""
    runs = np.split(example.positions, np.flatnonzero(np.diff(example.positions) > 1) + 1)
    texts = [tokenizer.decode(example.input_ids[run], skip_special_tokens=False) for run in runs]
    spoken = [message for message in messages if message["role"] == "assistant"]
    answers = [message["content"] for message in spoken]
    others = [message["content"] for message in messages if message["role"] != "assistant"]
    if len(texts) != len(answers):
        return f"wrong: {len(texts)} runs for {len(answers)} answers"
    alone = not any(other in text for text in texts for other in others)
    has_more = spoken[0].keys() > {"role", "content"}
    whole = all(word in text for text, message in zip(texts, spoken, strict=True) for word in _words(message))
    if has_more and whole and alone:
        return "right, whole turns"
    rests = [_rest(text, answer) for text, answer in zip(texts, answers, strict=True)]
    ends = [end for each in tokenizer.all_special_tokens for end in (each, f"{each}{tokenizer.eos_token}")]
    specials = {None: 0, "": 0} | dict.fromkeys(ends, 1)
    if all(rest in specials and rest is not None for rest in rests):
        ended = sum(specials[rest] for rest in rests)
        remarks = [] if ended == len(answers) else [f"{ended} of {len(answers)} end tokens printed"]
        return ", ".join(["right", *remarks, *["thoughts not printed"] * has_more])
    without_thoughts = [re.sub("(?s)<think>.*</think>", "", answer).strip() for answer in answers]
    if method == "template" and alone and all(map(str.__contains__, texts, without_thoughts)):
        return "as marked"
    return f"wrong: {texts}"


def _words(message: dict[str, Any]) -> list[str]:
    """All that a message says: its content, its thoughts, the names and arguments of its calls."""
    calls = [call["function"] for call in message.get("tool_calls", [])]
    said = [word for call in calls for word in (call["name"], *call["arguments"], *call["arguments"].values())]
    return [message["content"], message.get("reasoning_content", ""), *said]


def _rest(text: str, answer: str) -> str | None:
    """What a run holds behind the answer, without white space (templates print some round thoughts); None if it
    doesn't begin with the answer."""
    letters, wanted = "".join(text.split()), "".join(answer.split())
    return letters.removeprefix(wanted) if letters.startswith(wanted) else None


def tried(template: str, tokenizer: PreTrainedTokenizerFast, chat: Conversation, show: bool) -> tuple[str, str, int]:
    """Method, verdict and marked tokens of one conversation, as a run would have them that begins with it."""
    spec = RendererSpec("trial", None, False, template, DATE if "strftime_now" in template else None)
    try:
        spec = with_mask_method(spec, tokenizer, "auto", [chat])
        renderer = ChatRenderer(spec, tokenizer)
    except ChatTemplateError as error:
        return "", f"refused: {error}", 0
    (example,) = renderer.render([chat])
    if isinstance(example, Unusable):
        return spec.mask_method, f"refused: {example}", 0
    if show:
        print(renderer.show(chat))
    return spec.mask_method, judge(example, chat.messages, tokenizer, spec.mask_method), len(example.positions)


def main() -> None:
    """Print a line for each template, and how many of them are right."""
    options = tyro.cli(Options, prog="python -m benchmarks.templates")
    folder = Path(options.templates)
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    chats = conversations()
    totals: dict[str, Counter[str]] = {kind: Counter() for kind in chats}
    rows, remarks = [], []
    for entry in json.loads((folder / "index.json").read_text(encoding="utf-8")):
        if "path" not in entry or options.only not in entry["path"]:
            continue  # the first: the same text as another's
        template = (folder / entry["path"]).read_text(encoding="utf-8")
        own = with_specials_of(tokenizer, template)
        name = entry["path"].removesuffix(".jinja")
        cells = []
        for kind, chat in chats.items():
            method, verdict, tokens = tried(template, own, chat, options.show)
            totals[kind][verdict.partition(":")[0].partition(",")[0]] += 1
            cells.append(f"{method}: {tokens}, {verdict.partition(':')[0]}" if tokens else "refused")
            if verdict.startswith(("refused", "wrong")):
                remarks.append((name, kind, _reason(verdict)))
        rows.append((name, *cells))
    verdicts = ("right", "as marked", "refused", "wrong")
    print_table(
        ("conversation", *verdicts), [(kind, *(count[each] for each in verdicts)) for kind, count in totals.items()]
    )
    print()
    print_table(("template", *chats), rows)
    print()
    print_table(("refused or wrong", "conversations", "why"), _grouped(remarks))


def _reason(verdict: str) -> str:
    """The verdict in a table's cell, without the advice that all refusals end with."""
    why = verdict.removeprefix("refused: ").removesuffix(f" {MARK_IT}").removesuffix(f" {PASS_ANOTHER}")
    return why.replace("|", "&#124;").replace("<", "&lt;").replace("\n", " ")


def _grouped(remarks: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The remarks with those about one template that say the same as one."""
    together: dict[tuple[str, str], list[str]] = {}
    for name, kind, why in remarks:
        together.setdefault((name, why), []).append(kind)
    return [(name, ", ".join(kinds), why) for (name, why), kinds in together.items()]


if __name__ == "__main__":
    main()
