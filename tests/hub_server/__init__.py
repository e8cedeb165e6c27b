"""A Hub on the loopback address that the real huggingface_hub and datasets work against, with faults on demand.

server      HubServer, which a test opens; hub_environment for its subprocesses
faults      Fault: a status, a reset, a stall, a damaged body, for the requests it matches
handler     sockets and the log of requests
routes      which path leads to which endpoint
reading     endpoints that read          writing   endpoints that write
storage     signed addresses for large objects, on an origin of its own
ranges      the Range header             messages  a call, an answer, a refusal
state       settings, repositories, signed addresses
repository  blobs, commits, branches
"""

from .faults import Fault
from .handler import Request
from .repository import Blob, Commit
from .server import HubServer, hub_environment
from .state import Settings

__all__ = ["Blob", "Commit", "Fault", "HubServer", "Request", "Settings", "hub_environment"]
