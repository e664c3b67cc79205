"""Leave the reason for not serving where the kubelet picks it up and the operator reads it."""

import logging
import os
from pathlib import Path

from canarium_api.runtime_config import TERMINATION_LOG, LoadFailure

_log = logging.getLogger(__name__)
_MAX_BYTES = 4096
"""The kubelet reads no more."""
VARIABLE = "CANARIUM_TERMINATION_LOG"
"""Environment variable that replaces the path, for running outside of a pod."""


def write(failure: LoadFailure) -> None:
    """Leave the reason where the kubelet reads it; cut to what it reads."""
    path = Path(os.environ.get(VARIABLE, TERMINATION_LOG))
    room = _MAX_BYTES // 4 - 200  # JSON may write one character as several bytes
    short = failure.model_copy(update={"message": failure.message[:room]})
    try:
        path.write_text(short.model_dump_json())
    except OSError as error:
        _log.warning(
            "the termination log cannot be written", extra={"path": str(path), "cause": str(error)}
        )
