"""The benchmark of the runtime, without running a server: marks, bodies, profiles, the soak test's judgement."""

import json
import struct
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.runtime import interpreters, load, profiling, report, soak
from benchmarks.runtime.contenders import (
    BINARY,
    DEFAULT,
    FAMILIES,
    PAIR,
    PEERS,
    ROUTE,
    VARIANTS,
)
from benchmarks.runtime.environments import OURS, REQUIREMENTS, Environments, MissingError
from benchmarks.runtime.interpreters import Interpreter
from benchmarks.runtime.load import Body, Sample
from benchmarks.runtime.marks import MARKS, Figure, judge
from benchmarks.runtime.results import Alone, Measured, Missed, Result, Started
from benchmarks.runtime.serving import Figures, Start
from benchmarks.runtime.soak_clients import FaultError, Question, Questions, compare

MOSEC, BATCHING = "mosec, no batching", "mosec, batching"
MLSERVER, KSERVE = "mlserver, batching", "kserve"
BY_ID = {mark.id: mark for mark in MARKS}


def figures(connections: int = 32, **changes: float) -> Figures:
    given = Figures(
        connections=connections,
        cpu_us=100,
        requests_per_second=1000,
        p50_ms=1,
        p95_ms=2,
        p99_ms=3,
        failures=0,
        memory_mb=90,
    )
    return replace(given, **changes)


def result(*rows: tuple[str, str, Figures]) -> Result:
    made = Result(
        "today",
        dict.fromkeys(
            (
                "cpu",
                "cores",
                "memory_gib",
                "kernel",
                "python",
                "python_loop_ms",
                "load_average_before",
            ),
            "1",
        ),
        {"models": "TML", "rounds": 3, "seconds": 2},
    )
    made.measured += [Measured(name, model, 1, f) for name, model, f in rows]
    return made


@pytest.mark.parametrize(
    ("row", "found", "value", "rival", "verdict"),
    [
        pytest.param(
            "T-cpu",
            [(DEFAULT, figures(cpu_us=12)), (BATCHING, figures(cpu_us=30)), (KSERVE, figures())],
            0.4,
            BATCHING,
            "reached",
            id="CPU is compared with the best peer",
        ),
        pytest.param(
            "T-cpu",
            [(DEFAULT, figures(cpu_us=16)), (BATCHING, figures(cpu_us=30))],
            16 / 30,
            BATCHING,
            "**missed**",
            id="a bound that is passed is missed",
        ),
        pytest.param(
            "T-mlserver",
            [(DEFAULT, figures(cpu_us=10)), (BATCHING, figures(cpu_us=3)), (MLSERVER, figures())],
            0.1,
            MLSERVER,
            "**missed**",
            id="a row can be about one peer alone",
        ),
        pytest.param(
            "T-lone",
            [
                (DEFAULT, figures(1, p50_ms=0.1)),
                (BATCHING, figures(1, p50_ms=3)),
                (MOSEC, figures(1, p50_ms=0.2)),
                (MOSEC, figures(32, p50_ms=0.01)),
            ],
            0.5,
            MOSEC,
            "reached",
            id="a lone request is compared with lone requests, and the best way to run a peer counts",
        ),
        pytest.param(
            "T-eight",
            [
                (DEFAULT, figures(8)),
                (MOSEC, figures(8, requests_per_second=500)),
                (KSERVE, figures(8)),
            ],
            1.0,
            KSERVE,
            "**missed**",
            id="of requests a second the most is the best",
        ),
        pytest.param(
            "T-route",
            [(ROUTE, figures(cpu_us=90)), (BATCHING, figures(cpu_us=30)), (KSERVE, figures())],
            0.9,
            KSERVE,
            "reached",
            id="through the route mosec is left out",
        ),
    ],
)
def test_a_row_divides_our_figure_by_the_right_one(
    row: str, found: list[tuple[str, Figures]], value: float, rival: str, verdict: str
) -> None:
    judged = judge(BY_ID[row], result(*((name, "T", f) for name, f in found)))
    assert (judged.value, judged.rival, judged.verdict) == (pytest.approx(value), rival, verdict)


