"""From the settings to the buckets: whose rate is limited, and where that is counted."""

import math
from typing import TYPE_CHECKING, Any

from canarium_api.security_config import SecuritySettings
from canarium_runtime.security.limits import Bucket, Buckets, Limit

if TYPE_CHECKING:
    from canarium_runtime.security.shared import SharedLimits


def limits_anyone(settings: SecuritySettings) -> bool:
    """Whether there are limits at all."""
    return settings.rate_limit is not None or bool(settings.rate_limit_clients)


def make_buckets(settings: SecuritySettings, shared: "SharedLimits | None") -> Buckets[Any] | None:
    """Make the buckets of all clients; None where nobody is limited.

    Args:
        settings: the limits.
        shared: where they are counted; None: in this server.
    """
    if not limits_anyone(settings):
        return None
    own = {
        name: Limit(rate=limit.rate, burst=limit.burst)
        for name, limit in settings.rate_limit_clients.items()
    }
    default = None
    if settings.rate_limit is not None:
        burst = settings.rate_limit_burst or max(1, math.ceil(settings.rate_limit))
        default = Limit(rate=settings.rate_limit, burst=burst)
    most = settings.rate_limit_max_clients
    if shared is None:
        return Buckets(default, own, most, lambda _, limit: Bucket(limit))
    return Buckets(default, own, most, shared.bucket)
