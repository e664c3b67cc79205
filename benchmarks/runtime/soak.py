"""`python -m benchmarks.runtime.soak`: idle connections and mixed load with faults; every answer is checked.

Faults: clients that vanish in their body or while they wait, slow senders, the whole server stopped for some hundred
milliseconds (SIGSTOP), and Redis killed and started again, when the server has a cache in Redis and `redis-server` is
installed. Prints one row of Markdown; exit code 1 when an answer was lost, doubled, swapped or of a wrong status, or
when memory grew.
"""

import argparse
import asyncio
import json
import resource
import shutil
import statistics
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import measuring, soak_clients
from .contenders import DEFAULT, VARIANTS
from .environments import REPOSITORY, Environments
from .interpreters import choose
from .progress import say
from .report import table
from .serving import NotRunError, Running, Site, free_port
from .soak_clients import Connection, FaultError, Questions, Tally

CLIENTS = (
    ("steady", soak_clients.steady, 16),
    ("pipelining", soak_clients.pipelining, 2),
    ("slow", soak_clients.slow, 4),
    ("leaving in the body", soak_clients.leave_in_body, 1),
    ("leaving while waiting", soak_clients.leave_waiting, 2),
)
STALL_EVERY_SECONDS, STALL_SECONDS = 7.0, 0.3
REDIS_EVERY_SECONDS, REDIS_DOWN_SECONDS = 20.0, 5.0
SAMPLE_SECONDS = 1.0
MOST_GROWTH_MB = 4.0
MOST_GROWTH_SHARE = 0.03
"""Memory may grow by that between the second and the last fifth of the time, and by no more."""
REDIS_SETTING = "CANARIUM_CACHE_REDIS_URL"


@dataclass
class Faults:
    """What was done to the server."""

    stalls: int = 0
    redis_kills: int = 0
    redis_keys: int = 0
    """Most that Redis held when it was killed; 0: the server does not use it."""
    memory_mb: list[float] = field(default_factory=list)


