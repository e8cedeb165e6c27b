"""Every option of an extraction, once: its name, default, help, validation, and whether it changes the result."""

from teacher_logits.settings.config import (
    MAX_VOCABULARY,
    ExtractionConfig,
    is_folder,
    local_folder,
    result_options,
)
from teacher_logits.settings.fingerprint import FINGERPRINT_FIELDS, differing_fields, fingerprint

__all__ = [
    "FINGERPRINT_FIELDS",
    "MAX_VOCABULARY",
    "ExtractionConfig",
    "differing_fields",
    "fingerprint",
    "is_folder",
    "local_folder",
    "result_options",
]
