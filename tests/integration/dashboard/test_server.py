"""The dashboard's server, over HTTP: who gets in, who sees what, streams and their bounds, commands."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.integration.dashboard import scenes
from tests.integration.dashboard.conftest import SHOPPER, VIEWER, operate, publish
from tests.integration.dashboard.servers import (
    SECRET,
    TOKEN,
    Dashboard,
    running_dashboard,
    wait_until,
)
from tests.services.api_server import ApiServer
from tests.services.prometheus_api import running_prometheus

from canarium_dashboard import desk, guard, settings, streams, watching
from canarium_dashboard.__main__ import main
from canarium_dashboard.settings import SignIn

PAGE = {"X-Canarium-Dashboard": "1"}


def client(dashboard: Dashboard, token: str | None = SECRET, **headers: str) -> httpx.Client:
    """Be a page with a token."""
    sent = {**PAGE, **headers}
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    return httpx.Client(base_url=dashboard.url, headers=sent, timeout=20, trust_env=False)


def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    """Read server-sent events."""
    kind = ""
    for line in response.iter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)


def news(told: Iterator[tuple[str, Any]]) -> tuple[str, Any]:
    """Give the next event that is more than the time: how many of those come between depends on the machine."""
    return next(event for event in told if event[0] != "tick")


@pytest.fixture(scope="module")
def shop() -> scenes.Scene:
    """A canary at its first step; tests that change it make their own."""
    scene = scenes.promoted("shop", "deliveries")
    scene.deploy("v8", scenes.SAME)
    scene.run(30)
    return scene


# --- who gets in


@pytest.mark.parametrize(
    ("token", "headers", "status"),
    [
        (None, {}, 401),
        ("wrong", {}, 401),
        (TOKEN, {}, 401),
        (SECRET, {"Host": "evil.example"}, 403),
        (SECRET, {"Origin": "https://evil.example"}, 403),
        (SECRET, {"Sec-Fetch-Site": "cross-site"}, 403),
        (SECRET, {}, 200),
    ],
    ids=[
        "no token",
        "another",
        "a token of Kubernetes",
        "rebound name",
        "other origin",
        "other site",
        "a page",
    ],
)
def test_data_is_for_our_own_pages_with_the_token(
    dashboard: Dashboard, token: str | None, headers: dict[str, str], status: int
) -> None:
    """Everything else is refused, and says why."""
    with client(dashboard, token, **headers) as page:
        found = page.get("/api/deployments")
    assert found.status_code == status
    assert status == 200 or found.json()["message"]


def test_without_the_pages_header_nothing_is_told(dashboard: Dashboard) -> None:
    """A form or an image of a foreign page cannot send it."""
    sent = {"Authorization": f"Bearer {SECRET}"}
    found = httpx.get(f"{dashboard.url}/api/session", headers=sent, trust_env=False)
    assert found.status_code == 403


@pytest.mark.parametrize(
    "path", ["/", "/d/shop/deliveries", "/assets/app.js", "/api/session", "/nowhere"]
)
def test_every_answer_says_what_a_browser_may_do_with_it(dashboard: Dashboard, path: str) -> None:
    """Errors, too."""
    found = httpx.get(dashboard.url + path, trust_env=False)
    for name, value in guard.HEADERS.items():
        assert found.headers[name] == value
    assert "set-cookie" not in found.headers
    assert "server" not in found.headers


def test_assets_name_nothing_outside() -> None:
    """No address of another server, no inline code: the page works without a network."""
    folder = Path(guard.__file__).parent / "assets"
    for file in folder.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, file.name
        assert "https://" not in text, file.name
        assert "innerHTML" not in text, file.name
        assert file.stat().st_size < 20_000, file.name


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"verb": "delete"}', "verb"),
        (b'{"verb": "abort", "revision": "a1", "step": "x"}', "step"),
        (b"{", "JSON"),
        (b'{"verb": "abort", "note": "' + b"x" * 5000 + b'"}', "at most 4096 bytes"),
        (b'{"verb": "abort"}', "needs the revision"),
    ],
)
def test_what_is_no_command_is_refused(
    api: ApiServer, dashboard: Dashboard, shop: scenes.Scene, body: bytes, words: str
) -> None:
    """And nothing is patched."""
    publish(api, shop)
    with client(dashboard) as page:
        found = page.post(
            "/api/deployments/shop/deliveries/commands",
            content=body,
            headers={"Content-Type": "application/json"},
        )
    assert found.status_code == 400
    assert words in found.json()["message"]
    assert not [r for r in api.requests if r[0] == "PATCH"]


# --- who sees what


def test_a_user_with_a_kubeconfig_sees_all_they_may(
    api: ApiServer, dashboard: Dashboard, shop: scenes.Scene
) -> None:
    """A list, and one of it with its Events and rights; both by one watch."""
    dashboard.wait_seen(shop.key, publish(api, shop))
    with client(dashboard) as page:
        session = page.get("/api/session").json()
        (row,) = page.get("/api/deployments").json()["rows"]
        detail = page.get("/api/deployments/shop/deliveries").json()
        missing = page.get("/api/deployments/shop/other")
        nonsense = page.get("/api/deployments/shop/..%2fx")
    assert session == {"user": "alice@example.com", "namespace": "", "everywhere": True}
    assert (row["name"], row["health"], row["step"]) == ("deliveries", "progressing", 1)
    assert detail["mayAct"] is True
    assert detail["events"][0]["reason"] == "StepStarted"
    assert missing.status_code == 404
    assert nonsense.status_code in (400, 404)
    lists = [path for method, path in api.requests if "modeldeployments?limit" in path]
    assert len(lists) == 1


@pytest.fixture
def open_dashboard(api: ApiServer, tmp_path: Path) -> Iterator[Dashboard]:
    """A dashboard whose users bring their tokens."""
    with running_dashboard(api, tmp_path, sign_in=SignIn.TOKEN) as found:
        yield found


def test_each_token_sees_what_it_may_and_no_more(
    api: ApiServer, open_dashboard: Dashboard, shop: scenes.Scene
) -> None:
    """Sam sees the shop alone; what alice has watched does not reach him."""
    publish(api, shop)
    other = {**shop.body, "metadata": {**shop.body["metadata"], "namespace": "payments"}}
    api.put(other)
    with client(open_dashboard, TOKEN) as alice, client(open_dashboard, SHOPPER) as sam:
        assert len(alice.get("/api/deployments").json()["rows"]) == 2
        refused = sam.get("/api/deployments")
        assert refused.status_code == 403
        assert 'User "sam@example.com" cannot list' in refused.json()["message"]
        rows = sam.get("/api/deployments", params={"namespace": "shop"}).json()["rows"]
        assert [row["namespace"] for row in rows] == ["shop"]
        assert sam.get("/api/deployments/payments/deliveries").status_code == 403
        session = sam.get("/api/session").json()
    assert (session["everywhere"], session["namespace"]) == (False, "default")


def test_the_dashboard_itself_has_no_rights(api: ApiServer, open_dashboard: Dashboard) -> None:
    """Its kubeconfig holds alice's token, of which nothing is used: a request without a token stays one."""
    with client(open_dashboard, None) as nobody, client(open_dashboard, "stolen") as stranger:
        assert nobody.get("/api/deployments").status_code == 401
        assert stranger.get("/api/deployments").status_code == 401
    assert open_dashboard.desk.api.configuration.api_key == {}
    assert open_dashboard.desk.watchers._running == {}, "whoever has no token starts no watch"


