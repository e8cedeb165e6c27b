"""The teacher of the comparison: whether it is the run's, and the truth of a conversation from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from teacher_logits.errors import FormatError, TeacherError
from teacher_logits.exploring.fidelity.truth import StoredIds, Truth, joined, recompute
from teacher_logits.exploring.runs import told
from teacher_logits.settings import ExtractionConfig, differing_fields

if TYPE_CHECKING:
    from teacher_logits import teacher

_TYPES = ("float64", "float32", "float16", "bfloat16")
_NEEDED = ("model_dtype", "logits_dtype", "vocab_used", "top_p", "top_p_max_elements", "sampled_n")


@dataclass(frozen=True)
class ComparedTeacher:
    """A loaded teacher, with the settings of the run it is compared with."""

    teacher: "teacher.Teacher"
    name: str
    run_dtype: str
    """Type that the run computed in."""
    dtype: str
    """Type that this one computes in."""
    differences: tuple[str, ...]
    """In what it is not the run's model; empty where it is."""
    vocab_used: int
    top_p: float
    cap: int

    def truth(self, sample: Mapping[str, Any], stored: StoredIds) -> Truth:
        """What it says of the stored tokens of a conversation, which it reads alone and without padding.

        Raises TeacherError where it can't read the conversation.
        """
        import torch

        ids = sample["input_ids"].astype(np.int64)
        known = self.teacher.model.get_input_embeddings().weight.shape[0]
        if ids.max() >= known or ids.min() < 0:
            raise TeacherError(
                f"Conversation {sample['index']} has token {ids.max() if ids.min() >= 0 else ids.min()}, and "
                f"{self.name} knows {known:,} tokens. It can't be the teacher of this dataset."
            )
        ids_BL = torch.from_numpy(ids)[None].to(self.teacher.device)
        predicts_BL = torch.zeros_like(ids_BL, dtype=torch.bool)
        predicts_BL[0, torch.from_numpy(sample["positions"].astype(np.int64) - 1)] = True
        parts, first = [], 0
        try:
            for piece_PV in self.teacher.logits(ids_BL, torch.ones_like(ids_BL), predicts_BL):
                past = first + len(piece_PV)
                own = StoredIds(*(each[first:past] for each in vars(stored).values()))
                parts.append(recompute(piece_PV, own, self.vocab_used, self.top_p, self.cap))
                first = past
        except torch.OutOfMemoryError as error:
            raise TeacherError(
                f"Conversation {sample['index']} of {ids_BL.shape[1]:,} tokens doesn't fit into the memory of "
                f"{self.teacher.device}. Use another --device."
            ) from error
        return joined(parts)


def open_teacher(
    run: Mapping[str, Any], model: str | Path, dtype: str, device: str, tokenizer: Any, any_model: bool
) -> ComparedTeacher:
    """Load `model` as the run's teacher.

    Raises TeacherError where it can't be loaded, or isn't the run's model and `any_model` isn't set; FormatError where
    the metadata doesn't tell what is needed.
    """
    from teacher_logits import conversations, teacher

    metadata = run.get("metadata") or {}
    _require(metadata)
    wanted = metadata["model_dtype"] if dtype == "auto" else dtype
    config = ExtractionConfig.from_mapping(
        {
            "model": str(model),
            "dtype": wanted,
            "device": device,
            "top_p_max_elements": metadata["top_p_max_elements"],
            "sampled_n": metadata["sampled_n"],
            "vocab_limit": metadata["vocab_used"],
        },
        "the comparison",
    )
    of_run = str(model) in (metadata.get("model"), told(run, "model"))
    identity = teacher.identify_teacher(config, metadata.get("model_revision") if of_run else None)
    if tokenizer is None:
        tokenizer = conversations.load_tokenizer(identity.address, identity.commit, trust_remote_code=False)
    now = {"model_content": identity.content, "tokenizer_sha256": conversations.tokenizer_sha256(tokenizer)}
    differences = tuple(differing_fields({name: metadata.get(name) for name in now}, now))
    if differences and not any_model:
        raise TeacherError(
            f"{model} is not the model this dataset was made with. Different: {'; '.join(differences)}. Pass that "
            "model; or compare with this one all the same: any_model=True of compare_with_teacher in Python, compare "
            "--any-model in a terminal."
        )
    largest = max(tokenizer.get_vocab().values(), default=0)
    return ComparedTeacher(
        teacher=teacher.load_teacher(config, identity, len(tokenizer), largest),
        name=identity.name,
        run_dtype=metadata["model_dtype"],
        dtype=wanted,
        differences=differences,
        vocab_used=metadata["vocab_used"],
        top_p=float(metadata["top_p"]),
        cap=metadata["top_p_max_elements"],
    )


def _require(metadata: Mapping[str, Any]) -> None:
    missing = [name for name in _NEEDED if metadata.get(name) is None]
    if missing:
        raise FormatError(f"The dataset's metadata doesn't tell {', '.join(missing)}; it can't be compared.")
    for name in ("model_dtype", "logits_dtype"):
        if metadata[name] not in _TYPES:
            raise FormatError(f"The dataset's metadata says {name} {metadata[name]!r}; known are {', '.join(_TYPES)}.")
    for name in ("vocab_used", "top_p_max_elements", "sampled_n"):
        if type(metadata[name]) is not int or metadata[name] < 1:
            raise FormatError(f"The dataset's metadata says {name} {metadata[name]!r}, which is no number of tokens.")
    if type(metadata["top_p"]) not in (int, float):
        raise FormatError(f"The dataset's metadata says top_p {metadata['top_p']!r}, which is no probability.")
