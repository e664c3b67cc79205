"""What is off is not imported: images without its libraries work, and cold starts stay short."""

import subprocess
import sys

OPTIONAL = ("jwt", "redis", "confluent_kafka", "httpx")
PROGRAM = """
import asyncio, sys
from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.audit.log import AuditLog
from canarium_runtime.security import Credentials, Guard

async def main():
    config = RuntimeConfig(model_uri="file:///m", rate_limit=5, audit_sink="Stdout")
    guard, log = Guard(config), AuditLog(config)
    await guard.start()
    await log.start()
    guard.admit(Credentials(address="10.0.0.1"))
    await log.close()
    await guard.close()

asyncio.run(main())
print("imported:", *(set(sys.argv[1:]) & set(sys.modules)))
"""


def test_only_what_is_on_is_imported() -> None:
    """World: local limits and records to standard output."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *OPTIONAL], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "imported:"


def test_verifying_a_log_needs_no_library() -> None:
    """An auditor needs Python and the package, and neither numpy nor FastAPI."""
    program = "import sys, canarium_runtime.audit.__main__; print(*{'numpy', 'fastapi', 'pydantic'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
