"""The beginning and the end of a process that is told everything by its environment: comparer and router."""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop
from pydantic import ValidationError

from canarium_api.router_config import RouterConfig
from canarium_api.shadow_config import ShadowConfig
from canarium_runtime import logs

_log = logging.getLogger(__name__)
Settings = TypeVar("Settings", RouterConfig, ShadowConfig)


def run(settings: type[Settings], serve: Callable[[Settings], Coroutine[Any, Any, int]]) -> int:
    """Read the settings and serve; the exit code: that of `serve`, or 2 where the settings are wrong.

    Args:
        settings: read from `os.environ`; its `log_level` is set before anything is served.
        serve: runs until the process is told to stop.
    """
    logs.configure("info")
    try:
        config = settings.from_env(os.environ)
    except ValidationError as error:
        _log.error("settings are wrong: %s", settings.describe(error))
        return 2
    logs.configure(config.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(config))
