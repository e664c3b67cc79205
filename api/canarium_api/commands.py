"""How a command to a rollout is written: the value of the annotation `canarium.dev/VERB`.

The command line and the dashboard write it, the operator reads it; docs/reference/commands.md is its description.
"""

import re
from datetime import datetime
from typing import Final

_MAX_NAME: Final = 80
"""Characters of who acts; the operator reads 200 characters of an annotation in all."""


def signature(user: str) -> str:
    """Write a user's name as one word that the operator takes for a name: a letter first, and no spaces."""
    word = re.sub(r"[^\w.@:+/-]", "_", user, flags=re.ASCII)[:_MAX_NAME]
    return word if word[:1].isalpha() else f"user:{word}"


def command_value(
    signed: str, at: datetime, *, revision: str = "", step: int | None = None, note: str = ""
) -> str:
    """Write a command.

    Args:
        signed: who, by `signature`.
        at: when; makes each command another value.
        revision: start of the revision that it is for; empty: whatever is under way.
        step: the step that it is for; None: any.
        note: what they want to say about it, in one line.
    """
    value = f"{signed} {at:%Y-%m-%dT%H:%M:%S.%fZ}"
    value += f" revision={revision}" if revision else ""
    value += f" step={step}" if step is not None else ""
    return f"{value} -- {note}" if note else value
