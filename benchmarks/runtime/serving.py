"""Starts one contender for one model, waits until its first answer is right, and loads it."""

import json
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.error import HTTPError

from . import load
from .contenders import FEATURE_FILES, Contender
from .environments import OURS, REPOSITORY, Environments, MissingError
from .processes import Tree

READY_SECONDS = 60
"""Longest start; Ray's is the longest of all."""
_POLL_SECONDS = 0.02
_PEERS = Path(__file__).resolve().parent / "peers"
_REST_SECONDS = 0.2
"""Between letting a held server go on and loading it: timers that are overdue."""
_FINAL = frozenset({401, 403, 415, 422})
"""Answers that no waiting changes; others mean that the model is not there yet."""
_MOST_FAILURES = 0.001
"""Share of requests that may fail before a run counts as none."""


class NotRunError(Exception):
    """A contender that was not measured; the message is the reason."""


@dataclass(frozen=True)
class Start:
    """What it took until the first right answer."""

    cpu_seconds: float
    wall_seconds: float
    memory_mb: float


@dataclass(frozen=True)
class Figures:
    """One run of load: wrk's figures, and what the server used meanwhile."""

    connections: int
    cpu_us: float
    """CPU time of the whole process tree for each request."""
    requests_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    failures: int
    memory_mb: float


@dataclass(frozen=True)
class Site:
    """Where everything is."""

    environments: Environments
    folder: Path

    def sample(self, model: str) -> load.Sample:
        """Read the sample of a model."""
        return load.Sample.read(self.model(model).with_suffix(".json"))

    def model(self, model: str) -> Path:
        """Give the file of a model."""
        return self.folder / "models" / f"{model}.onnx"

    @cached_property
    def known_settings(self) -> frozenset[str]:
        """Names of the environment variables that the working tree's server knows."""
        program = (
            "import json; from canarium_api.runtime_config import PREFIX, RuntimeConfig as C;"
            "print(json.dumps([PREFIX + name.upper() for name in C.model_fields]))"
        )
        python = self.environments.python(OURS)
        done = subprocess.run([python, "-c", program], capture_output=True, check=True, text=True)
        return frozenset(json.loads(done.stdout))


class Running:
    """A server that has answered."""

    def __init__(self, contender: Contender, model: str, site: Site) -> None:
        """Start it.

        Raises:
            NotRunError: it cannot be started, or answers wrongly.
        """
        self.contender = contender
        self._folder = site.folder / "run" / contender.name.replace(" ", "-").replace("'", "")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._sample = site.sample(model)
        self.port = free_port()
        self._url = f"http://127.0.0.1:{self.port}{contender.path}"
        self._requests = load.payloads(contender.body, self._sample.row, contender.secrets)
        command, env = _command(contender, site, site.model(model), self.port, self._folder)
        self.tree = Tree(command, env, self._folder / "log", self._folder)
        try:
            self.start = self._await_first_answer()
        except BaseException:
            self.stop()
            raise

    def measure(self, connections: int, seconds: int) -> Figures:
        """Load it.

        Raises:
            NotRunError: it died, or does not answer as it should.
        """
        self._check()
        before = self.tree.cpu_seconds()
        found = load.wrk(self._url, self._requests, connections, seconds, self._folder)
        used = self.tree.cpu_seconds() - before
        answered = found.requests - found.failures
        if not answered or found.failures > _MOST_FAILURES * found.requests:
            raise NotRunError(
                f"{found.failures} of {found.requests} requests failed with {connections} connections: "
                f"{self.tree.last_words()}"
            )
        self._check()
        return Figures(
            connections=connections,
            cpu_us=used / answered * 1e6,
            requests_per_second=answered / found.seconds,
            p50_ms=found.p50_ms,
            p95_ms=found.p95_ms,
            p99_ms=found.p99_ms,
            failures=found.failures,
            memory_mb=self.tree.memory_mb(),
        )

    def hold(self) -> None:
        """Stop it where it is, until `go_on`."""
        self.tree.hold()

    def go_on(self) -> None:
        """Let it run again, and let pass what is overdue."""
        self.tree.go_on()
        time.sleep(_REST_SECONDS)

    def stop(self) -> None:
        """End it."""
        self.tree.stop()

    def _check(self) -> None:
        """See that it runs and that its answer is right."""
        if (how := self.tree.ended()) is not None:
            raise NotRunError(how)
        try:
            numbers = load.ask(self._url, self._requests[0])
        except (OSError, ValueError, LookupError) as error:
            raise NotRunError(f"it no longer answers: {error}; {self.tree.last_words()}") from error
        self._refuse_wrong(numbers)

    def _refuse_wrong(self, numbers: list[float]) -> None:
        if not load.is_right(numbers, self._sample):
            raise NotRunError(
                f"its answer is wrong: {numbers[:4]}, not {self._sample.expected[:4]}"
            )

    def _await_first_answer(self) -> Start:
        tree = self.tree
        said = "no answer"
        while time.monotonic() - tree.started_at < READY_SECONDS:
            if (how := tree.ended()) is not None:
                raise NotRunError(how)
            with suppress(OSError, ValueError, LookupError):
                try:
                    numbers = load.ask(self._url, self._requests[0])
                except HTTPError as error:
                    said = f"it answers {error.code}: {_reason(error.read(10_000))}"
                    if error.code in _FINAL:
                        raise NotRunError(said) from error
                    raise
                self._refuse_wrong(numbers)
                wall = time.monotonic() - tree.started_at
                return Start(tree.cpu_seconds(), wall, tree.memory_mb())
            time.sleep(_POLL_SECONDS)
        raise NotRunError(f"not ready after {READY_SECONDS} s: {said}; {tree.last_words()}")


def _reason(body: bytes) -> str:
    """Give what an error's answer says, without ids that differ each time."""
    try:
        return str(json.loads(body)["error"])[:200]
    except (ValueError, LookupError, TypeError):
        return body[:200].decode(errors="replace")


def _command(
    contender: Contender, site: Site, model: Path, port: int, folder: Path
) -> tuple[list[str | Path], dict[str, str]]:
    """Command line and environment of a contender."""
    try:
        python = site.environments.python(contender.environment)
    except MissingError as error:
        raise NotRunError(str(error)) from error
    if not contender.is_ours:
        env = {"BENCH_MODEL": str(model), "BENCH_PORT": str(port), "BENCH_FOLDER": str(folder)}
        return [python, _PEERS / f"serve_{contender.family}.py"], env | dict(contender.settings)
    unknown = sorted(contender.settings.keys() - site.known_settings)
    if unknown:
        raise NotRunError(f"this runtime has no setting {', '.join(unknown)}")
    for name, text in FEATURE_FILES.items():
        (folder / name).write_text(text)
    env = {
        "PYTHONPATH": f"{REPOSITORY / 'api'}:{REPOSITORY / 'runtime'}",
        "CANARIUM_MODEL_URI": model.as_uri(),
        "CANARIUM_MODEL_NAME": "m",
        "CANARIUM_HOST": "127.0.0.1",
        "CANARIUM_PORT": str(port),
        "CANARIUM_TERMINATION_LOG": str(folder / "termination-log"),
    }
    settings = {
        name: value.replace("{folder}", str(folder)) for name, value in contender.settings.items()
    }
    return [python, "-m", "canarium_runtime"], env | settings


def free_port() -> int:
    """A port of the loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
