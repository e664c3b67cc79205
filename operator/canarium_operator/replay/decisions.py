"""The log of decisions: what each pass saw and what it decided, as JSON lines; and its replay, byte for byte.

What is kept of a pass is what it read (the object, its children, answers of Prometheus, of gates and of pods), not what
was made of it. A replay therefore goes the whole way from there to the status with the code of today, and shows at
which line another version of Canarium would decide otherwise.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from canarium_api.status import ModelDeploymentStatus, SignatureStatus
from canarium_operator.core import naming
from canarium_operator.core.assembling import assemble
from canarium_operator.core.deciding import decide
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.observation import GatewayClass
from canarium_operator.core.outcomes.news import news_from_json, news_to_json
from canarium_operator.core.rollout.answers import GateAnswer
from canarium_operator.core.rollout.checks import due_queries
from canarium_operator.core.rollout.inputs import ProbeFailure, RolloutInput, SignatureAnswer
from canarium_operator.core.rollout.queries import Query, QueryFailure, Reading, Series
from canarium_operator.core.templates import TemplateKey
from canarium_operator.errors import OperatorError

log = logging.getLogger(__name__)

MAX_BYTES: Final = 64 * 1024 * 1024
"""Size at which a log is put aside as NAME.1, in place of the one before it: at most twice as much is ever kept."""


class DecisionLogError(OperatorError):
    """A log cannot be replayed; the message says which line and why."""


def entry_of(
    given: RolloutInput,
    body: Manifest,
    children: Iterable[Manifest],
    *,
    runtime_image: str,
    templates: Mapping[TemplateKey, Any],
    rejection: tuple[int, str] | None,
    decided: ModelDeploymentStatus,
) -> dict[str, Any]:
    """Make the entry of one pass. Annotations are kept where they are commands; nothing else of the user's is."""
    commands = {naming.command_annotation(verb): value for verb, value in given.commands.items()}
    meta = {"generation": given.generation, "annotations": commands}
    return {
        "ref": asdict(given.ref),
        "now": given.now.isoformat(),
        "runtimeImage": runtime_image,
        "object": {"metadata": meta, "spec": body.get("spec"), "status": body.get("status")},
        "children": list(children),
        "templates": [[wide, name, spec] for (wide, name), spec in sorted(templates.items())],
        "rejection": list(rejection) if rejection is not None else None,
        "gatewayClass": _gateway_class(given.observed.gateway_class),
        "readings": [_reading(query, reading) for query, reading in given.readings.items()],
        "gates": {name: asdict(answer) for name, answer in given.gate_answers.items()},
        "signatures": {
            name: {"failure": asdict(answer)}
            if isinstance(answer, ProbeFailure)
            else answer.to_manifest()
            for name, answer in given.signatures.items()
        },
        "outcomes": news_to_json(given.outcomes),
        "decided": decided.to_manifest(),
    }


def _gateway_class(found: GatewayClass | None) -> dict[str, Any] | None:
    return {"name": found.name, "features": sorted(found.features)} if found is not None else None


def _reading(query: Query, reading: Reading) -> dict[str, Any]:
    key = {"promql": query.promql, "at": query.at.isoformat(), "part": query.part}
    if isinstance(reading, QueryFailure):
        return {**key, "failure": reading.message}
    return {**key, "vector": [[dict(series.labels), series.value] for series in reading]}


class DecisionLog:
    """Writes entries to a file, with a bound; what cannot be written is dropped, and said once."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        """Prepare; the file is made with the first entry.

        Args:
            path: the file.
            max_bytes: size at which it is put aside.
        """
        self._path = path
        self._max_bytes = max_bytes
        self._failed = False

    def take(self, entry: Mapping[str, Any]) -> None:
        """Append an entry."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and self._path.stat().st_size >= self._max_bytes:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, separators=(",", ":")) + "\n")
        except OSError as error:
            if not self._failed:
                log.warning("decisions are not recorded: %s: %s", self._path, error.strerror)
            self._failed = True


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """One entry, decided again."""

    line: int
    recorded: str
    """The status as JSON with sorted keys."""
    decided: str

    @property
    def same(self) -> bool:
        """Tell whether both are the same, byte for byte."""
        return self.recorded == self.decided


def replay(lines: Iterable[str]) -> Iterator[Replayed]:
    """Decide every entry of a log again.

    Raises:
        DecisionLogError: a line is no entry.
    """
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            decided = _decide(entry).to_manifest()
            recorded = entry["decided"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            msg = f"line {number}: not an entry of a log of decisions ({type(error).__name__})"
            raise DecisionLogError(msg) from error
        yield Replayed(
            line=number,
            recorded=json.dumps(recorded, sort_keys=True),
            decided=json.dumps(decided, sort_keys=True),
        )


def _decide(entry: Mapping[str, Any]) -> ModelDeploymentStatus:
    rejection = entry["rejection"]
    # Logs of older releases have none.
    known = entry.get("gatewayClass")
    given = assemble(
        ObjectRef(**entry["ref"]),
        entry["object"],
        entry["children"],
        now=datetime.fromisoformat(entry["now"]),
        runtime_image=entry["runtimeImage"],
        templates={(wide, name): spec for wide, name, spec in entry["templates"]},
        rejection=(rejection[0], rejection[1]) if rejection is not None else None,
        gateway_class=GatewayClass(name=known["name"], features=frozenset(known["features"]))
        if known is not None
        else None,
    )
    if isinstance(given, ModelDeploymentStatus):
        return given
    answers = {(r["promql"], r["at"], r["part"]): r for r in entry["readings"]}
    readings = {}
    for query in due_queries(given):
        answer = answers.get((query.promql, query.at.isoformat(), query.part))
        if answer is not None:
            readings[query] = _answer(answer)
    given = replace(
        given,
        readings=readings,
        gate_answers={name: GateAnswer(**answer) for name, answer in entry["gates"].items()},
        signatures={name: _signature(raw) for name, raw in entry["signatures"].items()},
        outcomes=news_from_json(entry.get("outcomes")),
    )
    return decide(given)[1]


def _answer(raw: Mapping[str, Any]) -> Reading:
    if "failure" in raw:
        return QueryFailure(message=raw["failure"])
    return tuple(Series(labels=labels, value=value) for labels, value in raw["vector"])


def _signature(raw: Mapping[str, Any]) -> SignatureAnswer:
    if "failure" in raw:
        return ProbeFailure(**raw["failure"])
    return SignatureStatus.from_manifest(raw)
