"""The object storage behind the Hub: signed addresses on an origin of its own, which take no token."""

import hashlib
from math import ceil
from typing import Any

from .messages import Answer, Call, HubError, json_answer
from .ranges import ranged_answer
from .repository import Repository
from .state import HubState, Ticket


def get_object(hub: HubState, call: Call) -> Answer:
    ticket = _redeem(hub, call)
    content = ticket.repository.objects[ticket.oid]
    return ranged_answer(content, call.headers.get("range"), {"ETag": f'"{ticket.oid}"'})


def put_object(hub: HubState, call: Call) -> Answer:
    """Store an object; 400 where the bytes aren't those the address was signed for."""
    ticket = _redeem(hub, call)
    _store(ticket, call.body)
    return Answer(200, {"ETag": f'"{hashlib.md5(call.body).hexdigest()}"'})


def put_part(hub: HubState, call: Call) -> Answer:
    ticket = _redeem(hub, call)
    ticket.parts[int(call.query["part"][-1])] = call.body
    return Answer(200, {"ETag": f'"{hashlib.md5(call.body).hexdigest()}"'})


def complete_parts(hub: HubState, call: Call) -> Answer:
    """Join the parts in the order the completion names them."""
    ticket = _redeem(hub, call)
    numbers = [part["partNumber"] for part in call.json()["parts"]]
    missing = [number for number in numbers if number not in ticket.parts]
    if missing:
        raise HubError(400, f"InvalidPart: {missing} were never uploaded")
    _store(ticket, b"".join(ticket.parts[number] for number in numbers))
    return json_answer({"success": True})


def upload_actions(hub: HubState, repository: Repository, oid: str, size: int) -> dict[str, Any]:
    """Where the client is to send an object of `size` bytes, in one piece or in parts, and where to verify it."""
    part_bytes = hub.settings.multipart_bytes
    if part_bytes is None or size <= part_bytes:
        upload: dict[str, Any] = {"href": hub.sign(repository, oid, size, "put")}
    else:
        address = hub.sign(repository, oid, size, "complete")
        part = address.replace("/storage/complete/", "/storage/part/")
        count = ceil(size / part_bytes)
        header = {"chunk_size": str(part_bytes)} | {f"{n:05d}": f"{part}&part={n}" for n in range(1, count + 1)}
        upload = {"href": address, "header": header}
    return {"upload": upload, "verify": {"href": f"{hub.url(repository)}.git/info/lfs/verify"}}


def _redeem(hub: HubState, call: Call) -> Ticket:
    """A signed address and a token at once are refused, as object stores do: the token must stay with the Hub."""
    if "authorization" in call.headers:
        raise HubError(400, "Only one auth mechanism allowed")
    return hub.redeem(call)


def _store(ticket: Ticket, content: bytes) -> None:
    if len(content) != ticket.size or hashlib.sha256(content).hexdigest() != ticket.oid:
        raise HubError(400, f"BadDigest: {len(content)} bytes came which are not the {ticket.size} announced")
    ticket.repository.store(content)
