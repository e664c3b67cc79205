"""The pages in a real Chromium: what people see, by mouse, by keyboard and by screen reader."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from tests.integration.dashboard import scenes
from tests.integration.dashboard.conftest import VIEWER, operate, publish
from tests.integration.dashboard.servers import (
    SECRET,
    TOKEN,
    Dashboard,
    running_dashboard,
    wait_until,
)
from tests.services.api_server import LOOKS, ApiServer, Rights
from tests.services.browser import running_browser

from canarium_dashboard.settings import SignIn
from canarium_operator.core.rollout.commands import parse

DESKTOP = {"width": 1280, "height": 900}
expect.set_options(timeout=10_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of this file."""
    with running_browser() as found:
        yield found


@pytest.fixture(scope="module")
def fraud() -> scenes.Scene:
    """One that was taken back."""
    return scenes.rolled_back("payments", "fraud")


@pytest.fixture(scope="module")
def deliveries() -> scenes.Scene:
    """A canary at its second step; tests only look at it."""
    scene = scenes.canary("shop", "deliveries")
    scene.run(250)
    return scene


@contextlib.contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """Open a page in a context of its own; whatever it complains of, and whatever it loads from elsewhere, fails."""
    context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
    page = context.new_page()
    wrong: list[str] = []
    origin = "/".join(url.split("/")[:3])
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda sent: None if sent.url.startswith(origin) else wrong.append(sent.url))
    try:
        page.goto(url)
        yield page
        # Answers that say no are errors to the console, and are looked at by the tests themselves.
        refusals = [w for w in wrong if "Failed to load resource" in w]
        assert [w for w in wrong if w not in refusals] == []
    finally:
        context.close()


def home(dashboard: Dashboard, path: str = "/") -> str:
    """Give the link that a user has."""
    return f"{dashboard.url}{path}#token={SECRET}"


def problems_of(page: Page, scheme: str) -> list[str]:
    """Have axe-core look at the page: names, roles, landmarks, headings, contrast and more; in dark, contrast alone."""
    rules = {"runOnly": ["color-contrast"]} if scheme == "dark" else {}
    found = Axe().run(page, options={**rules, "resultTypes": ["violations"]}).response["violations"]
    return [f"{v['id']}: {n['html'][:160]}" for v in found for n in v["nodes"]]


# --- for everybody


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_hinders_anybody(
    api: ApiServer,
    dashboard: Dashboard,
    browser: Browser,
    fraud: scenes.Scene,
    deliveries: scenes.Scene,
    scheme: str,
) -> None:
    """axe-core finds nothing in list, canary, question, failure and sign-in, in both colour schemes."""
    for scene in (fraud, deliveries):
        dashboard.wait_seen(scene.key, publish(api, scene))
    with opened(browser, home(dashboard), color_scheme=scheme) as page:
        expect(page.get_by_role("listitem").filter(has_text="fraud")).to_be_visible()
        assert problems_of(page, scheme) == []
        page.get_by_role("link", name="deliveries").click()
        expect(page.get_by_role("heading", name="Checks")).to_be_visible()
        for summary in page.locator("summary").all():
            summary.click()
        assert problems_of(page, scheme) == []
        page.get_by_role("button", name="Abort").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert problems_of(page, scheme) == []
        page.keyboard.press("Escape")
        page.goto(f"{dashboard.url}/d/payments/fraud")
        expect(page.get_by_text("was taken back").first).to_be_visible()
        assert problems_of(page, scheme) == []
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert problems_of(page, scheme) == []


