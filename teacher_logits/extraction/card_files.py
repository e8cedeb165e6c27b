"""The dataset card and its picture."""

import logging

from teacher_logits.exploring.optional import MissingLibraryError
from teacher_logits.exploring.plots import plot_size_classes, png_of
from teacher_logits.hub import Checkpoint, render_card
from teacher_logits.hub.checkpoint import CARD_FILE
from teacher_logits.shards import size_class_names

log = logging.getLogger(__name__)

PICTURE_FILE = "assets/nucleus_sizes.png"


def card_files(checkpoint: Checkpoint, loading_name: str) -> dict[str, bytes]:
    """README.md, and of a complete dataset its picture, by their paths. loading_name: what `load_dataset` takes.

    There is no picture before, since it would be drawn again for each commit while the teacher works.
    """
    picture = _picture(checkpoint) if checkpoint.complete else None
    card = render_card(checkpoint, loading_name, None if picture is None else PICTURE_FILE)
    return {CARD_FILE: card} | ({} if picture is None else {PICTURE_FILE: picture})


def _picture(checkpoint: Checkpoint) -> bytes | None:
    """Nucleus sizes as PNG; None where they, or the libraries that draw, aren't there."""
    figures = checkpoint.figures
    if figures is None:
        return None
    names = size_class_names(checkpoint.metadata["top_p_max_elements"])
    source = f"{checkpoint.metadata['model']} on {checkpoint.metadata['source']}, {figures.entries:,} entries"
    try:
        return png_of(plot_size_classes(names, figures.nucleus_sizes[: len(names)], source))
    except MissingLibraryError as error:
        log.debug("no picture: %s", error)
    except Exception as error:  # noqa: BLE001 (fonts, a cache that can't be written: a picture is not worth a run)
        log.warning("the card gets no picture: %s", error)
    return None