def test_an_owner_of_one_namespace_begins_there(
    api: ApiServer, shop: scenes.Scene, tmp_path: Path
) -> None:
    """A kubeconfig whose user may not list all namespaces is watched where its context is."""
    version = publish(api, shop)
    with running_dashboard(api, tmp_path, token=SHOPPER) as dashboard:
        dashboard.desk.default_namespace = "shop"
        with client(dashboard) as page:
            session = page.get("/api/session").json()
            rows = page.get("/api/deployments", params={"namespace": "shop"}).json()["rows"]
        dashboard.wait_seen(shop.key, version)
    assert (session["everywhere"], session["namespace"]) == (False, "shop")
    assert [row["name"] for row in rows] == ["deliveries"]


def test_who_may_only_look_is_told_so(
    api: ApiServer, open_dashboard: Dashboard, shop: scenes.Scene
) -> None:
    """And the API server refuses whoever tries all the same, in its own words."""
    publish(api, shop)
    with client(open_dashboard, VIEWER) as page:
        detail = page.get("/api/deployments/shop/deliveries").json()
        asked = {"verb": "abort", "revision": detail["offers"][0]["revision"]}
        refused = page.post("/api/deployments/shop/deliveries/commands", json=asked)
    assert detail["mayAct"] is False
    assert "victor@example.com lacks the verb patch" in detail["whyNot"]
    assert refused.status_code == 403
    assert "cannot patch" in refused.json()["message"]