def test_a_page_has_landmarks_and_one_heading_of_its_own(
    api: ApiServer, dashboard: Dashboard, browser: Browser, deliveries: scenes.Scene
) -> None:
    """Screen readers jump by them; charts are images with words, and have their figures as a table."""
    dashboard.wait_seen(deliveries.key, publish(api, deliveries))
    with opened(browser, home(dashboard, "/d/shop/deliveries")) as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("shop / deliveries")
        for role in ("banner", "navigation", "main"):
            expect(page.get_by_role(role)).to_have_count(1)  # type: ignore[arg-type]
        assert page.title() == "deliveries · shop · Canarium"
        regions = ["Steps", "Traffic", "Checks", "Revisions", "Events"]
        for name in regions:
            expect(page.get_by_role("region", name=name, exact=True)).to_be_visible()
        chart = page.get_by_role("img", name="Weight of v8: ")
        expect(chart).to_be_visible()
        expect(page.get_by_role("img", name="error-rate: ")).to_be_visible()
        page.get_by_text("Weights as a table").click()
        expect(page.get_by_role("cell", name="5%", exact=True)).to_be_visible()
        current = page.locator("[aria-current=step]")
        expect(current).to_contain_text("5%")


def test_every_kind_of_rollout_is_drawn(
    api: ApiServer, dashboard: Dashboard, browser: Browser
) -> None:
    """Also what has no steps, no checks, no weight, or no status at all."""
    kinds: dict[str, dict[str, Any]] = {
        "blue-green": {"blueGreen": {"beforeSwitch": {"pause": "10m"}}},
        "shadow": {"shadow": {"pause": "10m"}},
        "ab": {
            "abTest": {
                "sticky": {"header": "x-user"},
                "share": 30,
                "goals": ["error-rate"],
                "minDuration": "10m",
                "maxDuration": "1h",
            }
        },
    }
    found = [scenes.Scene("shop", "first"), scenes.promoted("shop", "fixed")]
    found[0].deploy("v1", scenes.GOOD)
    model = {"uri": "https://models.example.com/x/v2/model.onnx", "version": "v2"}
    fixed = {"versions": [{"name": "next", "weight": 20, "model": model}]}
    found[1].deploy("v1", scenes.GOOD, rollout={"fixed": fixed})
    found[1].run(60)
    for name, rollout in kinds.items():
        scene = scenes.promoted("shop", name)
        scene.deploy("v2", scenes.SAME, rollout=rollout)
        scene.run(60)
        found.append(scene)
    for scene in found:
        dashboard.wait_seen(scene.key, publish(api, scene))
    bare = {"metadata": {"namespace": "shop", "name": "bare", "generation": 1}, "spec": {}}
    dashboard.wait_seen(("shop", "bare"), api.put(bare))
    says = {
        "first": "Not seen yet",
        "bare": "Not seen yet",
        "fixed": "20%",
        "blue-green": "preview",
        "shadow": "shadow",
        "ab": "A/B test",
    }
    with opened(browser, home(dashboard)) as page:
        expect(page.get_by_role("listitem")).to_have_count(len(says))
        for name, words in says.items():
            page.get_by_role("link", name=name, exact=False).first.click()
            expect(page.get_by_role("heading", level=1)).to_have_text(f"shop / {name}")
            expect(page.get_by_text(words).first).to_be_visible()
            page.get_by_role("link", name="Canarium").click()
            expect(page.get_by_role("heading", name="Model deployments")).to_be_visible()


def test_the_keyboard_reaches_and_does_everything(
    api: ApiServer, dashboard: Dashboard, browser: Browser
) -> None:
    """From the skip link to a command, and back to the button that was pressed."""
    scene = scenes.waiting("search", "ranking")
    operate(api, scene)
    dashboard.wait_seen(scene.key, publish(api, scene))
    with opened(browser, home(dashboard)) as page:
        expect(page.get_by_role("link", name="ranking")).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        while not page.evaluate("document.activeElement.matches('.name a')"):
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_be_focused()
        page.keyboard.press("Tab")
        approve = page.get_by_role("button", name="Approve step 2")
        expect(approve).to_be_focused()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="Approve the end of step 2 of v8@")
        expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(approve).to_be_focused()
        page.keyboard.press("Enter")
        dialog.get_by_label("Why, for the history").fill("seen by the risk team")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status").filter(has_text="approved by")).to_be_visible()
        expect(
            page.get_by_text("approved by alice@example.com (seen by the risk team)").first
        ).to_be_visible()
    patches = [path for method, path in api.requests if method == "PATCH"]
    assert len(patches) == 1


