"""The files of one commit on the Hub. What is read of them is held against what the Hub lists."""

import hashlib
import io
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

from teacher_logits.errors import FormatError, UploadError
from teacher_logits.files import git_blob_id
from teacher_logits.hub.ranges import PartialFile, agreeing_indices, fetch_column
from teacher_logits.hub.retries import may_pass
from teacher_logits.records import Int64
from teacher_logits.shards import read_indices

log = logging.getLogger(__name__)

_TRIES = 3
"""How often something is fetched whose content turns out to be wrong."""
_CLIENT_TRIES = 2
"""How often the client tries again by itself; whoever reads does so, too, with longer waits."""
_SHA256_DIGITS = 64


class Listing:
    """The files of a dataset at one commit. May be read by several threads."""

    def __init__(self, api: HfApi, repo_id: str, commit: str) -> None:
        """Ask for all pages of the list. Raises the client's errors."""
        self._api, self._repo_id, self._commit = api, repo_id, commit
        entries = api.list_repo_tree(repo_id, recursive=True, revision=commit, repo_type="dataset")
        self._files: dict[str, Any] = {entry.path: entry for entry in entries if hasattr(entry, "blob_id")}

    @property
    def hashes(self) -> dict[str, str | None]:
        """Every file with the SHA-256 of its content where the Hub lists it, which it does for large files."""
        return {path: self._sha256(path) for path in self._files}

    def read_bytes(self, path: str) -> bytes:
        """The content of a file. Raises UploadError where it doesn't arrive as listed, and the client's errors."""
        for _ in range(_TRIES):
            # Whole files come from the Hub itself, or over its redirect, which the client follows without the token.
            content = self._get(self._address(path), {}).content
            if self._is_listed(path, content):
                return content
            log.warning("%s of %s arrived damaged; fetching it again", path, self._repo_id)
        raise UploadError(
            f"{path} of the Hub dataset {self._repo_id} arrives damaged: {_TRIES} times it wasn't what the Hub lists. "
            "Look for what changes downloads on their way (a proxy?) and try again; nothing was changed."
        )

    def read_indices(self, path: str, rows: int) -> Int64:
        """Source numbers of a shard's rows, from its footer and that column, or from the whole file where these don't
        fit together.

        rows: how many there should be. Raises FormatError where the file itself, as the Hub lists it, can't be read,
        UploadError where it doesn't arrive as it is listed, and the client's errors.
        """
        for _ in range(_TRIES - 1):
            try:
                return agreeing_indices(self._fetch_index(path), rows)
            except (FormatError, HfHubHTTPError) as error:
                # A refusal may be that of an address which is signed for a while only.
                if may_pass(error):
                    raise
                log.debug("reading %s again: %s", path, error)
        return read_indices(io.BytesIO(self.read_bytes(path)))

    def _fetch_index(self, path: str) -> PartialFile:
        """The parts of a shard that tell its numbers, from wherever the Hub keeps it."""
        size = self._files[path].size
        found = get_hf_file_metadata(
            self._address(path),
            token=self._api.token,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
            endpoint=self._api.endpoint,
            retry_on_errors=True,
        )
        known = self._sha256(path)
        another = known is not None and len(found.etag or "") == _SHA256_DIGITS and found.etag != known
        if another or found.size not in (None, size):
            raise FormatError(f"the Hub lists {path} with {size:,} bytes, and gives another file.")

        def fetch(start: int, stop: int) -> tuple[int, bytes]:
            answer = self._get(found.location, {"Range": f"bytes={start}-{stop - 1}"})
            whole = answer.status_code == 200  # whoever doesn't know ranges gives everything
            first, last = (0, size) if whole else (start, stop)
            told = None if whole else answer.headers.get("Content-Range")
            if len(answer.content) != last - first or told not in (None, f"bytes {start}-{stop - 1}/{size}"):
                raise FormatError(f"{len(answer.content)} bytes ({told}) came for bytes {start} to {stop} of {path}.")
            return first, answer.content

        return fetch_column(size, fetch, "index")

    def _sha256(self, path: str) -> str | None:
        lfs = self._files[path].lfs
        return str(lfs.sha256) if lfs else None

    def _is_listed(self, path: str, content: bytes) -> bool:
        """Whether this is a file's content: by its SHA-256, or by the id that git gives to small files."""
        known = self._sha256(path)
        if known is not None:
            return hashlib.sha256(content).hexdigest() == known
        return git_blob_id(content) == self._files[path].blob_id

    def _address(self, path: str) -> str:
        return hf_hub_url(self._repo_id, path, repo_type="dataset", revision=self._commit, endpoint=self._api.endpoint)

    def _get(self, address: str, headers: Mapping[str, str]) -> Any:
        """The answer to a GET. The token goes to the Hub alone. Raises the client's errors."""
        own = urlsplit(address)[:2] == urlsplit(self._api.endpoint)[:2]
        sent = build_hf_headers(token=self._api.token if own else False) | {"Accept-Encoding": "identity", **headers}
        answer = http_backoff(
            "GET",
            address,
            max_retries=_CLIENT_TRIES,
            headers=sent,
            follow_redirects=True,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        )
        hf_raise_for_status(answer)
        return answer
