"""An output on the Hugging Face Hub. The only place that writes to the Hub."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars

from teacher_logits.errors import OutputError, UploadError
from teacher_logits.hub.checkpoint import CHECKPOINT_FILE, SKIPPED_FILE
from teacher_logits.hub.listing import Listing
from teacher_logits.hub.patience import bound_patience
from teacher_logits.hub.repository import Addition, Snapshot
from teacher_logits.hub.retries import may_pass, reason_of, status_of
from teacher_logits.records import Int64

_REFUSED = (401, 403)


class HubRepository:
    """A dataset repository on the Hub. Every commit names the one it builds on, so nobody's work is overwritten."""

    whole_commits = True

    def __init__(
        self,
        repo_id: str,
        private: bool = False,
        seconds_between_commits: float = 0.0,
        api: HfApi | None = None,
    ) -> None:
        self._repo_id, self._private = repo_id, private
        self.seconds_between_commits = seconds_between_commits
        self._client = api or HfApi()
        self._head: str | None = None
        """The commit that the next one builds on."""
        self._listing: Listing | None = None
        """What the last snapshot saw."""
        self._uploaded: dict[str, CommitOperationAdd] = {}
        """Shards whose bytes the Hub has already."""

    @property
    def _api(self) -> HfApi:
        """The client, whose patience is bounded."""
        bound_patience()
        return self._client

    @property
    def address(self) -> str:
        return f"Hub dataset {self._repo_id}"

    @property
    def loading_name(self) -> str:
        return self._repo_id

    def create(self) -> None:
        try:
            url = self._api.create_repo(self._repo_id, repo_type="dataset", private=self._private, exist_ok=True)
        except (LocalTokenNotFoundError, HFValidationError) as error:
            raise OutputError(self._refusal(error)) from error
        except HfHubHTTPError as error:
            if may_pass(error):
                raise
            raise OutputError(self._refusal(error)) from error
        self._repo_id = url.repo_id  # with the name space it was created in

    def close(self) -> None:
        """Nothing to do: each commit names the one it builds on, which tells two runs apart."""

    def snapshot(self) -> Snapshot:
        try:
            info = self._api.dataset_info(self._repo_id)
        except (LocalTokenNotFoundError, HFValidationError, GatedRepoError) as error:
            raise OutputError(self._refusal(error)) from error
        except RepositoryNotFoundError:
            return Snapshot({}, None, None)  # or one that the token may not see: `create` finds that out
        except HfHubHTTPError as error:
            if status_of(error) in _REFUSED:
                raise OutputError(self._refusal(error)) from error
            raise
        self._head = info.sha
        self._listing = Listing(self._api, self._repo_id, info.sha)
        files = self._listing.hashes
        kept = {name: self.read_bytes(name) if name in files else None for name in (CHECKPOINT_FILE, SKIPPED_FILE)}
        return Snapshot(files, kept[CHECKPOINT_FILE], kept[SKIPPED_FILE])

    def read_indices(self, shard: str, rows: int) -> Int64:
        with self._reading(shard) as listing:
            return listing.read_indices(shard, rows)

    def read_bytes(self, path: str) -> bytes:
        with self._reading(path) as listing:
            return listing.read_bytes(path)

    def missing(self, shards: Iterable[str]) -> list[str]:
        """None: nothing leaves a repository but by a commit, and the next one of ours would be refused."""
        return []

    def upload(self, path: str, local: Path) -> None:
        if path not in self._uploaded:
            disable_progress_bars()  # those of the client would tear ours
            addition = CommitOperationAdd(path, local)
            with self._ending_refusals():
                self._api.preupload_lfs_files(self._repo_id, [addition], repo_type="dataset", free_memory=False)
            self._uploaded[path] = addition

    def commit(self, additions: Mapping[str, Addition], deletions: Sequence[str], message: str) -> None:
        operations: list[Any] = [CommitOperationDelete(path) for path in deletions]
        for path, content in additions.items():
            operations.append(self._uploaded.get(path) or CommitOperationAdd(path, content))
        with self._ending_refusals():
            done = self._api.create_commit(
                self._repo_id, operations, commit_message=message, repo_type="dataset", parent_commit=self._head
            )
        self._head = done.oid
        for path in additions:
            self._uploaded.pop(path, None)

    @contextmanager
    def _ending_refusals(self) -> Iterator[None]:
        """Raise UploadError where the token may not write, or the repository is gone."""
        try:
            yield
        except HfHubHTTPError as error:
            if isinstance(error, RepositoryNotFoundError) or status_of(error) in _REFUSED:
                raise UploadError(self._gone(error)) from error
            raise

    @contextmanager
    def _reading(self, path: str) -> Iterator[Listing]:
        """What the last snapshot saw. Raises OutputError where the Hub refuses to give the file."""
        assert self._listing is not None, "a snapshot comes first"
        try:
            yield self._listing
        except HfHubHTTPError as error:
            if may_pass(error):
                raise
            raise OutputError(
                f"The Hub doesn't give {path} of {self._repo_id} ({reason_of(error)}). Log in with `hf auth login` or "
                "set HF_TOKEN to a token that may read there; where somebody changes the repository, try again later."
            ) from error

    def _refusal(self, error: Exception) -> str:
        return (
            f"The Hub refuses {self._repo_id} as --output ({reason_of(error)}). Log in with `hf auth login` or set "
            "HF_TOKEN to a token that may write there, or give a folder such as ./my-logits."
        )

    def _gone(self, error: Exception) -> str:
        return (
            f"The Hub takes nothing more for {self._repo_id} ({reason_of(error)}): the token has no right to write any "
            "more, or the repository is gone. Everything is kept in the cache folder; mend it and go on with --resume."
        )
