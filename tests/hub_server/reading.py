"""The endpoints that read: who am I, a repository's description, its listings, and the files themselves."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlencode

import yaml

from .messages import Answer, Call, HubError, json_answer
from .ranges import ranged_answer
from .repository import Blob, Commit, Repository, contents_below, git_hash
from .state import HubState

EXPANDED_PAGE = 50
PATHS_IN_A_REQUEST = 1000


def whoami(hub: HubState, call: Call) -> Answer:
    hub.require_token(call)
    organizations = [{"type": "org", "name": name, "roleInOrg": "write"} for name in hub.settings.organizations]
    token = {"displayName": "tests", "role": "write"}
    return json_answer(
        {
            "type": "user",
            "id": "0",
            "name": hub.settings.user,
            "fullname": hub.settings.user,
            "isPro": False,
            "orgs": organizations,
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


def repository_info(hub: HubState, call: Call) -> Answer:
    """What `dataset_info` and `model_info` parse; sizes and hashes of the files with `blobs`."""
    repository = hub.readable(call)
    commit = _commit(repository, call)
    siblings = []
    for path, blob in sorted(commit.files.items()):
        sibling: dict[str, Any] = {"rfilename": path}
        if call.flag("blobs"):
            sibling |= {"size": blob.size, "blobId": blob.git_oid}
            if blob.lfs:
                sibling["lfs"] = {
                    "sha256": blob.sha256,
                    "size": blob.size,
                    "pointerSize": len(blob.pointer),
                }
        siblings.append(sibling)
    readme = commit.files.get("README.md")
    return json_answer(
        {
            "_id": git_hash(repository.repo_id.encode())[:24],
            "id": repository.repo_id,
            "modelId": repository.repo_id,
            "author": repository.repo_id.split("/")[0],
            "sha": commit.oid,
            "lastModified": commit.timestamp,
            "createdAt": list(repository.history(commit.oid))[-1].timestamp,
            "private": repository.private,
            "gated": "manual" if repository.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "cardData": card_data(readme.content.decode())[0] if readme else None,
            "siblings": siblings,
        }
    )


def card_data(readme: str) -> tuple[dict[str, Any] | None, str | None]:
    """The YAML block at the head of a README, and what is wrong with it: one of the two is None."""
    lines = readme.splitlines()
    if not lines or lines[0] != "---" or "---" not in lines[1:]:
        return None, None
    block = "\n".join(lines[1 : lines.index("---", 1)])
    try:
        data = yaml.safe_load(block)
    except yaml.YAMLError as error:
        return None, f"invalid YAML: {error}"
    if not isinstance(data, dict):
        return None, f"the metadata is a {type(data).__name__}, not a mapping"
    return data, None


def refs(hub: HubState, call: Call) -> Answer:
    repository = hub.readable(call)

    def listed(kind: str, names: dict[str, str]) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in names.items()]

    branches, tags = listed("heads", repository.branches), listed("tags", repository.tags)
    return json_answer({"branches": branches, "converts": [], "tags": tags, "pullRequests": []})


def commits(hub: HubState, call: Call) -> Answer:
    """The history, newest first, in pages."""
    repository = hub.readable(call)
    history = list(repository.history(_commit(repository, call).oid))
    listed = [
        {
            "id": commit.oid,
            "title": commit.title,
            "message": commit.description,
            "date": commit.timestamp,
            "authors": [{"user": commit.author}],
        }
        for commit in history
    ]
    return _page(hub, call, listed, hub.settings.page_size)


def tree(hub: HubState, call: Call) -> Answer:
    """The entries of a folder, or of everything below it, sorted by path, in pages."""
    repository = hub.readable(call)
    commit = _commit(repository, call)
    root = call.parts.get("path", "").strip("/")
    if root and not any(path.startswith(f"{root}/") for path in commit.files):
        raise HubError(404, f"{root} does not exist on {call.parts['revision']}", "EntryNotFound")
    below = [path for path in commit.files if not root or path.startswith(f"{root}/")]
    folders = {str(parent) for path in below for parent in PurePosixPath(path).parents} - {".", root}
    folders = {folder for folder in folders if not root or folder.startswith(f"{root}/")}
    wanted = [*below, *folders]
    if not call.flag("recursive"):
        depth = root.count("/") + 1 if root else 0
        wanted = [path for path in wanted if path.count("/") == depth]
    expand = call.flag("expand")
    size = min(hub.settings.page_size, EXPANDED_PAGE) if expand else hub.settings.page_size
    page, links = _slice(hub, call, sorted(wanted), size)
    return json_answer([_entry(repository, commit, path, expand) for path in page], headers=links)


def paths_info(hub: HubState, call: Call) -> Answer:
    """The entries of the paths in the form; those that don't exist are left out."""
    repository = hub.readable(call)
    commit = _commit(repository, call)
    form = call.form()
    paths = [path.strip("/") for path in form.get("paths", [])]
    if len(paths) > PATHS_IN_A_REQUEST:
        raise HubError(413, f"too many parameters: {len(paths)} paths, at most {PATHS_IN_A_REQUEST}")
    expand = form.get("expand", [""])[-1].lower() in ("1", "true")
    present = [path for path in paths if contents_below(commit.files, path)]
    return json_answer([_entry(repository, commit, path, expand) for path in present])


