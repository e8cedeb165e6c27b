"""README.md of an output: the dataset card. Pure text; its YAML makes `load_dataset` work for any split name."""

import hashlib
from collections.abc import Mapping
from typing import Any

import yaml

from teacher_logits.hub.checkpoint import Checkpoint
from teacher_logits.shards.names import split_stem

_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
)

_LONGEST_PROMPT = 200

_BODY = """\
# Teacher logits of {model}

Next-token distributions of the teacher **{model}** at {which} of **{source}** (split `{split}`):
the nucleus ({top_p:.4g} of the probability, at most {cap} tokens), {sampled_n} Gumbel-max samples of the rest, and the
exact log-sum-exp. One row is a conversation; rows stand longest first.

| | |
|---|---|
| conversations | {conversations:,} |
| assistant tokens | {tokens:,} |
| complete | {complete} |
{figures}| teacher | {model}{model_revision} |
| computed in | {model_dtype}, logits {logits_dtype}, vocabulary {vocab_used:,} of {vocab_size:,} |
| source | {source}{source_revision} |
| read from | {columns} |
| assistant tokens by | {mask_method} |
{system_prompt}| seed | {seed} |
{picture}
## Loading

```python
from datasets import load_dataset

dataset = load_dataset("{loading_name}", split="{split}")
```

With teacher-logits installed, `explore_logits` decodes and shows it:

```python
from explore_logits import *

dataset = load_logit_dataset("{loading_name}")
sample = get_sample(dataset, 0)
probabilities = [logits_to_probs(*pair) for pair in zip(dequantize_top_logits(sample), sample["logsumexp"])]
```

{tokens_snippet}

## Columns

`index` is the conversation's number in the source dataset, `num_tokens` the number n of assistant tokens. Entry i
belongs to position `positions[i]` of `input_ids` and describes the distribution that predicts that token, so
`logit - logsumexp[i]` is a log-probability without any shift.

| column | content |
|---|---|
| `top_indices_low`, `top_indices_high` | nucleus token ids: low 16 bits, and bits 16-17 four to a byte |
| `top_logits_quantized`, `top_min`, `top_max` | nucleus logits: `min + q / 65535 * (max - min)` |
| `top_counts` | the n nucleus sizes |
| `sampled_indices_low`, `sampled_indices_high` | {sampled_n} sampled ids an entry, in the order of their draw |
| `sampled_logits_quantized`, `sampled_min`, `sampled_max` | their logits |
| `logsumexp`, `logsumexp_t2`, `logsumexp_t4` | log of the sum of exp(logit / T) over the vocabulary, T = 1, 2, 4 |
| `token_logprob` | log-probability of the token that stands in the conversation |
| `input_ids`, `positions` | the rendered conversation, and where its entries stand{no_tokens} |

Never renormalise over the stored tokens: the log-sum-exp is that of the whole vocabulary.
"""


_FIGURES = """\
| mean nucleus | {nucleus:.1f} tokens |
| the nuclei hold | {mass:.2f} % of the probability, on average |
| bytes a token | {bytes:.0f} |
"""

_STORED = """\
The tokens themselves are stored, so no tokenizer's version or chat template matters:

```python
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{model}"{revision}){hint}
row = dataset[0]
print(tokenizer.decode(row["input_ids"]))  # the whole conversation, as the teacher saw it
print([tokenizer.decode(row["input_ids"][place]) for place in row["positions"]])  # its assistant tokens
```
"""

_NOT_STORED = """\
The tokens themselves are not stored. From the source dataset they are made again, and checked against what is stored:

```python
from teacher_logits.exploring import retokenized

sample = retokenized(sample)
print(sample["input_ids"], sample["positions"])
```
"""


