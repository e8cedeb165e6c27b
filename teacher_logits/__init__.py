"""Turn a chat dataset and a teacher model into a compressed logits dataset, and read it back.

The rooms of this package and what each may import are described in docs/AGENTS.md.
"""

from teacher_logits.version import __version__

__all__ = ["__version__"]