@pytest.mark.parametrize("width", [320, 390, 768])
def test_narrow_windows_scroll_one_way(
    api: ApiServer,
    dashboard: Dashboard,
    browser: Browser,
    fraud: scenes.Scene,
    deliveries: scenes.Scene,
    width: int,
) -> None:
    """Nothing is cut off at the width of a phone, or of a page at 400 %."""
    for scene in (fraud, deliveries):
        dashboard.wait_seen(scene.key, publish(api, scene))
    with opened(browser, home(dashboard), viewport={"width": width, "height": 800}) as page:
        for name in ("deliveries", "fraud"):
            expect(page.get_by_role("link", name=name)).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.get_by_role("link", name=name).click()
            expect(page.get_by_role("heading", name="Events")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.go_back()


def test_the_theme_is_that_of_the_machine_until_somebody_chooses(
    api: ApiServer, dashboard: Dashboard, browser: Browser
) -> None:
    """And stays chosen."""
    background = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, home(dashboard), color_scheme="dark") as page:
        button = page.get_by_role("button", name="Theme: auto")
        dark = page.evaluate(background)
        button.click()
        expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
        light = page.evaluate(background)
        assert light != dark
        page.reload()
        expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
        assert page.evaluate(background) == light


# --- live


def test_a_page_follows_what_happens_and_loses_nothing_of_the_user(
    api: ApiServer, dashboard: Dashboard, browser: Browser
) -> None:
    """Without a reload: focus, open details and what was typed stay."""
    scene = scenes.canary("shop", "deliveries")
    scene.run(60)
    dashboard.wait_seen(scene.key, publish(api, scene))
    with opened(browser, home(dashboard, "/d/shop/deliveries")) as page:
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        current = page.locator("[aria-current=step]")
        expect(current).to_contain_text("1%")
        page.get_by_text("Query of error-rate").click()
        page.get_by_role("button", name="Pause").focus()
        page.evaluate("window.mark = 1")
        scene.run(300)
        publish(api, scene)
        expect(current).not_to_contain_text("1%")
        expect(
            page.get_by_role("status").filter(has_text="deliveries: In progress, Canary, step")
        ).to_have_count(1)
        expect(page.get_by_role("button", name="Pause")).to_be_focused()
        expect(page.get_by_text("sum by (revision, status)").first).to_be_visible()
        assert page.evaluate("window.mark") == 1
        page.get_by_role("link", name="Canarium").click()
        page.get_by_label("Name contains").fill("deliv")
        scenes_before = page.get_by_role("listitem")
        expect(scenes_before).to_have_count(1)
        other = {**scene.body, "metadata": {**scene.body["metadata"], "name": "returns"}}
        api.put(other)
        expect(page.get_by_role("button", name="All 2")).to_be_visible()
        expect(page.get_by_label("Name contains")).to_have_value("deliv")
        expect(page.get_by_label("Name contains")).to_be_focused()
        expect(page.get_by_role("listitem")).to_have_count(1)


def test_a_page_says_when_what_it_shows_may_be_old(
    api: ApiServer, dashboard: Dashboard, browser: Browser, deliveries: scenes.Scene
) -> None:
    """And takes the word back."""
    dashboard.wait_seen(deliveries.key, publish(api, deliveries))
    with opened(browser, home(dashboard)) as page:
        expect(page.get_by_role("link", name="deliveries")).to_be_visible()
        api.outage = 503
        api.forget_changes()
        expect(page.get_by_text("What you see may be old")).to_be_visible()
        api.outage = None
        expect(page.get_by_text("What you see may be old")).to_be_hidden()


