"""Answers that were given before: in this process, in Redis, in a database (docs/howto/cache-answers.md).

`make_cache` gives the `ResponseCache` of a server's settings, or None where nothing is to be cached. The libraries of
Redis and the databases are imported only where a level of theirs is on.
"""

from canarium_runtime.caching.cache import Outcome, ResponseCache
from canarium_runtime.caching.factory import make_cache
from canarium_runtime.caching.flights import ABANDONED, Abandoned, SingleFlight

__all__ = ["ABANDONED", "Abandoned", "Outcome", "ResponseCache", "SingleFlight", "make_cache"]
