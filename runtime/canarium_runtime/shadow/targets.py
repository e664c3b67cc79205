"""From the targets file to the addresses of pods.

The file is read again each round: the kubelet replaces a mounted ConfigMap's file in place. A name in it is resolved
each round too, to all its addresses, so that a headless Service needs no list at all.
"""

import asyncio
import socket
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError

from canarium_api.metric_names import ShadowSide
from canarium_api.shadow_config import Targets

MAX_TARGETS = 200
"""Pods of one side that are asked; more are left out."""


class TargetsError(Exception):
    """The file cannot be used; the message says why."""


def read_targets(path: Path) -> Targets:
    """Read the file.

    Raises:
        TargetsError: it is not there, or not what it should be.
    """
    try:
        return Targets.model_validate_json(path.read_bytes())
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise TargetsError(msg) from error
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        msg = f"{path}: {'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}"
        raise TargetsError(msg) from error


async def resolve(targets: Targets) -> list[tuple[ShadowSide, str]]:
    """Give the base URL of each pod. A name that does not resolve stands for no pods."""
    found: list[tuple[ShadowSide, str]] = []
    for side, urls in ((ShadowSide.STABLE, targets.stable), (ShadowSide.SHADOW, targets.shadow)):
        addresses = await asyncio.gather(*(_addresses(url) for url in urls))
        # Sorted, so that the order in which a name server answers decides nothing.
        unique = sorted({address for several in addresses for address in several})
        found += [(side, address) for address in unique[:MAX_TARGETS]]
    return found


async def _addresses(url: str) -> list[str]:
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    try:
        infos = await loop.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, ValueError):
        return []
    hosts = [str(address[0]) for *_, address in infos]
    return [f"http://[{h}]:{parts.port}" if ":" in h else f"http://{h}:{parts.port}" for h in hosts]