def test_a_dashboard_that_is_gone_is_told(
    api: ApiServer, browser: Browser, deliveries: scenes.Scene, tmp_path: Path
) -> None:
    """The page tries again by itself."""
    publish(api, deliveries)
    with contextlib.ExitStack() as stack:
        dashboard = stack.enter_context(running_dashboard(api, tmp_path))
        page = stack.enter_context(_forgiving(browser, home(dashboard)))
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        dashboard.loop.call_soon_threadsafe(dashboard.seats.closing.set)
        expect(page.get_by_text("Reconnecting")).to_be_visible()


def test_a_hidden_tab_needs_no_stream(
    api: ApiServer, dashboard: Dashboard, browser: Browser, deliveries: scenes.Scene
) -> None:
    """Browsers allow few connections to one server; the page is up to date when it is looked at again."""
    dashboard.wait_seen(deliveries.key, publish(api, deliveries))
    hide = "Object.defineProperty(document, 'hidden', {configurable: true, get: () => %s})"
    tell = "document.dispatchEvent(new Event('visibilitychange'))"
    with opened(browser, home(dashboard)) as page:
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        page.evaluate(f"{hide % 'true'}; {tell}")
        wait_until("the stream is closed", lambda: dashboard.seats._taken.total() == 0)
        other = {**deliveries.body, "metadata": {**deliveries.body["metadata"], "name": "new"}}
        api.put(other)
        page.evaluate(f"{hide % 'false'}; {tell}")
        expect(page.get_by_role("link", name="new")).to_be_visible()


@contextlib.contextmanager
def _forgiving(browser: Browser, url: str) -> Iterator[Page]:
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.goto(url)
    yield page
    context.close()


# --- acting


def test_an_abort_is_asked_about_and_done(
    api: ApiServer, dashboard: Dashboard, browser: Browser
) -> None:
    """Cancel does nothing; yes is one annotation, for the revision that was shown, in the user's name."""
    scene = scenes.canary("shop", "deliveries")
    scene.run(60)
    operate(api, scene)
    dashboard.wait_seen(scene.key, publish(api, scene))
    canary = scene.world.status["canary"]["revision"]
    with opened(browser, home(dashboard, "/d/shop/deliveries")) as page:
        page.get_by_role("button", name="Abort").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("All traffic goes back to v7@")
        dialog.get_by_role("button", name="Cancel").click()
        assert not [r for r in api.requests if r[0] == "PATCH"]
        page.get_by_role("button", name="Abort").click()
        dialog.get_by_label("Why, for the history").fill("looks wrong")
        dialog.get_by_role("button", name="Abort").click()
        expect(page.get_by_role("heading", name="was taken back (step 1, at 1%)")).to_be_visible()
        scene.run(60)
        publish(api, scene)
        expect(page.get_by_role("button", name="Retry")).to_be_visible()
    value = api.objects[scene.key]["metadata"]["annotations"]["canarium.dev/abort"]
    command = parse("abort", value)
    assert (command.by, command.note) == ("alice@example.com", "looks wrong")
    assert canary.startswith(command.revision)


def test_a_command_that_came_too_late_is_refused_in_words(
    api: ApiServer, dashboard: Dashboard, browser: Browser
) -> None:
    """The dialog stays, with the operator's reason."""
    scene = scenes.canary("shop", "deliveries")
    scene.run(60)
    operate(api, scene)
    dashboard.wait_seen(scene.key, publish(api, scene))
    with opened(browser, home(dashboard, "/d/shop/deliveries")) as page:
        page.get_by_role("button", name="Skip step").click()
        scene.ask("skip", "bob@example.com 1")
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Skip step").click()
        expect(dialog.get_by_role("alert")).to_contain_text(
            "it names step 1, but step 2 is under way"
        )
        dialog.get_by_role("button", name="Close").click()
        expect(dialog).to_be_hidden()


