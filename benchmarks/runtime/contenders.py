"""Who takes part: Canarium's variants, and the peers with the settings that suit them best.

A contender is one way to run one server. Peers are one file each in peers/, run in an environment of their own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from .environments import OURS
from .load import Body

WAIT_MS = 3
"""How long a peer's batcher may wait for more. Its own defaults, where it has some, are longer (MLServer has none,
mosec 10 ms) and cost each of them more latency than they bring."""


@dataclass(frozen=True)
class Contender:
    """One way to run one server."""

    name: str
    """As in the table."""
    family: str
    """Whose server it is: `canarium`, or a peer."""
    body: Body
    path: str
    """Of the infer route."""
    environment: str
    processes: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Headers that each request needs."""
    models: str = "TML"
    """The models that it runs."""
    is_variant: bool = False
    """Only its load at 32 connections is asked for."""

    @property
    def is_ours(self) -> bool:
        """True for Canarium."""
        return self.family == CANARIUM


CANARIUM = "canarium"
DEFAULT = "canarium"
BINARY = "canarium, binary tensors"
ROUTE = "canarium, FastAPI route"
FEATURES = "canarium, all features"
PAIR = "canarium, 2 processes"
ONE_THREAD = "canarium, one thread a run"

_KEY = "a-key-for-benchmarks-alone"
_RULES = {
    "level": "strict",
    "inputs": [
        {
            "name": "x",
            "features": [{"name": f"f{i}", "min": -1000, "max": 1000} for i in range(30)],
        }
    ],
}
"""A range for each feature of model T."""
FEATURE_SETTINGS: dict[str, str] = {
    # Authentication, rate limit, strict validation, audit, and an L1 cache that always misses: it has room for some 60
    # answers of T, and wrk sends 256 different requests in turn.
    # Each must be a setting of RuntimeConfig; else the variant is reported as not run.
    "CANARIUM_API_KEYS_PATH": "{folder}/api-keys",
    "CANARIUM_RATE_LIMIT": "1000000",
    "CANARIUM_RATE_LIMIT_BURST": "1000000",
    "CANARIUM_VALIDATION": json.dumps(_RULES),
    "CANARIUM_AUDIT_SINK": "File",
    "CANARIUM_AUDIT_FILE": "{folder}/audit.jsonl",
    "CANARIUM_CACHE_MEMORY_BYTES": "32768",
}
"""`{folder}` is a folder of the server alone, where `FEATURE_FILES` are written."""
FEATURE_FILES: dict[str, str] = {"api-keys": f"bench: {sha256(_KEY.encode()).hexdigest()}\n"}
FEATURE_HEADERS: dict[str, str] = {"x-api-key": _KEY}


def _ours(name: str, body: Body = Body.V2, **changes: object) -> Contender:
    return Contender(
        name=name,
        family=CANARIUM,
        body=body,
        path="/v2/models/m/infer",
        environment=OURS,
        **changes,  # type: ignore[arg-type]
    )


VARIANTS = (
    _ours(DEFAULT),
    _ours(BINARY, Body.V2_BINARY, is_variant=True),
    _ours(ROUTE, settings={"CANARIUM_HOT_LANE": "off"}, is_variant=True),
    _ours(
        FEATURES,
        settings=FEATURE_SETTINGS,
        secrets=FEATURE_HEADERS,
        models="T",
        is_variant=True,
    ),
    _ours(ONE_THREAD, settings={"CANARIUM_INTRA_OP_THREADS": "1"}, models="ML", is_variant=True),
    _ours(PAIR, settings={"CANARIUM_PROCESSES": "2"}, processes=2, models="ML", is_variant=True),
)


def _peer(family: str, body: Body, path: str, *modes: tuple[str, float, str]) -> list[Contender]:
    """Make a peer's contenders.

    Args:
        family: the peer.
        body: what it wants.
        path: of its infer route.
        modes: name, wait of the batcher in ms (0: no batching) and FastAPI's kind of route. The last one is also run
            in two processes.
    """
    made = [
        Contender(
            name=f"{family}, {mode}" if mode else family,
            family=family,
            body=body,
            path=path,
            environment=family,
            settings={"BENCH_BATCH_MS": f"{wait_ms:g}", "BENCH_ROUTE": route},
        )
        for mode, wait_ms, route in modes
    ]
    last = made[-1]
    pair = Contender(
        name=f"{last.name}, 2 processes",
        family=family,
        body=body,
        path=path,
        environment=family,
        processes=2,
        settings={**last.settings, "BENCH_PROCESSES": "2"},
        models="ML",
        is_variant=True,
    )
    return [*made, pair]


_ONE_BY_ONE = ("no batching", 0, "")
_BATCHING = ("batching", WAIT_MS, "")
PEERS = (
    *_peer("mosec", Body.ROW, "/inference", _ONE_BY_ONE, ("batching", 2, "")),
    *_peer(
        "fastapi",
        Body.ROW,
        "/predict",
        ("async route", 0, "async"),
        ("def route", 0, "def"),
        ("articles' batcher, 100 ms", 100, "batch"),
        ("articles' batcher, 3 ms", WAIT_MS, "batch"),
    ),
    *_peer("mlserver", Body.V2, "/v2/models/m/infer", _ONE_BY_ONE, _BATCHING),
    *_peer("litserve", Body.ROW, "/predict", _ONE_BY_ONE, _BATCHING),
    *_peer("kserve", Body.V2, "/v2/models/m/infer", ("", 0, "")),
    *_peer("bentoml", Body.ROWS, "/predict", _ONE_BY_ONE, _BATCHING),
    *_peer("pytriton", Body.V2, "/v2/models/m/infer", _ONE_BY_ONE, _BATCHING),
    *_peer("ray", Body.ROW, "/predict", _ONE_BY_ONE, _BATCHING),
)
FAMILIES = tuple(dict.fromkeys(peer.family for peer in PEERS))
QUICK = ("mosec", "mlserver", "fastapi")