# --- streams


def test_a_stream_tells_the_present_and_every_change(api: ApiServer, dashboard: Dashboard) -> None:
    """Until the object is gone, and again when it is back."""
    scene = scenes.promoted("shop", "deliveries")
    dashboard.wait_seen(scene.key, publish(api, scene))
    path = "/api/deployments/shop/deliveries?follow=true"
    with client(dashboard) as page, page.stream("GET", path) as response:
        told = events(response)
        assert news(told)[1]["health"] == "healthy"
        scene.deploy("v8", scenes.SAME)
        scene.run(30)
        publish(api, scene)
        kind, view = news(told)
        assert (kind, view["phase"]) == ("view", "Canary")
        api.remove(scene.key)
        kind, problem = news(told)
        assert (kind, problem["status"]) == ("problem", 404)
        publish(api, scene)
        assert news(told)[1]["phase"] == "Canary"


def test_changes_that_were_compacted_away_are_listed_anew(
    api: ApiServer, dashboard: Dashboard, shop: scenes.Scene
) -> None:
    """A watch that is too old begins again."""
    dashboard.wait_seen(shop.key, publish(api, shop))
    api.forget_changes()
    other = {**shop.body, "metadata": {**shop.body["metadata"], "name": "later"}}
    dashboard.wait_seen(("shop", "later"), api.put(other))


def test_an_outage_of_the_api_server_is_told_and_ends(
    api: ApiServer, dashboard: Dashboard, shop: scenes.Scene
) -> None:
    """What was seen last stays, with the word that it may be old."""
    dashboard.wait_seen(shop.key, publish(api, shop))
    with client(dashboard) as page, page.stream("GET", "/api/deployments?follow=true") as response:
        told = (data for kind, data in events(response) if kind == "view")
        assert "problem" not in next(told)
        api.outage = 500
        api.forget_changes()
        old = next(told)
        assert "the API server answers 500" in old["problem"]
        assert len(old["rows"]) == 1
        api.outage = None
        assert "problem" not in next(told)


def test_an_event_that_comes_after_its_status_is_shown_soon(
    api: ApiServer, shop: scenes.Scene, tmp_path: Path
) -> None:
    """Nothing else changes, and the stream looks once more by itself; what has not changed is not sent again."""
    at = datetime.fromisoformat(shop.world.status["lastTransition"]["at"]) + timedelta(seconds=1)
    version = api.put(shop.body)
    path = "/api/deployments/shop/deliveries?follow=true"
    with (
        running_dashboard(api, tmp_path, clock=lambda: at) as dashboard,
        client(dashboard) as page,
    ):
        dashboard.wait_seen(shop.key, version)
        with page.stream("GET", path) as response:
            told = events(response)
            assert news(told)[1]["events"] == []
            api.events[shop.key] = shop.events
            kind, view = news(told)
            assert (kind, view["events"][0]["reason"]) == ("view", "StepStarted")
            assert next(told)[0] == "tick"


