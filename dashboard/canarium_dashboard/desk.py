"""What each page needs from the cluster, found with its own user's rights: the shell around `views`.

One `Desk` serves a whole dashboard. What pages ask for again and again (Events, rights, curves) is kept for a moment.
"""

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from kubernetes.aio.client import ApiClient

from canarium_api import GROUP
from canarium_api.status import ModelDeploymentStatus
from canarium_dashboard import guard
from canarium_dashboard.access import Access, Scope
from canarium_dashboard.commands import Answer, Asked, answer_of, refusal_told, value_of
from canarium_dashboard.errors import DashboardError, MissingError, UnreachableError
from canarium_dashboard.history import Key
from canarium_dashboard.prometheus import Prometheus
from canarium_dashboard.settings import ANSWER, HEARTBEAT, Settings, SignIn
from canarium_dashboard.views.detail import Detail, Known, detail_of
from canarium_dashboard.views.listing import Listing, list_of
from canarium_dashboard.views.weights import TrafficPoint, span_of
from canarium_dashboard.watching import Clock, User, Watcher, Watchers, status_of
from canarium_operator.core.naming import ObjectRef

_MAX_KEPT: Final = 512
"""Answers kept for a moment, of all users together."""
_LATE: Final = 2.0
"""Seconds that Events are kept right after a transition, whose own is written after the status; less than ECHO."""


@dataclass
class _Fact:
    """An answer that is kept for a moment."""

    value: Any
    until: float


