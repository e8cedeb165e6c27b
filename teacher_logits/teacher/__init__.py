"""The teacher: what it is, loading it, and the logits that predict assistant tokens."""

from teacher_logits.teacher.forward import Teacher, load_teacher
from teacher_logits.teacher.identity import TeacherIdentity, identify_teacher
from teacher_logits.teacher.memory import default_batch_tokens, most_batch_tokens

__all__ = [
    "Teacher",
    "TeacherIdentity",
    "default_batch_tokens",
    "identify_teacher",
    "load_teacher",
    "most_batch_tokens",
]
