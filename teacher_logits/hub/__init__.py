"""The output: a Hub dataset or a local folder with the same files, and the uploads that run in the background."""

from teacher_logits.hub.card import folder_mark, render_card
from teacher_logits.hub.checkpoint import SKIPPED_FILE, Checkpoint
from teacher_logits.hub.folder import FolderRepository
from teacher_logits.hub.hub_repository import HubRepository
from teacher_logits.hub.repository import Repository, Snapshot, open_repository
from teacher_logits.hub.retries import patiently
from teacher_logits.hub.uploader import StreamingHFUploader, UploadSettings

__all__ = [
    "SKIPPED_FILE",
    "Checkpoint",
    "FolderRepository",
    "HubRepository",
    "Repository",
    "Snapshot",
    "StreamingHFUploader",
    "UploadSettings",
    "folder_mark",
    "open_repository",
    "patiently",
    "render_card",
]
