"""The shell around webhooks: asks gates, and posts notifications. No decision is taken here.

A notification that cannot be posted waits, in memory and with a bound: news must not keep traffic from moving. Each is
posted at least once while this process lives; a new operator may repeat that of the latest transition, if it is
recent.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from canarium_api.rollout import WebhookGate
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.notifications import Message
from canarium_operator.core.rollout.answers import GateAnswer, parse_answer
from canarium_operator.errors import ClusterError, WebhookError
from canarium_operator.ports import Cluster, Webhooks

log = logging.getLogger(__name__)

MAX_WAITING: Final = 100
"""Notifications that wait, over all objects; the oldest are given up first."""
MAX_TRIES: Final = 5
POST_TIMEOUT: Final = 10.0
"""Seconds."""


class Messenger:
    """Talks to the outside systems that specs name."""

    def __init__(self, cluster: Cluster, webhooks: Webhooks) -> None:
        self._cluster = cluster
        self._webhooks = webhooks
        self._waiting: deque[tuple[ObjectRef, Message, int]] = deque(maxlen=MAX_WAITING)
        self._told: dict[tuple[str, str], int] = {}

    async def ask(
        self, ref: ObjectRef, gates: Sequence[WebhookGate], body: Mapping[str, Any]
    ) -> dict[str, GateAnswer]:
        """Ask gates, all at the same time; what goes wrong is an answer too, and no approval."""
        answers = await asyncio.gather(*(self._ask_one(ref, gate, body) for gate in gates))
        return dict(zip([gate.name for gate in gates], answers, strict=True))

    async def _ask_one(
        self, ref: ObjectRef, gate: WebhookGate, body: Mapping[str, Any]
    ) -> GateAnswer:
        try:
            token = None
            if gate.secret is not None:
                token = (await self._secret(ref, gate.secret)).get("token")
                if token is None:
                    return GateAnswer(message=f"Secret {gate.secret} has no key 'token'")
            status, answer = await self._webhooks.post(
                gate.url, token, body, gate.timeout.total_seconds()
            )
        except (WebhookError, ClusterError) as error:
            return GateAnswer(message=str(error))
        return parse_answer(status, answer)

    def forget(self, ref: ObjectRef) -> None:
        """Drop what is known of an object that is gone."""
        self._told.pop((ref.namespace, ref.name), None)

    async def tell(self, ref: ObjectRef, messages: Sequence[Message]) -> bool:
        """Post notifications that have not been posted yet, and those that wait.

        Returns:
            Whether nothing waits any more.
        """
        key = (ref.namespace, ref.name)
        fresh = [m for m in messages if m.epoch > self._told.get(key, -1)]
        for message in fresh:
            self._waiting.append((ref, message, 0))
            self._told[key] = max(self._told.get(key, -1), message.epoch)
        for _ in range(len(self._waiting)):
            about, message, tries = self._waiting.popleft()
            if not await self._post(about, message) and tries + 1 < MAX_TRIES:
                self._waiting.append((about, message, tries + 1))
        return not self._waiting

    async def _post(self, ref: ObjectRef, message: Message) -> bool:
        name = message.receiver.name
        try:
            secret = await self._secret(ref, message.receiver.secret)
            if not secret.get("url"):
                log.warning("%s: notification %s: its Secret has no key 'url'", ref, name)
                return True  # no try could help
            status, _ = await self._webhooks.post(
                secret["url"], secret.get("token"), message.body, POST_TIMEOUT
            )
        except (WebhookError, ClusterError) as error:
            log.warning("%s: notification %s not posted yet: %s", ref, name, error)
            return False
        if status >= 400:
            log.warning("%s: notification %s was answered %d", ref, name, status)
        return status < 500

    async def _secret(self, ref: ObjectRef, name: str) -> Mapping[str, str]:
        found = await self._cluster.secret(ref.namespace, name)
        if found is None:
            msg = f"Secret {name} does not exist in namespace {ref.namespace}: create it"
            raise WebhookError(msg)
        return found