def test_a_watch_that_dies_by_a_mistake_is_told(
    api: ApiServer,
    dashboard: Dashboard,
    shop: scenes.Scene,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A page never shows the past for ever."""
    dashboard.wait_seen(shop.key, publish(api, shop))

    def broken(*_: object) -> None:
        raise RuntimeError("a mistake")

    with client(dashboard) as page, page.stream("GET", "/api/deployments?follow=true") as response:
        told = (data for kind, data in events(response) if kind == "view")
        next(told)
        monkeypatch.setattr(watching.Watcher, "apply", broken)
        publish(api, shop)
        assert "has ended by a mistake of the dashboard (RuntimeError)" in next(told)["problem"]
    assert "has died" in caplog.text


def test_streams_are_counted(
    api: ApiServer, dashboard: Dashboard, shop: scenes.Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has too many pages open is told so; a page that is closed makes room."""
    dashboard.wait_seen(shop.key, publish(api, shop))
    monkeypatch.setattr(streams.settings, "MAX_STREAMS_OF_ONE", 1)
    path = "/api/deployments?follow=true"
    with client(dashboard) as page:
        with page.stream("GET", path) as first:
            told = events(first)
            next(told)
            refused = page.get(path)
            assert refused.status_code == 503
            assert "1 pages open already" in refused.json()["message"]
        wait_until("there is room", lambda: dashboard.seats._taken.total() == 0)
        with page.stream("GET", path) as again:
            assert next(events(again))[0] == "view"


def test_watches_are_bounded_and_end_when_nobody_looks(
    api: ApiServer, open_dashboard: Dashboard, shop: scenes.Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle one gives way to a new one; none is left when its time is over."""
    publish(api, shop)
    monkeypatch.setattr(settings, "MAX_WATCHERS", 2)
    running = open_dashboard.desk.watchers._running
    with client(open_dashboard, TOKEN) as page:
        for namespace in ("a", "b", "c"):
            page.get("/api/deployments", params={"namespace": namespace})
        assert len(running) == 2
        monkeypatch.setattr(settings, "IDLE", timedelta(0))
        page.get("/api/deployments", params={"namespace": "shop"})
        page.get("/api/deployments", params={"namespace": "shop"})
        wait_until("idle watches have ended", lambda: len(running) <= 2)
        with page.stream("GET", "/api/deployments?namespace=shop&follow=true") as response:
            told = events(response)
            next(told)
            monkeypatch.setattr(settings, "MAX_WATCHERS", 1)
            page.get("/api/deployments", params={"namespace": "shop"})
            refused = page.get("/api/deployments", params={"namespace": "d"})
    assert refused.status_code == 503


# --- Prometheus


def test_the_share_of_requests_comes_from_prometheus_within_bounds(
    api: ApiServer, shop: scenes.Scene, tmp_path: Path
) -> None:
    """What was counted, over the time of the rollout; without an answer the page says so and shows the rest."""
    version = publish(api, shop)
    with (
        running_prometheus(shop.world.metrics) as source,
        running_dashboard(
            api, tmp_path, clock=lambda: shop.now, prometheus=source.url
        ) as dashboard,
        client(dashboard) as page,
    ):
        dashboard.wait_seen(shop.key, version)
        detail = page.get("/api/deployments/shop/deliveries").json()
        page.get("/api/deployments/shop/deliveries")
        asked = len(source.asked)
        source.status = 503
        dashboard.desk._facts.clear()
        without = page.get("/api/deployments/shop/deliveries").json()
    assert asked == 1, "what is fresh enough is not asked for again"
    words = source.asked[0]
    seconds = float(words["end"]) - float(words["start"])
    assert seconds / float(words["step"]) <= 120
    shares = [point["share"] for point in detail["chart"]["traffic"]]
    assert shares
    assert shares[-1] == pytest.approx(0.01, abs=0.01)
    assert without["chart"]["traffic"] == []
    assert without["notes"][0].startswith("Traffic cannot be shown: Prometheus refuses with 503")
    assert without["checks"]


# --- commands


def test_a_command_is_one_annotation_and_waits_for_its_answer(
    api: ApiServer, dashboard: Dashboard
) -> None:
    """Done, and refused when it does not apply any more, in the operator's words."""
    scene = scenes.waiting("search", "ranking")
    operate(api, scene)
    dashboard.wait_seen(scene.key, publish(api, scene))
    path = "/api/deployments/search/ranking"
    with client(dashboard) as page:
        offer = page.get(path).json()["offers"][0]
        asked = {
            "verb": "approve",
            "revision": offer["revision"],
            "step": offer["step"],
            "note": "seen",
        }
        done = page.post(f"{path}/commands", json=asked).json()
        again = page.post(f"{path}/commands", json=asked).json()
    assert done["outcome"] == "done"
    assert "approved by alice@example.com (seen)" in done["message"]
    assert again["outcome"] == "refused"
    assert "names step 2" in again["message"] or "approved already" in again["message"]
    patches = [path for method, path in api.requests if method == "PATCH"]
    assert len(patches) == 2


def test_an_operator_that_does_not_answer_is_told(
    api: ApiServer, dashboard: Dashboard, shop: scenes.Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With how to take the command back."""
    monkeypatch.setattr(desk, "ANSWER", timedelta(seconds=0.1))
    dashboard.wait_seen(shop.key, publish(api, shop))
    with client(dashboard) as page:
        found = page.post(
            "/api/deployments/shop/deliveries/commands", json={"verb": "pause", "revision": "a1"}
        ).json()
    assert found["outcome"] == "unanswered"
    assert "kubectl annotate mdep deliveries -n shop canarium.dev/pause-" in found["message"]


# --- the program


def test_the_rights_of_a_kubeconfig_are_not_lent_to_the_network(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another address than loopback needs users' own tokens."""
    monkeypatch.setattr(sys, "argv", ["canarium dashboard", "--host", "0.0.0.0"])  # noqa: S104
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "--sign-in token" in capsys.readouterr().err


def test_a_missing_kubeconfig_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the option that names one."""
    words = ["canarium dashboard", "--kubeconfig", str(tmp_path / "none"), "--port", "0"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert "--kubeconfig FILE" in capsys.readouterr().err


def test_a_port_that_is_taken_is_told_with_the_remedy(
    api: ApiServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Another dashboard runs already, as a rule."""
    config = tmp_path / "config"
    config.write_text(yaml.safe_dump(api.kubeconfig(TOKEN)))
    port = api.http.server_address[1]
    words = ["canarium dashboard", "--kubeconfig", str(config), "--port", str(port)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    told = f"cannot listen on 127.0.0.1, port {port}: Address already in use. Name another"
    assert told in capsys.readouterr().err


def test_the_command_tells_a_link_and_ends_with_pages_open(
    api: ApiServer, shop: scenes.Scene, tmp_path: Path
) -> None:
    """`canarium dashboard` as a user starts it, and Ctrl-C."""
    publish(api, shop)
    config = tmp_path / "config"
    config.write_text(yaml.safe_dump(api.kubeconfig(TOKEN)))
    words = ["dashboard", "--port", "0", "--no-browser", "--kubeconfig", str(config)]
    process = subprocess.Popen(
        [sys.executable, "-m", "canarium_cli", *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        url, _, token = line.removeprefix("canarium dashboard: ").strip().partition("/#token=")
        headers = {**PAGE, "Authorization": f"Bearer {token}"}
        with (
            httpx.Client(headers=headers, timeout=20, trust_env=False) as page,
            page.stream("GET", f"{url}/api/deployments?follow=true") as response,
        ):
            told = events(response)
            assert len(next(told)[1]["rows"]) == 1
            process.send_signal(signal.SIGINT)
            assert {kind for kind, _ in told} <= {"tick"}
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