def growth_mb(samples: list[float]) -> float:
    """From the second to the last fifth of the time, in medians; the first fifth fills caches and pools."""
    fifth = max(1, len(samples) // 5)
    return statistics.median(samples[-fifth:]) - statistics.median(samples[fifth : 2 * fifth])


def is_flat(samples: list[float]) -> bool:
    """Tell whether memory stays where it was."""
    allowed = max(MOST_GROWTH_MB, MOST_GROWTH_SHARE * statistics.median(samples))
    return growth_mb(samples) <= allowed


async def soak(
    running: Running, idle: int, seconds: float, redis_port: int | None, binary: bool
) -> tuple[Tally, Faults]:
    """Run all of it."""
    tally, faults, ended = Tally(), Faults(), asyncio.Event()
    resting = [await Connection.open(running.port) for _ in range(idle)]
    say(f"{idle} idle connections are open")
    numbers = iter(range(1000))
    clients = [
        asyncio.create_task(
            soak_clients.client(
                f"{name}-{n}", turn, running.port, Questions(next(numbers), binary), tally, ended
            )
        )
        for name, turn, how_many in CLIENTS
        for n in range(how_many)
    ]
    background = [
        asyncio.create_task(_stall(running, faults)),
        asyncio.create_task(_watch(running, tally, faults, seconds)),
    ]
    if redis_port is not None:
        background.append(asyncio.create_task(_redis(redis_port, faults)))
    await asyncio.sleep(seconds)
    for task in background[:1]:
        task.cancel()
    running.tree.go_on()
    ended.set()
    await asyncio.gather(*clients)
    await _ask_idle(resting, running.port, tally, binary)
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    return tally, faults


async def _ask_idle(resting: list[Connection], port: int, tally: Tally, binary: bool) -> None:
    """Ask once on each connection that was idle all the time; one that was closed is no fault."""
    questions = Questions(999, binary)
    for connection in resting:
        question = questions.next()
        try:
            if connection.reader.at_eof():
                tally.right["idle, closed by the server"] += 1
                continue
            await connection.send(question.data)
            await connection.expect(question)
            tally.right["idle"] += 1
        except (FaultError, OSError) as error:
            fault = error if isinstance(error, FaultError) else FaultError("lost", str(error))
            tally.blame("idle", fault)
        finally:
            connection.close()


async def _stall(running: Running, faults: Faults) -> None:
    while True:
        await asyncio.sleep(STALL_EVERY_SECONDS)
        running.hold()
        try:
            await asyncio.sleep(STALL_SECONDS)
        finally:
            running.tree.go_on()
        faults.stalls += 1


async def _redis(port: int, faults: Faults) -> None:
    """Kill Redis and start it again, over and over."""
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process: asyncio.subprocess.Process | None = None
    try:
        while True:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
            )
            await asyncio.sleep(REDIS_EVERY_SECONDS - REDIS_DOWN_SECONDS)
            faults.redis_keys = max(faults.redis_keys, await _redis_keys(port))
            process.kill()
            await process.wait()
            faults.redis_kills += 1
            await asyncio.sleep(REDIS_DOWN_SECONDS)
    finally:
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _redis_keys(port: int) -> int:
    """Ask Redis how many keys it holds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"DBSIZE\r\n")
    answer = await reader.readline()
    writer.close()
    return int(answer.removeprefix(b":"))


async def _watch(running: Running, tally: Tally, faults: Faults, seconds: float) -> None:
    began, told = time.monotonic(), 0
    while True:
        faults.memory_mb.append(running.tree.memory_mb())
        elapsed = time.monotonic() - began
        if elapsed >= told * 30:
            told += 1
            say(
                f"{elapsed:.0f} of {seconds:.0f} s: {tally.right.total()} right answers, {dict(tally.faults)} faults, "
                f"{faults.memory_mb[-1]:.0f} MB"
            )
        await asyncio.sleep(SAMPLE_SECONDS)


def row(tally: Tally, faults: Faults, idle: int, seconds: float, without: str) -> str:
    """Write the result as a table of one row; `without` says why Redis was left out."""
    if not without and not faults.redis_keys:
        without = f"not run: killed {faults.redis_kills} times, but the server kept nothing in it"
    redis = without or f"{faults.redis_kills} (it held up to {faults.redis_keys} answers)"
    left = tally.right.pop("left", 0)
    head = [
        "minutes",
        "idle connections",
        "right answers",
        "of them",
        "clients that left",
        "stalls",
    ]
    head += ["Redis killed", "memory, MB", "growth, MB", "faults"]
    parts = ", ".join(f"{name} {number}" for name, number in sorted(tally.right.items()) if number)
    samples = faults.memory_mb
    cells = [f"{seconds / 60:.1f}", str(idle), str(tally.right.total()), parts, str(left)]
    cells += [str(faults.stalls), redis]
    cells += [f"{min(samples):.0f} to {max(samples):.0f}", f"{growth_mb(samples):+.1f}"]
    cells += [", ".join(f"{kind}: {n}" for kind, n in tally.faults.items()) or "none"]
    return table(head, [cells])


def _cache(site: Site) -> tuple[dict[str, str], int | None, str]:
    """Settings for a cache in Redis, its port, and why there is none."""
    if REDIS_SETTING not in site.known_settings:
        return {}, None, f"not run: this runtime has no setting {REDIS_SETTING}"
    if shutil.which("redis-server") is None:
        return {}, None, "not run: redis-server is not installed"
    port = free_port()
    return {REDIS_SETTING: f"redis://127.0.0.1:{port}/0"}, port, ""


def _reads_binary(site: Site) -> bool:
    """Tell whether the server reads binary tensors."""
    contender = next(c for c in VARIANTS if c.body == "v2-binary")
    try:
        Running(contender, "S", site).stop()
    except NotRunError:
        return False
    return True


def main() -> int:
    """Run and report; 1 when something is not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtime.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--idle", type=int, default=1000, help="connections that only stay open")
    parser.add_argument("--build", type=Path, default=REPOSITORY / "build" / "bench")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server"
    )
    options = parser.parse_args()
    files = options.idle * 2 + 500
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, hard), hard))
    site = Site(Environments(options.build.resolve(), choose(None)), options.build.resolve())
    measuring.prepare(site)
    settings, redis_port, without = _cache(site)
    settings |= dict(text.split("=", 1) for text in options.set)
    binary = _reads_binary(site)
    say(
        f"binary tensors: {'yes' if binary else 'not read by this runtime'}; Redis: {without or 'yes'}"
    )
    default = next(c for c in VARIANTS if c.name == DEFAULT)
    running = Running(replace(default, name="soak", settings=settings), "S", site)
    seconds = options.minutes * 60
    try:
        work = soak(running, options.idle, seconds, redis_port, binary)
        tally, faults = asyncio.run(work)
        died = running.tree.ended()
    finally:
        running.stop()
    print(row(tally, faults, options.idle, seconds, without))
    for example in tally.examples:
        say(example)
    if died:
        say(f"the server died: {died}")
    if not is_flat(faults.memory_mb):
        say(
            f"memory grew: {json.dumps([round(m) for m in faults.memory_mb[:: max(1, len(faults.memory_mb) // 20)]])}"
        )
    return 1 if tally.faults or died or not is_flat(faults.memory_mb) else 0


if __name__ == "__main__":
    sys.exit(main())
