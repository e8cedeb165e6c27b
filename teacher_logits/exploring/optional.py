"""Libraries of the extra `viz`, imported where they are used."""

import importlib
from types import ModuleType

from teacher_logits.errors import InputError


class MissingLibraryError(InputError, ImportError):
    """A library that comes with an extra isn't installed."""


def viz_library(name: str) -> ModuleType:
    """The module `name`. Raises MissingLibraryError, which is an ImportError too, where it isn't installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingLibraryError(
            f"This view needs {name}, which isn't installed. It comes with: pip install 'teacher-logits[viz]'",
            name=name,
        ) from error