def render_card(checkpoint: Checkpoint, loading_name: str, picture: str | None = None) -> bytes:
    """The card's text. loading_name: what `load_dataset` takes.   picture: path of the one beside it, if there is."""
    metadata = checkpoint.metadata
    split = split_stem(str(metadata["source_split"]))
    body = _BODY.format(
        model=metadata["model"],
        model_revision=_at(metadata, "model_revision"),
        source=metadata["source"],
        source_revision=_at(metadata, "source_revision"),
        split=split,
        top_p=metadata["top_p"],
        cap=metadata["top_p_max_elements"],
        sampled_n=metadata["sampled_n"],
        seed=metadata["seed"],
        conversations=checkpoint.total_samples,
        tokens=checkpoint.total_tokens,
        complete="yes" if checkpoint.complete else "not yet",
        model_dtype=metadata["model_dtype"],
        logits_dtype=metadata["logits_dtype"],
        vocab_used=metadata["vocab_used"],
        vocab_size=metadata["vocab_size"],
        loading_name=loading_name,
        no_tokens="" if metadata["store_tokens"] else " (left out here)",
        which=_which(metadata),
        figures=_figures(checkpoint),
        columns=", ".join(f"`{name}`" for name in (metadata.get("source_columns") or {}).values()),
        mask_method=_METHODS.get(str(metadata.get("mask_method")), metadata.get("mask_method")),
        system_prompt=_system_prompt(metadata),
        picture=f"\n![How many tokens the nuclei have]({picture})\n" if picture else "",
        tokens_snippet=(_STORED if metadata["store_tokens"] else _NOT_STORED).format(
            model=metadata["model"],
            hint="" if metadata.get("model_revision") else "  # or the path of the model's folder",
            revision=f', revision="{metadata["model_revision"]}"' if metadata.get("model_revision") else "",
        ),
    )
    return f"---\n{_header(checkpoint, split)}---\n\n{body}".encode()


_METHODS = {
    "template": "the chat template's marks",
    "prefix": "what the chat template adds after its generation prompt",
    "sentinel": "where the chat template prints an answer, and the token that ends the turn",
}


def _which(metadata: Mapping[str, Any]) -> str:
    """Which tokens have entries, in words."""
    text = "every assistant token"
    if metadata.get("turns") == "last":
        text = "every token of the assistant's last turn in each conversation"
    left_out = [str(name).partition(" ")[0].replace("_", " ") for name in metadata.get("exclusions") or ()]
    return text + (f", without {' and '.join(dict.fromkeys(left_out))}," if left_out else "")


def _figures(checkpoint: Checkpoint) -> str:
    figures = checkpoint.figures
    if figures is None:
        return ""
    return _FIGURES.format(
        nucleus=figures.nucleus_tokens / figures.entries,
        mass=100 * figures.nucleus_mass / figures.entries,
        bytes=figures.bytes / figures.entries,
    )


def _system_prompt(metadata: Mapping[str, Any]) -> str:
    """A line of the table; what is long is cut, and nothing in it can end the line or the cell."""
    prompt = metadata.get("system_prompt")
    if not prompt:
        return ""
    words = " ".join(str(prompt).split())
    shown = words if len(words) <= _LONGEST_PROMPT else words[:_LONGEST_PROMPT] + "..."
    escaped = shown.replace("|", "\\|").replace("`", "'")
    return f"| system prompt, where there is none | `{escaped}` |\n"


def folder_mark(*content: bytes) -> str:
    """What a card says of its files in its first lines, for the `datasets` library.

    The library keeps the rows of a folder that has a card under the folder's name and these lines. Without the mark it
    would give the rows of another folder of this name, or those that stood here before, for these.
    """
    return hashlib.sha256(b"\0".join(content)).hexdigest()[:16]


def _header(checkpoint: Checkpoint, split: str) -> str:
    size = next((name for limit, name in _SIZES if checkpoint.total_samples < limit), "100M<n<1B")
    config = {
        "config_name": "default",
        "description": folder_mark(
            *(f"{name} {shard['sha256']}".encode() for name, shard in sorted(checkpoint.shards.items()))
        ),
        "data_files": [{"split": split, "path": f"data/{split}-*.parquet"}],
    }
    content: dict[str, Any] = {
        "pretty_name": f"Teacher logits of {checkpoint.metadata['model']}",
        "task_categories": ["text-generation"],
        "size_categories": [size],
        "tags": ["teacher-logits", "distillation", "logits"],
        "configs": [config],
    }
    if checkpoint.metadata.get("source_revision"):
        content["source_datasets"] = [checkpoint.metadata["source"]]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _at(metadata: Mapping[str, Any], field: str) -> str:
    """The commit that a Hub id stands for, short."""
    return f" at {metadata[field][:12]}" if metadata.get(field) else ""