def resolve(hub: HubState, call: Call) -> Answer:
    """A file (GET) or what there is to know about it (HEAD); large files redirect to the storage."""
    repository = hub.readable(call)
    if repository.gated:
        raise HubError(403 if call.authorized else 401, f"Access to {repository.repo_id} is restricted", "GatedRepo")
    commit = _commit(repository, call)
    at_commit = {"X-Repo-Commit": commit.oid}
    path = call.parts["path"]
    blob = commit.files.get(path)
    if blob is None:
        raise HubError(404, "Entry not found", "EntryNotFound", at_commit)
    headers = {**at_commit, "ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
    if blob.lfs:
        headers |= {"X-Linked-ETag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
        if hub.settings.redirects:
            address = hub.sign(repository, blob.sha256, blob.size, "get", f"&filename={quote(path)}")
            return Answer(302, {**headers, "Location": address}, b"Found. Redirecting to the storage.")
    return ranged_answer(blob.content, call.headers.get("range"), headers)


def _commit(repository: Repository, call: Call) -> Commit:
    return repository.resolve(call.parts.get("revision") or "main", call.commits_behind)


def _entry(repository: Repository, commit: Commit, path: str, expand: bool) -> dict[str, Any]:
    """One line of a listing: a file with its sizes and hashes, or a folder."""
    blob = commit.files.get(path)
    entry = _file_entry(path, blob) if blob else _folder_entry(path, contents_below(commit.files, path))
    if expand:
        last = repository.last_change(commit, path)
        entry["lastCommit"] = {"id": last.oid, "title": last.title, "date": last.timestamp}
    return entry


def _file_entry(path: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": blob.git_oid, "size": blob.size, "path": path}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}
    return entry


def _folder_entry(path: str, contents: dict[str, str]) -> dict[str, Any]:
    return {"type": "directory", "oid": git_hash(repr(sorted(contents.items())).encode()), "size": 0, "path": path}


def _page(hub: HubState, call: Call, entries: Sequence[Any], size: int) -> Answer:
    page, links = _slice(hub, call, entries, size)
    return json_answer(list(page), headers=links)


def _slice(hub: HubState, call: Call, entries: Sequence[Any], size: int) -> tuple[Sequence[Any], dict[str, str]]:
    """The page a call asks for, and the Link header to the next one where there is more."""
    start = int(call.query.get("cursor", ["0"])[-1])
    if start + size >= len(entries):
        return entries[start:], {}
    query = urlencode({**call.query, "cursor": [str(start + size)]}, doseq=True)
    path = call.path.split("?")[0]
    return entries[start : start + size], {"Link": f'<{hub.endpoint}{path}?{query}>; rel="next"'}
