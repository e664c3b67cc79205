"""The comparer: one round after another of fetching, pairing, comparing and counting.

It only ever asks. Whether it is slow, stopped or was never there makes no difference to the pods, which keep a bounded
record for those who fetch it. Limitation: one comparer for a shadow; a second one would count everything twice.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from canarium_api.metric_names import ShadowSide
from canarium_api.shadow_config import ShadowConfig
from canarium_runtime.shadow.comparison import Tolerance, compare
from canarium_runtime.shadow.pairing import Pairing
from canarium_runtime.shadow.puller import Pulled, Puller, PullError
from canarium_runtime.shadow.report import Report
from canarium_runtime.shadow.targets import TargetsError, read_targets, resolve

_log = logging.getLogger(__name__)

_YIELD_EVERY = 64
"""Answers between two looks at /metrics and /health."""
_SHARE_SLACK = 0.2
"""The share changes only by more than this part of itself: each change leaves some answers without their pair."""
_STALE_SECONDS = 60.0
"""Without a finished round for so long, something hangs."""


class Comparer:
    """See the module.

    Args:
        config: settings.
        client: HTTP client; the caller closes it.
    """

    def __init__(self, config: ShadowConfig, client: httpx.AsyncClient) -> None:
        self.report = Report(deployment=config.deployment, revision=config.revision)
        self.problem = "no round was finished yet"
        """Why nothing is compared, for people; empty: all is well."""
        self._config = config
        self._tolerance = Tolerance(
            absolute=config.absolute_tolerance, relative=config.relative_tolerance
        )
        self._pairing = Pairing(config.window.total_seconds())
        self.report.unpaired = self._pairing.unpaired
        self._puller = Puller(client, config.token_file)
        self._finished_at = time.monotonic()
        self._began_at: float | None = None

    @property
    def alive(self) -> bool:
        """Whether rounds are still being finished."""
        return time.monotonic() - self._finished_at < _STALE_SECONDS

    @property
    def ready(self) -> bool:
        """Whether the latest round reached pods of both sides."""
        return not self.problem

    async def run(self) -> None:
        """Go round until cancelled."""
        while True:
            problem = ""
            try:
                problem = await self.round()
            except TargetsError as error:
                problem = str(error)
            if problem != self.problem:
                _log.info("state changed", extra={"problem": problem})
            self.problem = problem
            self._finished_at = time.monotonic()
            await asyncio.sleep(self._config.pull_interval.total_seconds())

    async def round(self) -> str:
        """Fetch from all pods, and compare what pairs; gives what is wrong, or an empty string.

        Raises:
            TargetsError: nobody knows where the pods are.
        """
        targets = await resolve(read_targets(Path(self._config.targets_file)))
        self._puller.keep({url for _, url in targets})
        began_at = time.monotonic()
        results = await asyncio.gather(
            *(self._puller.pull(url, self.report.sample_share) for _, url in targets),
            return_exceptions=True,
        )
        reached = dict.fromkeys(ShadowSide, 0)
        offered = dict.fromkeys(ShadowSide, 0)
        failures: dict[ShadowSide, str] = {}
        for (side, _), result in zip(targets, results, strict=True):
            if isinstance(result, PullError):
                self.report.pull_failures[side] += 1
                failures.setdefault(side, str(result))
            elif isinstance(result, BaseException):
                raise result
            else:
                reached[side] += 1
                offered[side] += result.offered
                await self._take(side, result)
        self._pairing.expire(time.monotonic())
        self.report.targets.update(reached)
        if self._began_at is not None:
            rate = max(offered.values()) / max(began_at - self._began_at, 1e-3)
            self.report.sample_share = next_share(
                self.report.sample_share, rate, self._config.answers_per_second
            )
        self._began_at = began_at
        return _problem(reached, failures)

    async def _take(self, side: ShadowSide, pulled: Pulled) -> None:
        for reason, count in pulled.dropped.items():
            self.report.dropped[side, reason] += count
        for number, answer in enumerate(pulled.answers):
            if number % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
            self.report.answers[side] += 1
            pair = self._pairing.offer(side, answer, time.monotonic())
            if pair is not None:
                self.report.add(pair, compare(pair, self._tolerance))


def next_share(share: float, offered_per_second: float, wanted_per_second: float) -> float:
    """Choose the share of the requests to record, so that about as many as wanted are compared.

    Example: 1000 requests a second and 200 wanted give 0.2, and 0.2 stays while the rate is within 20 % of that.
    """
    ideal = min(1.0, wanted_per_second / offered_per_second) if offered_per_second > 0 else 1.0
    return share if abs(ideal - share) <= _SHARE_SLACK * share and ideal < 1.0 else ideal


def _problem(reached: Mapping[ShadowSide, int], failures: Mapping[ShadowSide, str]) -> str:
    unknown = "the targets file names none that can be resolved"
    return "; ".join(
        f"no pods of {side.value} were reached: {failures.get(side, unknown)}"
        for side, count in reached.items()
        if not count
    )
