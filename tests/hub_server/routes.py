"""Which path leads to which endpoint. The paths are the ones that huggingface_hub builds."""

import re
from collections.abc import Callable
from urllib.parse import unquote

from . import reading, storage, writing
from .messages import Answer, Call, HubError
from .state import HubState

Endpoint = Callable[[HubState, Call], Answer]
Route = tuple[str, re.Pattern[str], Endpoint]

REPO = r"(?P<repo>[^/]+/[^/]+?)"
REVISION = r"(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+)"
API = rf"/api/(?P<kind>models|datasets)/{REPO}"
WEB = rf"/(?P<kind>datasets/)?{REPO}"
OBJECT = rf"{REPO}/(?P<oid>[0-9a-f]{{64}})"

ROUTES: list[Route] = [
    (method, re.compile(pattern), endpoint)
    for method, pattern, endpoint in (
        ("GET", r"/api/whoami-v2", reading.whoami),
        ("POST", r"/api/repos/create", writing.create_repository),
        ("DELETE", r"/api/repos/delete", writing.delete_repository),
        ("POST", r"/api/validate-yaml", writing.validate_yaml),
        ("GET", API, reading.repository_info),
        ("GET", rf"{API}/revision/{REVISION}", reading.repository_info),
        ("GET", rf"{API}/refs", reading.refs),
        ("GET", rf"{API}/commits/{REVISION}", reading.commits),
        ("GET", rf"{API}/tree/{REVISION}(?:/(?P<path>.*))?", reading.tree),
        ("POST", rf"{API}/paths-info/{REVISION}", reading.paths_info),
        ("POST", rf"{API}/branch/(?P<name>[^/]+)", writing.create_branch),
        ("POST", rf"{API}/tag/{REVISION}", writing.create_tag),
        ("POST", rf"{API}/preupload/{REVISION}", writing.preupload),
        ("POST", rf"{API}/commit/{REVISION}", writing.commit),
        ("POST", rf"{WEB}\.git/info/lfs/objects/batch", writing.lfs_batch),
        ("POST", rf"{WEB}\.git/info/lfs/verify", writing.lfs_verify),
        ("HEAD", rf"{WEB}/resolve/{REVISION}/(?P<path>.+)", reading.resolve),
        ("GET", rf"{WEB}/resolve/{REVISION}/(?P<path>.+)", reading.resolve),
    )
]

STORAGE_ROUTES: list[Route] = [
    (method, re.compile(pattern), endpoint)
    for method, pattern, endpoint in (
        ("GET", rf"/storage/get/{OBJECT}", storage.get_object),
        ("HEAD", rf"/storage/get/{OBJECT}", storage.get_object),
        ("PUT", rf"/storage/put/{OBJECT}", storage.put_object),
        ("PUT", rf"/storage/part/{OBJECT}", storage.put_part),
        ("POST", rf"/storage/complete/{OBJECT}", storage.complete_parts),
    )
]


def answer_call(hub: HubState, call: Call, routes: list[Route]) -> Answer:
    """Run the endpoint of a call, under the lock of the state; 404 where no route fits."""
    path = call.path.split("?")[0]
    try:
        for method, pattern, endpoint in routes:
            match = pattern.fullmatch(path)
            if match is not None and method == call.method:
                call.parts = {name: unquote(text) for name, text in match.groupdict().items() if text is not None}
                with hub.lock:
                    return endpoint(hub, call)
        raise HubError(404, f"Sorry, there is no {call.method} {path} here")
    except HubError as refusal:
        return refusal.answer()