def test_two_processes_are_compared_with_the_best_peer_in_one_or_two() -> None:
    """Else a peer that gains nothing by a second process would be a weaker rival with it."""
    pair = f"{BATCHING}, 2 processes"
    given = result(
        (PAIR, "M", figures(requests_per_second=2000)),
        (BATCHING, "M", figures(requests_per_second=1600)),
        (pair, "M", figures(requests_per_second=1200)),
    )
    assert (judge(BY_ID["M-pair"], given).rival, judge(BY_ID["M-pair"], given).value) == (
        BATCHING,
        1.25,
    )
    alone = result((DEFAULT, "M", figures()), (pair, "M", figures(cpu_us=1)))
    assert judge(BY_ID["M-cpu"], alone).value is None


@pytest.mark.parametrize(
    ("row", "ours", "value"), [("L-share", DEFAULT, 0.8), ("L-pair-share", PAIR, 0.5)]
)
def test_a_share_of_onnx_runtime_is_taken_at_batch_16_on_as_many_cores(
    row: str, ours: str, value: float
) -> None:
    given = result((ours, "L", figures(cpu_us=500, requests_per_second=1800)))
    given.limits += [
        Alone("L", 1, "16", cpu_us=400, samples_per_second=2000),
        Alone("L", 2, "16", cpu_us=450, samples_per_second=3600),
        Alone("L", 1, "32", cpu_us=300, samples_per_second=2500),
    ]
    assert judge(BY_ID[row], given).value == pytest.approx(value)


def test_a_row_says_why_it_was_not_run() -> None:
    given = result((MOSEC, "M", figures()))
    given.not_run.append(Missed(BINARY, "M", "it answers 415"))
    judged = judge(BY_ID["M-binary"], given)
    assert (judged.verdict, judged.rival) == ("not run", f"{BINARY}: it answers 415")


def test_who_failed_in_a_later_round_has_no_figures() -> None:
    """Else the rounds before its end would count as if nothing had happened."""
    given = result((DEFAULT, "T", figures(cpu_us=10)), (BATCHING, "T", figures(cpu_us=1)))
    given.not_run.append(Missed(BATCHING, "T", "it ended with -9"))
    assert judge(BY_ID["T-cpu"], given).value is None


def test_cold_start_is_the_figure_itself() -> None:
    given = result()
    given.starts += [Started(DEFAULT, "T", Start(s, 2.0, 90)) for s in (1.4, 1.9, 1.6)]
    assert (judge(BY_ID["T-start"], given).value, BY_ID["T-start"].figure) == (
        1.6,
        Figure.START_CPU,
    )


def test_a_result_can_be_read_again_and_told(tmp_path: Path) -> None:
    """The report is made from the file, so a run need not be repeated for another look."""
    given = result((DEFAULT, "T", figures()), (BATCHING, "T", figures()))
    given.limits.append(Alone("T", 1, "16", 1.0, 2.0))
    given.starts.append(Started(DEFAULT, "T", Start(1.0, 2.0, 90)))
    given.not_run.append(Missed(KSERVE, "T", "kserve cannot be installed: no | disk"))
    given.write(tmp_path / "r.json")
    read = Result.read(tmp_path / "r.json")
    assert read == given
    text = report.markdown(read)
    assert "| kserve | T | kserve cannot be installed: no / disk |" in text
    assert (
        "| T-cpu | T | CPU for each request, T, / the best peer (mosec, batching) | at most 0.5 | 1 | **missed** |"
        in text
    )


def test_every_contender_can_be_started_and_every_row_measured() -> None:
    """Each peer has its server and its list; each row names contenders that exist and run its model."""
    peers = REQUIREMENTS.parent / "peers"
    for family in FAMILIES:
        assert (peers / f"serve_{family}.py").exists()
        assert (REQUIREMENTS / f"{family}.txt").exists()
    names = [contender.name for contender in (*VARIANTS, *PEERS)]
    assert len(names) == len(set(names))
    for mark in MARKS:
        needed = [contender for contender in (*VARIANTS, *PEERS) if mark.needs(contender)]
        assert mark.ours in [contender.name for contender in needed]
        assert (mark.at_most is None) != (mark.at_least is None)


def test_an_environment_that_may_not_be_made_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no environment"):
        Environments(tmp_path, Interpreter(Path("python"), "3.11.2", 50.0), make=False).python(OURS)


