"""What an outside system says of a rollout."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class GateAnswer:
    """What an outside system said, or why it said nothing."""

    approved: bool = False
    abort: bool = False
    message: str = ""


def parse_answer(status: int, body: Any) -> GateAnswer:
    """Read an answer.

    Args:
        status: of HTTP.
        body: the JSON document, or None where there is none.
    """
    if status != 200 or not isinstance(body, dict):
        return GateAnswer(message=f"answered {status} without a decision")
    message = str(body.get("message") or "")[:300]
    if body.get("abort") is True:
        return GateAnswer(abort=True, message=message or "asks for the canary to be taken back")
    if body.get("approved") is True:
        return GateAnswer(approved=True, message=message)
    if body.get("approved") is False:
        return GateAnswer(message=message or "has not approved")
    return GateAnswer(message='answered 200 without "approved": true or false')
