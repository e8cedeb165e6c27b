"""What libraries raise for a dataset that can't be read, as errors that say what to do."""

import re
from collections.abc import Callable
from typing import Any

from teacher_logits.errors import DatasetError

_NO_ROWS = "BatchSize must be greater than 0"
"""What the library makes of a Parquet file without rows."""


def clear_errors(load: Callable[[], Any], address: str, split: str) -> Any:
    """Run `load`, turning what libraries raise for unusable input into a DatasetError that says what to do."""
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return load()
    except (GatedRepoError, RepositoryNotFoundError, DatasetNotFoundError) as error:
        raise DatasetError(
            f"There is no dataset {address!r} on the Hub that you may read, and no such file or folder here. Check the "
            "name; for a private or gated dataset log in with `hf auth login` or set HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise DatasetError(f"Dataset {address!r} has not the revision asked for ({first_line(error)}).") from error
    except HFValidationError as error:
        raise DatasetError(
            f"{address!r} is neither a file or folder here nor a Hub id ({first_line(error)})."
        ) from error
    except DatasetGenerationError as error:
        if "column names don't match" in str(error.__cause__ or error):
            raise DatasetError(
                f"{address} can't be read as one dataset: its rows have different columns. Name files of one shape."
            ) from error
        cause = first_line(error.__cause__ or error)
        if cause.startswith(_NO_ROWS):
            raise DatasetError(f"{address} holds no rows.") from error
        raise DatasetError(f"{address} can't be read as a dataset: {cause}. Mend the file and run again.") from error
    except (StopIteration, IndexError) as error:  # what the library makes of files without any
        raise DatasetError(f"{address} holds no rows.") from error
    except HfHubHTTPError as error:
        raise DatasetError(f"The Hub did not give dataset {address!r}: {first_line(error)}") from error
    except RecursionError as error:
        raise DatasetError(f"{address} can't be read as a dataset: a row is nested too deeply.") from error
    except (TypeError, OverflowError) as error:
        raise DatasetError(
            f"{address} can't be read as one dataset: its rows have columns of different types ({first_line(error)}). "
            "Mend the file and run again."
        ) from error
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        reason = first_line(error)
        if reason.startswith(_NO_ROWS):
            raise DatasetError(f"{address} holds no rows.") from error
        if reason.startswith("Config name is missing"):
            choices = re.search(r"\[.*\]", str(error))
            raise DatasetError(
                f"Dataset {address} has several configurations: name one with --dataset-config"
                f"{f', of {choices[0]}' if choices else ''}."
            ) from error
        raise DatasetError(f"Split {split!r} of {address} can't be loaded: {reason}") from error
    except Exception as error:
        # Broken connections are errors of whichever HTTP library the Hub's client uses.
        if not type(error).__module__.startswith("httpx"):
            raise
        raise DatasetError(
            f"The Hub can't be reached for dataset {address!r}: {first_line(error)}. Check the connection and the "
            "name; there is no such file or folder here."
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without a full stop."""
    lines = re.sub(r"\s+\n", "\n", str(error)).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
