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

_BODY = """\
# Teacher logits of {model}

Next-token distributions of the teacher **{model}** at every assistant token of **{source}** (split `{split}`):
the nucleus ({top_p:.4g} of the probability, at most {cap} tokens), {sampled_n} Gumbel-max samples of the rest, and the
exact log-sum-exp. One row is a conversation; rows stand longest first.

| | |
|---|---|
| conversations | {conversations:,} |
| assistant tokens | {tokens:,} |
| complete | {complete} |
| teacher | {model}{model_revision} |
| computed in | {model_dtype}, logits {logits_dtype}, vocabulary {vocab_used:,} of {vocab_size:,} |
| source | {source}{source_revision} |
| seed | {seed} |

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


def render_card(checkpoint: Checkpoint, loading_name: str) -> bytes:
    """The card's text. loading_name: what `load_dataset` takes."""
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
    )
    return f"---\n{_header(checkpoint, split)}---\n\n{body}".encode()


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