def test_who_may_not_act_sees_why_and_no_buttons(
    api: ApiServer, browser: Browser, deliveries: scenes.Scene, tmp_path: Path
) -> None:
    """With a token of their own."""
    publish(api, deliveries)
    with (
        running_dashboard(api, tmp_path, sign_in=SignIn.TOKEN) as dashboard,
        opened(browser, f"{dashboard.url}/d/shop/deliveries") as page,
    ):
        page.get_by_label("Token").fill(VIEWER)
        page.get_by_role("button", name="Sign in").click()
        expect(
            page.get_by_text("You may look, not act: victor@example.com lacks the verb patch")
        ).to_be_visible()
        expect(page.get_by_role("button", name="Abort")).to_have_count(0)
        expect(page.get_by_text("victor@example.com", exact=True)).to_be_visible()


def test_rights_that_end_meanwhile_are_told_in_the_api_servers_words(
    api: ApiServer, dashboard: Dashboard, browser: Browser, deliveries: scenes.Scene
) -> None:
    """The page showed a button; the API server decides."""
    dashboard.wait_seen(deliveries.key, publish(api, deliveries))
    with opened(browser, home(dashboard, "/d/shop/deliveries")) as page:
        page.get_by_role("button", name="Pause").click()
        api.users[TOKEN] = Rights("alice@example.com", {"": LOOKS})
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Pause").click()
        expect(dialog.get_by_role("alert")).to_contain_text('User "alice@example.com" cannot patch')


# --- signing in


def test_the_token_is_kept_by_the_tab_alone(
    api: ApiServer, dashboard: Dashboard, browser: Browser, deliveries: scenes.Scene
) -> None:
    """Not in the address, not in a cookie; a wrong one is told, and signing out forgets it."""
    dashboard.wait_seen(deliveries.key, publish(api, deliveries))
    with opened(browser, dashboard.url) as page:
        page.get_by_label("Token").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("not the token of this dashboard")
        page.get_by_label("Token").fill(SECRET)
        page.keyboard.press("Enter")
        expect(page.get_by_role("link", name="deliveries")).to_be_visible()
        page.goto(home(dashboard))
        expect(page.get_by_role("link", name="deliveries")).to_be_visible()
        assert SECRET not in page.url
        assert page.context.cookies() == []
        page.reload()
        expect(page.get_by_role("link", name="deliveries")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Token")).to_be_focused()
        page.reload()
        expect(page.get_by_label("Token")).to_be_visible()


def test_words_of_the_cluster_are_text(
    api: ApiServer, dashboard: Dashboard, browser: Browser, deliveries: scenes.Scene
) -> None:
    """Whoever may write a status or an Event writes no page."""
    evil = "<img src=x onerror='document.title=1'><script>document.title=1</script>"
    body = {**deliveries.body}
    body["status"] = {**body["status"], "message": evil}
    api.events[deliveries.key] = [
        {"reason": evil, "message": evil, "lastTimestamp": "2026-01-01T12:00:00Z", "metadata": {}}
    ]
    dashboard.wait_seen(deliveries.key, api.put(body))
    with opened(browser, home(dashboard, "/d/shop/deliveries")) as page:
        expect(page.get_by_text(evil).first).to_be_visible()
        assert page.title() == "deliveries · shop · Canarium"
        assert page.locator("main img:not([alt])").count() == 0


def test_a_user_of_one_namespace_is_asked_for_it(
    api: ApiServer, browser: Browser, deliveries: scenes.Scene, tmp_path: Path
) -> None:
    """Where somebody may not list everything, the page asks where they may."""
    publish(api, deliveries)
    api.users["t"] = Rights("sam@example.com", {"shop": LOOKS})
    with (
        running_dashboard(api, tmp_path, sign_in=SignIn.TOKEN) as dashboard,
        opened(browser, f"{dashboard.url}/#token=t") as page,
    ):
        expect(page.get_by_text('cannot list resource "modeldeployments"')).to_be_visible()
        page.get_by_label("Namespace").fill("shop")
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_role("link", name="deliveries")).to_be_visible()
        assert page.url.endswith("/?namespace=shop")