def test_a_python_says_its_version_and_how_quick_it_is() -> None:
    """One that is not there is none; one that is asked for is taken."""
    running = interpreters.ask(Path(sys.executable))
    assert running is not None
    assert running.version == sys.version
    assert running.loop_ms > 0
    assert interpreters.ask(Path("/no/such/python")) is None
    assert interpreters.choose(Path(sys.executable)).path == Path(sys.executable)
    with pytest.raises(SystemExit, match="--python /no/such/python"):
        interpreters.choose(Path("/no/such/python"))


def test_requests_differ_but_for_their_size_in_headers() -> None:
    """A cache must not answer them all; wrk sends the same headers with each."""
    requests = load.payloads(Body.V2_BINARY, [0.5, -1.25], {"x-api-key": "k"})
    assert len({request.body for request in requests}) == load.DIFFERENT
    assert len({json.dumps(request.headers) for request in requests}) == 1
    head = int(requests[0].headers["Inference-Header-Content-Length"])
    assert struct.unpack("<2f", requests[0].body[head:]) == (0.5, -1.25)
    assert json.loads(requests[0].body[:head])["inputs"][0]["shape"] == [1, 2]


@pytest.mark.parametrize(
    ("numbers", "right"),
    [([1.0, 2.0], True), ([1.0005, 2.0], True), ([1.1, 2.0], False), ([1.0], False), ([], False)],
)
def test_an_answer_is_right_but_for_rounding(numbers: list[float], right: bool) -> None:
    assert load.is_right(numbers, Sample([0.0], [1.0, 2.0])) is right


def test_a_look_belongs_to_the_first_known_frame_from_the_top() -> None:
    """What waits uses no CPU; C functions without a name count for who called them."""
    counts = profiling.breakdown(
        "run (server.py:1);uv_run (core.c:1);decode (canarium_runtime/rest/codec.py:9);0x7f (libc.so.6) 3\n"
        "run (server.py:1);uv_run (core.c:1);UVStream__try_write (loop.c:5);write (libc.so.6) 5\n"
        "run (server.py:1);uv_run (core.c:1);epoll_pwait (libc.so.6) 70\n"
        "main (elsewhere.py:1) 2\n"
    )
    assert counts == {"JSON": 3, "sockets": 5, "other": 2}


@pytest.mark.parametrize(
    ("samples", "flat"),
    [
        pytest.param([90.0] * 20, True, id="even"),
        pytest.param([50.0] * 4 + [100.0] * 16, True, id="the first fifth only fills pools"),
        pytest.param([100.0 + n for n in range(20)], False, id="it grows all the time"),
        pytest.param([100.0] * 19 + [300.0], True, id="one sample is no growth"),
    ],
)
def test_memory_is_flat_or_it_is_not(samples: list[float], flat: bool) -> None:
    assert soak.is_flat(samples) is flat


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        pytest.param(200, {"id": "a", "outputs": {"y": [[7], [8]]}}, None, id="right"),
        pytest.param(200, {"id": "a", "outputs": [{"data": [7, 8]}]}, None, id="right in V2"),
        pytest.param(
            200, {"id": "a", "outputs": {"y": [[8], [7]]}}, "swapped", id="rows changed places"
        ),
        pytest.param(
            200, {"id": "b", "outputs": {"y": [[9], [9]]}}, "swapped", id="another's answer"
        ),
        pytest.param(200, {"id": "b", "outputs": {"y": [[7], [8]]}}, "wrong id", id="another's id"),
        pytest.param(500, {}, "status 500", id="an error of the server"),
    ],
)
def test_the_soak_test_sees_what_is_wrong(status: int, answer: object, kind: str | None) -> None:
    question = Question(b"", 200, (7, 8), "a")
    if kind is None:
        compare(question, status, json.dumps(answer).encode())
        return
    with pytest.raises(FaultError) as caught:
        compare(question, status, json.dumps(answer).encode())
    assert caught.value.kind == kind


def test_questions_are_not_asked_twice_but_for_the_hot_ones() -> None:
    """So another's answer shows; and the same seed asks the same."""
    questions, again = Questions(3, binary=True), Questions(3, binary=True)
    asked = [questions.next() for _ in range(500)]
    assert [again.next().numbers for _ in range(500)] == [question.numbers for question in asked]
    cold = [n for question in asked for n in question.numbers if n >= 50]
    assert len(cold) == len(set(cold))
