"""The endpoints that write: repositories, branches and tags, uploads, commits."""

import base64
import json
from typing import Any

from .messages import Answer, Call, HubError, json_answer, status_phrase
from .reading import card_data
from .repository import Blob, Repository, is_lfs
from .state import HubState
from .storage import upload_actions


def create_repository(hub: HubState, call: Call) -> Answer:
    """A new repository; 409 where there is one, with its address, which the client reads on `exist_ok`."""
    hub.require_token(call)
    wanted = call.json()
    repo_type, repo_id = _described_repository(hub, wanted)
    hub.require_namespace(repo_id)
    known = hub.repositories.get((repo_type, repo_id))
    if known is not None:
        message = f"You already created this {repo_type} repo: {repo_id}"
        return json_answer({"error": message, "url": hub.url(known)}, 409, {"X-Error-Message": message})
    private = wanted.get("visibility") == "private" or wanted.get("private") is True
    repository = hub.create(repo_id, repo_type, private)
    return json_answer({"url": hub.url(repository), "name": repo_id, "id": repo_id})


def delete_repository(hub: HubState, call: Call) -> Answer:
    hub.require_token(call)
    key = _described_repository(hub, call.json())
    hub.require_namespace(key[1])
    if hub.repositories.pop(key, None) is None:
        raise HubError(404, "Repository not found", "RepoNotFound")
    return Answer(200, {"Content-Type": "text/plain"}, b"OK")


def create_branch(hub: HubState, call: Call) -> Answer:
    repository = hub.writable(call)
    name = call.parts["name"]
    if name in repository.branches:
        raise HubError(409, f"Reference already exists: {name}")
    start = call.json().get("startingPoint", "main") if call.body else "main"
    repository.branches[name] = repository.resolve(start).oid
    return json_answer({"success": True})


def create_tag(hub: HubState, call: Call) -> Answer:
    repository = hub.writable(call)
    name = call.json()["tag"]
    if name in repository.tags:
        raise HubError(409, f"Tag reference exists already: {name}")
    repository.tags[name] = repository.resolve(call.parts["revision"]).oid
    return json_answer({"success": True})


def validate_yaml(hub: HubState, call: Call) -> Answer:
    """Judge the metadata of a README: errors with 400, a warning where there is none."""
    data, error = card_data(call.json()["content"])
    if error is not None:
        return json_answer({"errors": [{"message": error}], "warnings": []}, 400)
    warning = {"message": "empty or missing yaml metadata in repo card"}
    return json_answer({"errors": [], "warnings": [] if data else [warning]})


def preupload(hub: HubState, call: Call) -> Answer:
    """For each file: how it goes up, and the hash of what stands at its path now."""
    repository = hub.writable(call)
    commit = repository.resolve(call.parts["revision"])
    _refuse_pull_requests(call)
    answers = []
    for file in call.json()["files"]:
        path = file["path"]
        lfs = is_lfs(path, file["size"], base64.b64decode(file["sample"]))
        present = commit.files.get(path)
        oid = present.etag if present else None
        answers.append({"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, "oid": oid})
    return json_answer({"files": answers, "commitOid": commit.oid})


def lfs_batch(hub: HubState, call: Call) -> Answer:
    """Signed addresses for the objects that aren't stored yet; those that are get no actions."""
    repository = hub.writable(call)
    wanted = call.json()
    objects = []
    for item in wanted["objects"]:
        oid, size = item["oid"], item["size"]
        answer: dict[str, Any] = {"oid": oid, "size": size}
        if oid not in repository.objects:
            answer["actions"] = upload_actions(hub, repository, oid, size)
        objects.append(answer)
    several = any("header" in item.get("actions", {}).get("upload", {}) for item in objects)
    return json_answer({"transfer": "multipart" if several else "basic", "objects": objects})


def lfs_verify(hub: HubState, call: Call) -> Answer:
    repository = hub.writable(call)
    wanted = call.json()
    content = repository.objects.get(wanted["oid"])
    if content is None or len(content) != wanted["size"]:
        raise HubError(404, f"object {wanted['oid']} of {wanted['size']} bytes is not stored")
    return json_answer({"success": True})


def commit(hub: HubState, call: Call) -> Answer:
    """Apply the lines of an ndjson body in order, all or nothing.

    409 while another commit on the repository is under way, 412 where its parent isn't the head.
    """
    repository = hub.writable(call)
    _refuse_pull_requests(call)
    header, operations = _commit_lines(call.body)
    if repository.committing:
        raise HubError(409, status_phrase(409))
    repository.committing = True
    try:
        hub.wait(hub.settings.commit_seconds)
        branch = call.parts["revision"]
        files = dict(repository.head(branch, header.get("parentCommit")).files)
        for key, value in operations:
            _apply(repository, files, key, value)
        made = repository.commit(branch, header["summary"], header.get("description", ""), files)
    finally:
        repository.committing = False
    return json_answer(
        {
            "success": True,
            "commitOid": made.oid,
            "commitUrl": f"{hub.url(repository)}/commit/{made.oid}",
            "hookOutput": "",
            "pullRequestUrl": None,
        }
    )


def _described_repository(hub: HubState, wanted: dict[str, Any]) -> tuple[str, str]:
    namespace = wanted.get("organization") or hub.settings.user
    return wanted.get("type") or "model", f"{namespace}/{wanted['name']}"


def _refuse_pull_requests(call: Call) -> None:
    if call.flag("create_pr"):
        raise HubError(501, "pull requests are not served")


def _commit_lines(body: bytes) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    try:
        lines = [json.loads(line) for line in body.splitlines() if line]
        pairs = [(line["key"], line["value"]) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise HubError(400, f"not a commit in ndjson: {error!r}") from error
    if not pairs or pairs[0][0] != "header" or not pairs[0][1].get("summary"):
        raise HubError(400, "the first line of a commit must be a header with a summary")
    return pairs[0][1], pairs[1:]


def _apply(repository: Repository, files: dict[str, Blob], key: str, value: dict[str, Any]) -> None:
    """Carry out one line of a commit on the snapshot `files`."""
    path = value["path"]
    if key == "file":
        files[path] = Blob(base64.b64decode(value["content"]), lfs=False)
    elif key == "lfsFile":
        content = repository.objects.get(value["oid"])
        if content is None:
            raise HubError(400, f"an LFS pointer pointed to a file that does not exist: {path}")
        files[path] = Blob(content, lfs=True)
    elif key == "deletedFile":
        if files.pop(path, None) is None:
            raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
    elif key == "deletedFolder":
        folder = path.rstrip("/") + "/"
        doomed = [name for name in files if name.startswith(folder)]
        if not doomed:
            raise HubError(404, f"A folder with this name doesn't exist: {path}", "EntryNotFound")
        for name in doomed:
            del files[name]
    else:
        raise HubError(400, f"unknown operation {key!r} in a commit")