@dataclass
class Desk:
    """A dashboard's rights, watches and answers."""

    api: ApiClient
    settings: Settings
    clock: Clock
    prometheus: Prometheus | None = None
    default_namespace: str = "default"
    """Where somebody begins who may not see all namespaces."""
    watchers: Watchers = field(init=False)

    def __post_init__(self) -> None:
        self.watchers = Watchers(self.clock)
        self._facts: OrderedDict[tuple[str, ...], _Fact] = OrderedDict()

    async def user(self, token: str) -> User:
        """Tell who a page is, by the token that it sends.

        Raises:
            SignedOutError: it is not the one that was told at the start, or the API server does not know it: whoever
                has none starts no watch.
        """
        if self.settings.sign_in is SignIn.KUBECONFIG:
            guard.check_secret(token, self.settings.secret)
            return self.owner
        identity = hashlib.sha256(token.encode()).hexdigest()
        user = User(identity=identity, access=Access(api=self.api, token=token))
        await self._name(user)
        return user

    @property
    def owner(self) -> User:
        """Whoever's kubeconfig it is."""
        return User(identity="owner", access=Access(api=self.api))

    async def begin(self) -> None:
        """Watch for the owner from the start, so that there is something to see when a page opens later."""
        if self.settings.sign_in is not SignIn.KUBECONFIG:
            return
        namespace = self.settings.namespace
        if namespace is None:
            with contextlib.suppress(UnreachableError):
                if not await self._may(self.owner, "list", None):
                    namespace = self.default_namespace
        self.watchers.get(self.owner, Scope(namespace=namespace), keep=True)

    # --- pages

    async def session(self, user: User) -> dict[str, Any]:
        """Tell a page whom it is for, and where it may begin."""
        name = await self._name(user)
        everywhere = await self._may(user, "list", None)
        chosen = self.settings.namespace
        namespace = chosen or ("" if everywhere else self.default_namespace)
        return {"user": name, "namespace": namespace, "everywhere": everywhere}

    def list_watcher(self, user: User, namespace: str) -> Watcher:
        """Give the watcher of a list."""
        return self.watchers.get(user, Scope(namespace=namespace or None))

    async def listing(self, watcher: Watcher) -> Listing:
        """Make a list.

        Raises:
            DashboardError: nothing was ever seen, and why.
        """
        await watcher.synced.wait()
        if watcher.problem is not None and not watcher.objects:
            raise watcher.problem
        return list_of(
            [
                (key, body["metadata"].get("generation"), watcher.statuses[key])
                for key, body in watcher.objects.items()
            ],
            self.clock(),
            truncated=watcher.truncated,
            problem=str(watcher.problem) if watcher.problem is not None else None,
        )

    async def detail(self, user: User, watcher: Watcher, key: Key) -> Detail:
        """Make the page of one.

        Raises:
            DashboardError: it is not there, or was never seen, and why.
        """
        await watcher.synced.wait()
        body = watcher.objects.get(key)
        if body is None:
            if watcher.problem is not None:
                raise watcher.problem
            msg = f"ModelDeployment {key[0]}/{key[1]} does not exist"
            raise MissingError(msg)
        status, now = watcher.statuses[key], self.clock()
        events, traffic, rights = await asyncio.gather(
            self._events(user, key, status),
            self._traffic(user, key, status, now),
            self._rights(user, key),
        )
        span = span_of(status)
        revision = span.revision if span is not None else ""
        return detail_of(
            Known(
                namespace=key[0],
                name=key[1],
                generation=body["metadata"].get("generation"),
                spec=body["spec"],
                status=status,
                now=now,
                weights=watcher.history.weights(key, revision),
                checks=watcher.history.checks(key, revision),
                events=events[0],
                traffic=traffic[0],
                may_act=rights[0],
                why_not=rights[1],
                notes=[note for note in (events[1], traffic[1]) if note],
                problem=str(watcher.problem) if watcher.problem is not None else None,
            )
        )

    # --- commands

    async def command(self, user: User, key: Key, asked: Asked) -> Answer:
        """Give a command, and wait for what comes of it.

        Raises:
            DashboardError: the API server refuses, or it does not fit.
        """
        value = value_of(asked, await self._name(user), self.clock())
        watcher = self.watchers.covering(user, *key)
        with watcher.listening() as changed:
            fresh = await user.access.read(*key)
            before = status_of(fresh).actions
            await user.access.annotate(*key, f"{GROUP}/{asked.verb}", value)
            try:
                async with asyncio.timeout(ANSWER.total_seconds()):
                    answer = await self._answered(watcher, changed, key, asked.verb, value, before)
            except TimeoutError:
                message = (
                    "the operator has not answered yet: does it run? It will act on the command when it does; to take "
                    f"that back: kubectl annotate mdep {key[1]} -n {key[0]} {GROUP}/{asked.verb}-"
                )
                return Answer(outcome="unanswered", message=message)
        if not answer.message:
            told = await user.access.events(*key)
            answer = replace(answer, message=refusal_told(told, asked.verb))
        return answer

    async def _answered(
        self,
        watcher: Watcher,
        changed: asyncio.Event,
        key: Key,
        verb: str,
        value: str,
        before: list[Any],
    ) -> Answer:
        while True:
            changed.clear()
            status = watcher.statuses.get(key)
            answer = answer_of(verb, value, before, status) if status is not None else None
            if answer is not None:
                return answer
            await changed.wait()

    # --- what is asked again and again

    async def _name(self, user: User) -> str:
        async def ask() -> str:
            return await user.access.user()

        try:
            found: str = await self._kept((user.identity, "name"), ask)
        except MissingError:
            found = ""  # an API server before 1.28 does not tell
        return found or "somebody"

    async def _may(
        self, user: User, verb: str, namespace: str | None, name: str | None = None
    ) -> bool:
        async def ask() -> bool:
            return await user.access.may(verb, namespace, name)

        key = (user.identity, "may", verb, namespace or "", name or "")
        found: bool = await self._kept(key, ask)
        return found

    async def _rights(self, user: User, key: Key) -> tuple[bool, str]:
        """Tell whether the user may give commands, and if not, why."""
        try:
            may = await self._may(user, "patch", *key)
        except DashboardError as error:
            return False, f"your rights are not known: {error}"
        if may:
            return True, ""
        name = await self._name(user)
        return False, (
            f"You may look, not act: {name} lacks the verb patch on modeldeployments.{GROUP} in {key[0]}."
        )

    async def _events(
        self, user: User, key: Key, status: ModelDeploymentStatus
    ) -> tuple[list[Any], str]:
        """List Events; each transition makes them be asked for anew."""

        async def ask() -> list[Any]:
            return await user.access.events(*key)

        last = status.last_transition
        recent = last is not None and (self.clock() - last.at).total_seconds() < 2 * _LATE
        lifetime = _LATE if recent else HEARTBEAT.total_seconds()
        try:
            where = (user.identity, "events", *key, str(status.epoch))
            return await self._kept(where, ask, lifetime), ""
        except DashboardError as error:
            return [], f"Events cannot be shown: {error}"

    async def _traffic(
        self, user: User, key: Key, status: ModelDeploymentStatus, now: datetime
    ) -> tuple[list[TrafficPoint], str]:
        """Ask Prometheus about the rollout under way, or the latest one."""
        span, stable = span_of(status), status.stable
        if self.prometheus is None or span is None or stable is None:
            return [], ""
        others = [e.revision for e in status.history if e.revision != span.revision]
        other = stable.revision if stable.revision != span.revision else (others or [""])[-1]
        if not other:
            return [], ""
        source, ref = self.prometheus, ObjectRef(namespace=key[0], name=key[1])

        async def ask() -> list[TrafficPoint]:
            return await source.traffic(ref, span.revision, other, span.start, span.end or now)

        try:
            where = (user.identity, "traffic", *key, span.revision)
            return await self._kept(where, ask), ""
        except DashboardError as error:
            return [], f"Traffic cannot be shown: {error}"

    async def _kept(
        self,
        key: tuple[str, ...],
        ask: Callable[[], Awaitable[Any]],
        lifetime: float = HEARTBEAT.total_seconds(),
    ) -> Any:
        """Give an answer that is fresh enough, or ask."""
        now = asyncio.get_running_loop().time()
        known = self._facts.get(key)
        if known is not None and now < known.until:
            return known.value
        value = await ask()
        self._facts[key] = _Fact(value=value, until=now + lifetime)
        self._facts.move_to_end(key)
        while len(self._facts) > _MAX_KEPT:
            self._facts.popitem(last=False)
        return value
