"""Where our time goes: py-spy looks at the loaded server; each look counts for the part that it finds on top."""

import re
import subprocess
import threading
from collections import Counter
from pathlib import Path

from .contenders import DEFAULT, VARIANTS
from .environments import TOOLS
from .marks import LOADED
from .progress import say
from .report import table
from .serving import Running, Site

RATE = 200
"""Looks a second; more would slow the server that is looked at."""
PARTS: tuple[tuple[str, str], ...] = (
    ("ONNX Runtime", r"onnxruntime|MlasS?gemm|/backends/onnx\.py|onnx\.py:"),
    (
        "sockets",
        r"\b(send|sendto|sendmsg|write|writev|recv|read|readv)\b \(",
    ),
    ("parsing HTTP", r"httptools(?!_impl)|llhttp"),
    ("JSON", r"orjson|rest/codec\.py|msgspec"),
    ("validation", r"validation\.py"),
    ("batching", r"canarium_runtime/batching/"),
    ("metrics", r"metrics\.py|prometheus_client"),
    ("security, audit and cache", r"canarium_runtime/(security|audit|caching)"),
    ("the service", r"canarium_runtime/service\.py"),
    ("our HTTP", r"canarium_runtime/rest/"),
    ("FastAPI and Starlette", r"\b(fastapi|starlette)/"),
    ("uvicorn", r"\buvicorn/"),
    ("event loop", r"uvloop|asyncio|\bloop\.c:|\buv_"),
)
"""Name and pattern of each part; a stack belongs to the first frame from the top that one of them fits."""
WAITING = re.compile(r"epoll_p?wait|SimpleQueue_get|cond_(timed)?wait|acquire_lock|futex")
"""A thread that waits uses no CPU; py-spy does not always know that."""
_TOP = 4
"""Frames from the top in which a wait is looked for."""
_WARM_SECONDS = 1


def part_of(stack: str) -> str:
    """Tell the part of a stack: frames with `;` between them, the outermost first."""
    for frame in reversed(stack.split(";")):
        for name, pattern in PARTS:
            if re.search(pattern, frame):
                return name
    return "other"


def breakdown(collapsed: str) -> Counter[str]:
    """Count the looks of each part, from py-spy's raw output: a stack and its count in each line."""
    counts: Counter[str] = Counter()
    for line in collapsed.splitlines():
        stack, _, count = line.rpartition(" ")
        if not any(WAITING.search(frame) for frame in stack.split(";")[-_TOP:]):
            counts[part_of(stack)] += int(count)
    return counts


def profile(site: Site, model: str, seconds: int) -> str:
    """Load our server and look at it; a table of microseconds of CPU for each request.

    Raises:
        SystemExit: py-spy cannot look.
    """
    default = next(c for c in VARIANTS if c.name == DEFAULT)
    running = Running(default, model, site)
    stacks = site.folder / f"profile-{model}.txt"
    try:
        running.measure(LOADED, _WARM_SECONDS)
        plain = running.measure(LOADED, seconds)
        spy = threading.Thread(target=_spy, args=(site, running.tree.pid, seconds, stacks))
        spy.start()
        running.measure(LOADED, seconds + 1)
        spy.join()
    finally:
        running.stop()
    if not stacks.exists():
        raise SystemExit("py-spy could not look at the server: it needs root, or ptrace_scope 0")
    counts = breakdown(stacks.read_text())
    say(f"stacks: {stacks} (for a flame graph)")
    total = counts.total()
    lines = [
        [name, f"{plain.cpu_us * count / total:.1f}", f"{100 * count / total:.0f} %"]
        for name, count in counts.most_common()
    ]
    lines.append(["**all**", f"{plain.cpu_us:.1f}", f"{total} looks"])
    return f"Model {model}, 32 connections:\n\n" + table(
        ["part", "CPU µs a request", "share"], lines
    )


def _spy(site: Site, pid: int, seconds: int, stacks: Path) -> None:
    stacks.unlink(missing_ok=True)
    program = site.environments.python(TOOLS).parent / "py-spy"
    command: list[str | Path] = [
        program,
        "record",
        "--pid",
        str(pid),
        "--duration",
        str(seconds),
        "--native",
    ]
    command += ["--rate", str(RATE), "--format", "raw", "--output", stacks]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        say(f"py-spy: {done.stderr.strip()[-300:]}")
