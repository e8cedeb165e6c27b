"""Every option of an extraction, once: its name, default, help, validation, and whether it changes the result."""

from teacher_logits.settings.config import MAX_VOCABULARY, ExtractionConfig, result_options
from teacher_logits.settings.fingerprint import FINGERPRINT_FIELDS, differing_fields, fingerprint
from teacher_logits.settings.options import option_name
from teacher_logits.settings.outputs import absolute_output, is_folder, local_folder, pattern_base, same_output
from teacher_logits.settings.source_options import SourceOptions

__all__ = [
    "FINGERPRINT_FIELDS",
    "MAX_VOCABULARY",
    "ExtractionConfig",
    "SourceOptions",
    "absolute_output",
    "differing_fields",
    "fingerprint",
    "is_folder",
    "local_folder",
    "option_name",
    "pattern_base",
    "result_options",
    "same_output",
]
