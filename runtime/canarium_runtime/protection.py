"""What stands around the models of a server: who may ask and how often, and the record of what was answered.

Made from the settings; a part that they leave off is None, which is all that a request looks at.
"""

import asyncio

from canarium_api.audit_config import AuditSink
from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.audit.log import AuditLog
from canarium_runtime.metrics import Metrics
from canarium_runtime.security import Guard
from canarium_runtime.security.rates import limits_anyone


class Protection:
    """See the module.

    Args:
        config: settings.
        metrics: where refusals and records are counted.
        most_requests: most requests under way at a time.

    Raises:
        LoadError: the certificate cannot be used.
    """

    def __init__(self, config: RuntimeConfig, metrics: Metrics, most_requests: int) -> None:
        audits = config.audit_sink is not AuditSink.NONE
        self.audit = AuditLog(config, metrics.audit, headroom=most_requests) if audits else None
        # A record names its client, if only by the address.
        guards = config.authenticates or limits_anyone(config) or audits
        self.guard = Guard(config, metrics.guard, deployment=config.deployment) if guards else None
        self.tls = None
        if config.tls_certificate_file is not None:
            from canarium_runtime.security.tls import ServerTls

            self.tls = ServerTls(config)
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read keys, open the audit log, and begin to look after both.

        Raises:
            LoadError: one of them cannot be used.
        """
        if self.guard is not None:
            await self.guard.start()
        if self.audit is not None:
            await self.audit.start()
        if self.tls is not None:
            self._watching = asyncio.create_task(self.tls.run())

    async def close(self) -> None:
        """Write what is still to be recorded, and end what runs in the background. After the last answer."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self.guard is not None:
            await self.guard.close()
        if self.audit is not None:
            await self.audit.close()

    def problems(self) -> dict[str, str]:
        """What is wrong, by part: none of it stops the server."""
        found = {} if self.guard is None else dict(self.guard.problems())
        if self.audit is not None and self.audit.problem:
            found["audit"] = self.audit.problem
        if self.tls is not None and self.tls.watch.problem:
            found["tls"] = self.tls.watch.problem
        return found
