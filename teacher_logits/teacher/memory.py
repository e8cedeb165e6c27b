"""How many padded tokens fit in a batch."""

import psutil
import torch

from teacher_logits.teacher.forward import Teacher

_SHARE_OF_FREE = 0.4
_ACTIVATIONS_PER_HIDDEN = 40
"""Numbers a token keeps alive in a layer without gradients, in units of the hidden size: a generous figure."""
_SMALLEST, _LARGEST_CPU, _LARGEST_GPU = 512, 4096, 65536


def default_batch_tokens(teacher: Teacher) -> int:
    """Padded tokens a batch, from the free memory and the model's shape, as if every token were the assistant's."""
    hidden = teacher.hidden_size
    per_token = (
        teacher.vocab_size * teacher.bytes_per_number + _ACTIVATIONS_PER_HIDDEN * hidden * teacher.bytes_per_number
    )
    fitting = int(_free_bytes(teacher.device) * _SHARE_OF_FREE / per_token)
    return max(_SMALLEST, min(most_batch_tokens(teacher.device), fitting))


def most_batch_tokens(device: torch.device) -> int:
    """The most padded tokens that a batch is given by itself, however much memory there is."""
    return _LARGEST_CPU if device.type == "cpu" else _LARGEST_GPU


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
