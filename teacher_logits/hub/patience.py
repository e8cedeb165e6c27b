"""Bounds for how long the Hub's client waits by itself, so that whoever called it keeps the say."""

from typing import Any

from huggingface_hub import get_session
from huggingface_hub.utils import hf_raise_for_status

from teacher_logits.hub.retries import asked_wait

SILENCE_SECONDS = 120.0
"""Without a byte for so long, a connection counts as broken. Large commits take the Hub a minute."""
_CLIENTS_LONGEST_WAIT = 10.0
_ASKING = (429, 503)


def bound_patience() -> None:
    """Have the client give up connections that fell silent, and refusals that ask for a long wait.

    Left to itself it waits for ever for the first, and for as long as it is told after the second. This holds for all
    that the process asks of the Hub from now on.
    """
    session = get_session()
    if session.timeout.read is None:
        session.timeout = SILENCE_SECONDS
    if _hand_over not in session.event_hooks["response"]:
        session.event_hooks["response"].append(_hand_over)


def _hand_over(response: Any) -> None:
    """Raise the client's error for a refusal before the client waits for what it asks."""
    if response.status_code in _ASKING and asked_wait(response.headers) > _CLIENTS_LONGEST_WAIT:
        response.read()
        hf_raise_for_status(response)
