"""What authentication, rate limits and the audit log cost a request, in microseconds of CPU, each by itself.

`PYTHONPATH=api:runtime python benchmarks/runtime/guard_and_audit.py`. Of many short runs the quickest counts, since on
a shared machine all others hold other work, too.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.audit.log import AuditLog, make_sink
from canarium_runtime.audit.records import model_fragment
from canarium_runtime.audit.writer import BLOCK_RECORDS, Writer
from canarium_runtime.security import Credentials, Guard
from canarium_runtime.security.keys import hash_of

KEY = b"cnr_" + b"k" * 43
BODY = (
    b'{"inputs":[{"name":"x","shape":[1,30],"datatype":"FP32","data":['
    + b",".join([b"0.123"] * 30)
    + b"]}]}"
)
ANSWER = (
    b'{"model_name":"fraud","model_version":"7","id":"b064f6024452-b","outputs":'
    b'[{"name":"y","datatype":"FP32","shape":[1],"data":[3.0]}]}'
)
MODEL = model_fragment(name="fraud", version="7", revision="fraud-5c9f", sha256="a" * 64)
RUNS = 400


def quickest(run: Callable[[], None], requests: int) -> float:
    """Microseconds of this thread for each request, in the quickest of the runs."""
    best = float("inf")
    for _ in range(RUNS):
        began = time.thread_time()
        run()
        best = min(best, time.thread_time() - began)
    return best / requests * 1e6


def show(name: str, microseconds: float) -> None:
    """Print one line."""
    print(f"{name:<58} {microseconds:6.2f}")


async def guards(folder: Path) -> None:
    """Measure `Credentials` and `Guard.admit`."""
    keys = folder / "keys"
    keys.write_text(f"bob: {hash_of(KEY)}\n")
    by_key = {"api_keys_path": str(keys)}
    limit = {"rate_limit": 1e6, "rate_limit_burst": 1_000_000}
    with_key = Credentials(b"", KEY, "10.0.0.7", "")
    without = Credentials(b"", b"", "10.0.0.7", "")

    def make() -> None:
        for _ in range(1000):
            Credentials(b"", KEY, "10.0.0.7", "")

    show("make Credentials", quickest(make, 1000))
    for name, settings, given in (
        ("admit: all off", {}, without),
        ("admit: API key", by_key, with_key),
        ("admit: API key and rate limit", {**by_key, **limit}, with_key),
        ("admit: rate limit by address", limit, without),
    ):
        guard = Guard(RuntimeConfig.model_validate({"model_uri": "file:///m", **settings}))
        await guard.start()

        def admit(guard: Guard = guard, given: Credentials = given) -> None:
            for _ in range(1000):
                guard.admit(given)

        show(name, quickest(admit, 1000))
        await guard.close()


def audit(folder: Path, outputs: str) -> None:
    """Measure the loop's side of the audit log, and the writer's."""
    settings = RuntimeConfig.model_validate(
        {
            "model_uri": "file:///m",
            "audit_sink": "File",
            "audit_file": str(folder / f"{outputs}.jsonl"),
            "audit_outputs": outputs,
        }
    )
    log, sink = AuditLog(settings), make_sink(settings)
    writer = Writer(log, settings, sink, b"", sink.open())
    record_best = write_best = float("inf")
    for _ in range(RUNS):
        began = time.thread_time()
        for _ in range(BLOCK_RECORDS):
            log.record("key:bob", "b064f6024452-b", "success", MODEL, BODY, ANSWER, 0.0012)
        between = time.thread_time()
        writer._write_some()
        record_best = min(record_best, between - began)
        write_best = min(write_best, time.thread_time() - between)
    sink.close()
    show(f"record, on the event loop ({outputs})", record_best / BLOCK_RECORDS * 1e6)
    show(
        f"format, hash, seal and write, in the thread ({outputs})", write_best / BLOCK_RECORDS * 1e6
    )


def main() -> None:
    """Measure all of it."""
    print(f"{'':<58} µs of CPU a request")
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(guards(Path(name)))
        for outputs in ("Whole", "Hash", "None"):
            audit(Path(name), outputs)


if __name__ == "__main__":
    main()
