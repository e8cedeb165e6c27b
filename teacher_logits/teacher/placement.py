"""Which device, type and attention 'auto' means."""

import importlib.util

import torch

from teacher_logits.errors import TeacherError


def resolve_device(wanted: str) -> torch.device:
    """The device that `--device` names. Raises TeacherError where it isn't there."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise TeacherError(
            f"--device {wanted} can't be used here: {first.rstrip('.')}. Pass auto, cpu, cuda, cuda:1 or mps."
        ) from error
    return device


def resolve_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """The type the teacher computes in: for auto bfloat16 on CUDA where the card has it, else float16 there, and
    float32 elsewhere."""
    if wanted != "auto":
        return getattr(torch, wanted)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float32


def attention_choices(wanted: str, device: torch.device, dtype: torch.dtype) -> list[str]:
    """The attention implementations to try, best first."""
    if wanted != "auto":
        return [wanted]
    flash = (
        device.type == "cuda"
        and dtype in (torch.bfloat16, torch.float16)
        and importlib.util.find_spec("flash_attn") is not None
    )
    return (["flash_attention_2"] if flash else []) + ["sdpa", "eager"]
