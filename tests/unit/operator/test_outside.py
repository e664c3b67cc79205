"""Outside systems: gates that must agree, and notifications. Asked and told over real HTTP on loopback."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from canarium_api.conditions import Reason
from canarium_api.rollout import RolloutSpec
from canarium_operator.adapters.webhooks import HttpWebhooks
from canarium_operator.core.notifications import messages
from canarium_operator.core.revision import revision_of
from canarium_operator.core.rollout.answers import GateAnswer, parse_answer
from canarium_operator.core.rollout.webhooks import due_gates, question
from canarium_operator.errors import WebhookError
from canarium_operator.messenger import MAX_TRIES, Messenger
from canarium_operator.testing.cluster import FakeCluster
from canarium_operator.testing.scenario import IMAGE, REF, Scenario, Traffic, make_spec

V2 = revision_of(make_spec("2"), IMAGE).name
GATE = {"name": "change-board", "url": "http://127.0.0.1:1/ask"}
ROLLOUT = {
    "canary": {"steps": [{"weight": 10, "pause": "1m"}, {"weight": 100, "pause": "1m"}]},
    "analysis": {"metrics": [], "interval": "30s"},
}


def asked(**gate: Any) -> Scenario:
    """The pause of the first step of version 2 is over, and nobody has been asked yet."""
    spec = make_spec("2", rollout={**ROLLOUT, "gates": [{**GATE, **gate}]})
    return Scenario().settle().change(spec).settle().later(61)


def answered(world: Scenario, **answer: Any) -> Scenario:
    """The gate answers in this pass."""
    world = replace(world, gate_answers={"change-board": GateAnswer(**answer)}).step()
    return replace(world, gate_answers={})


# --- gates


def test_a_step_waits_for_the_gate_and_ends_when_it_agrees() -> None:
    """What it said is in the status."""
    world = asked().step()
    assert world.status.rollout is not None
    assert world.status.rollout.blocked_on == Reason.AWAITING_GATE
    assert "change-board (http://127.0.0.1:1/ask): not asked yet" in world.status.message
    world = answered(world, message="waiting for Bob")
    assert "waiting for Bob" in world.status.message
    world = answered(world.later(30), approved=True)
    assert world.status.last_transition is not None
    assert world.status.last_transition.reason == Reason.STEP_PASSED


def test_a_gate_may_take_the_canary_back() -> None:
    """Only by saying so."""
    world = answered(asked(), abort=True, message="incident 4711")
    [failure] = world.status.failed_revisions
    assert (failure.reason, failure.message) == (
        Reason.GATE_REFUSED,
        "change-board: incident 4711",
    )


def test_gates_are_asked_at_their_steps_after_the_pause_once_an_interval() -> None:
    """And never while the rollout is held, or when they have agreed."""
    early = asked()
    assert due_gates(replace(early, now=early.now - timedelta(seconds=2)).given()) == ()
    assert [gate.name for gate in due_gates(early.given())] == ["change-board"]
    assert due_gates(asked(steps=[2]).given()) == ()
    said_no = answered(early, message="no")
    assert due_gates(said_no.later(29).given()) == ()
    assert len(due_gates(said_no.later(30).given())) == 1
    paused = replace(early, commands={"pause": "alice 1"}).step()
    assert due_gates(paused.given()) == ()


def test_each_step_asks_anew() -> None:
    """An agreement is for one step."""
    world = answered(asked(), approved=True).act().settle().later(61)
    assert world.status.rollout is not None
    assert world.status.rollout.step == 2
    assert len(due_gates(world.given())) == 1


@pytest.mark.parametrize(
    ("status", "body", "answer"),
    [
        (200, {"approved": True, "message": "ok"}, GateAnswer(approved=True, message="ok")),
        (200, {"approved": False, "message": "later"}, GateAnswer(message="later")),
        (200, {"approved": False}, GateAnswer(message="has not approved")),
        (200, {"approved": True, "abort": True, "message": "x"}, GateAnswer(abort=True, message="x")),
        (200, {"approved": "yes"}, GateAnswer(message='answered 200 without "approved": true or false')),
        (200, None, GateAnswer(message="answered 200 without a decision")),
        (500, {"approved": True}, GateAnswer(message="answered 500 without a decision")),
        (302, None, GateAnswer(message="answered 302 without a decision")),
    ],
)  # fmt: skip
def test_only_a_plain_yes_is_a_yes(status: int, body: Any, answer: GateAnswer) -> None:
    """Everything else holds, with the reason."""
    assert parse_answer(status, body) == answer


def test_the_question_says_what_the_gate_needs_to_decide() -> None:
    """As JSON."""
    body = json.loads(json.dumps(question(asked().given())))
    assert (body["namespace"], body["name"], body["step"], body["weight"]) == ("ml", "fraud", 1, 10)
    assert body["canary"]["modelVersion"] == "2"


# --- notifications


def failed(**receiver: Any) -> tuple[RolloutSpec, Scenario]:
    """Version 2 has just been taken back for its errors."""
    rollout = {
        **ROLLOUT,
        "analysis": {"metrics": [{"name": "error-rate"}]},
        "notifications": [{"name": "ops", "secret": "ops-webhook", **receiver}],
    }
    world = Scenario().settle().change(make_spec("2", rollout=rollout)).settle()
    world = world.serves(V2, Traffic(error_rate=0.3)).later(31).step()
    return world.spec.rollout, world


def test_a_failure_is_told_with_check_value_limit_number_and_chance() -> None:
    """As a Slack-compatible message, with a link."""
    spec, world = failed(link="https://dash/{{namespace}}/{{name}}")
    [message] = messages(REF, spec, world.status, world.now)
    assert message.body["text"].startswith("*ml/fraud* AnalysisFailed: v2@")
    [attachment] = message.body["attachments"]
    assert attachment["color"] == "danger"
    assert attachment["title_link"] == "https://dash/ml/fraud"
    [field] = attachment["fields"]
    assert field["title"] == "error-rate"
    for part in ("Fail", "value 30%", "stable 0.1%", "not worse than stable", "n = 1000", "p = "):
        assert part in field["value"]


def test_the_generic_message_has_every_fact_as_a_field() -> None:
    """For receivers that are programs."""
    spec, world = failed(format="generic")
    [message] = messages(REF, spec, world.status, world.now)
    body = json.loads(json.dumps(message.body))
    assert (body["reason"], body["warning"], body["phase"]) == (
        "AnalysisFailed",
        True,
        "RollingBack",
    )
    assert body["checks"][0]["verdict"] == "Fail"


@pytest.mark.parametrize(
    ("events", "count"), [(["Failed"], 1), (["Promoted"], 0), (["Promoted", "All"], 1), ([], 0)]
)
def test_receivers_hear_what_they_asked_for(events: list[str], count: int) -> None:
    """Failures unless they say otherwise."""
    spec, world = failed(events=events)
    assert len(messages(REF, spec, world.status, world.now)) == count


def test_an_approval_that_is_needed_can_be_told() -> None:
    """Whoever must approve should not have to look."""
    steps = {"steps": [{"weight": 10, "pause": "1m", "approval": True}]}
    receiver = {"name": "ops", "secret": "s", "events": ["Approval"]}
    rollout = {**ROLLOUT, "canary": steps, "notifications": [receiver]}
    world = Scenario().settle().change(make_spec("2", rollout=rollout)).settle().later(61).step()
    [message] = messages(REF, world.spec.rollout, world.status, world.now)
    assert "needs an approval" in message.body["text"]


def test_old_news_are_not_told_again() -> None:
    """A restarted operator sees the latest transition of every object."""
    spec, world = failed()
    assert messages(REF, spec, world.status, world.now + timedelta(minutes=11)) == ()


# --- over HTTP


class Receiver:
    """An outside system that answers with what the test says."""

    def __init__(self) -> None:
        self.status, self.body = 200, '{"approved": true}'
        self.calls: list[tuple[dict[str, Any], str | None]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.calls.append((await request.json(), request.headers.get("Authorization")))
        return web.Response(status=self.status, text=self.body, headers={"Location": "/elsewhere"})


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", found.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/services/T0/secret-path"
    yield found
    await runner.cleanup()


def messenger(secrets: Mapping[str, dict[str, str]]) -> Messenger:
    cluster = FakeCluster()
    cluster.secrets = {("ml", name): value for name, value in secrets.items()}
    return Messenger(cluster, HttpWebhooks())


async def test_a_gate_is_asked_with_its_token(receiver: Receiver) -> None:
    """From the Secret, as a bearer token."""
    world = asked(url=receiver.url, secret="board")
    gates = due_gates(world.given())
    answers = await messenger({"board": {"token": "t0k3n"}}).ask(
        REF, gates, question(world.given())
    )
    assert answers == {"change-board": GateAnswer(approved=True)}
    assert receiver.calls[0][1] == "Bearer t0k3n"


@pytest.mark.parametrize(
    ("secrets", "words"),
    [({}, "Secret board does not exist"), ({"board": {"x": "y"}}, "has no key 'token'")],
)
async def test_a_missing_secret_is_no_approval(
    receiver: Receiver, secrets: dict[str, dict[str, str]], words: str
) -> None:
    """And says what to do."""
    world = asked(url=receiver.url, secret="board")
    answers = await messenger(secrets).ask(REF, due_gates(world.given()), {})
    assert not answers["change-board"].approved
    assert words in answers["change-board"].message
    assert receiver.calls == []


async def test_a_gate_that_redirects_or_is_away_is_no_approval(receiver: Receiver) -> None:
    """A token must not travel on, and no URL appears in the message."""
    receiver.status = 307
    world = asked(url=receiver.url)
    answers = await messenger({}).ask(REF, due_gates(world.given()), {})
    assert answers["change-board"] == GateAnswer(message="answered 307 without a decision")
    assert len(receiver.calls) == 1
    with pytest.raises(WebhookError, match=r"127\.0\.0\.1 cannot be reached") as caught:
        await HttpWebhooks().post("http://127.0.0.1:1/secret-path", None, {}, 1)
    assert "secret-path" not in str(caught.value)


async def test_a_notification_is_posted_once(receiver: Receiver) -> None:
    """However often the transition is seen."""
    spec, world = failed()
    teller = messenger({"ops-webhook": {"url": receiver.url}})
    news = messages(REF, spec, world.status, world.now)
    assert await teller.tell(REF, news)
    assert await teller.tell(REF, news)
    assert len(receiver.calls) == 1


async def test_a_notification_that_cannot_be_posted_is_tried_a_few_times(
    receiver: Receiver,
) -> None:
    """Then it is given up; the rollout never waits for it."""
    receiver.status = 503
    spec, world = failed()
    teller = messenger({"ops-webhook": {"url": receiver.url}})
    news = messages(REF, spec, world.status, world.now)
    left = [await teller.tell(REF, news) for _ in range(MAX_TRIES + 2)]
    assert left == [*[False] * (MAX_TRIES - 1), True, True, True]
    assert len(receiver.calls) == MAX_TRIES


async def test_a_notification_without_its_secret_is_kept_for_a_while(receiver: Receiver) -> None:
    """Somebody may be about to create it."""
    spec, world = failed()
    teller = messenger({})
    assert not await teller.tell(REF, messages(REF, spec, world.status, world.now))
    assert receiver.calls == []
