"""Errors a user can act on. Each message says what was found, what was expected and what to do.

`exit_code` is what the command line ends with: 2 for options or input that can't be used, 1 for a run that
started and could not finish.
"""


class TeacherLogitsError(Exception):
    """Something the person who runs the program must act on."""

    exit_code = 1


class InputError(TeacherLogitsError):
    """Options or input that can't be used; nothing was changed."""

    exit_code = 2


class SettingsError(InputError):
    """An option is missing, out of range, or contradicts another."""


class DatasetError(InputError):
    """The source dataset can't be opened, or lacks what the options ask for."""


class ChatTemplateError(InputError):
    """The chat template is missing or broken, or doesn't let the assistant's tokens be told."""


class TeacherError(InputError):
    """The model can't be loaded, or its logits can't be stored in the format."""


class OutputError(InputError):
    """The output or the cache folder holds something this run must not touch."""


class FormatError(InputError):
    """A logits dataset that can't be read: not there, another format version, or damaged."""


class DamagedShardError(FormatError):
    """A shard that isn't a Parquet file, or whose bytes have changed."""


class NotConfirmedError(TeacherLogitsError):
    """The user answered a question with no."""


class UploadError(TeacherLogitsError):
    """The output takes no more: it refused, was changed by somebody else, or did not answer for too long.

    Whatever it has not taken waits in the cache folder.
    """


class NonFiniteLogitsError(TeacherLogitsError):
    """The teacher gave NaN or infinite logits for too many conversations."""
