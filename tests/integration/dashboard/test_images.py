"""The pictures of docs/howto/dashboard.md: made from a real browser, real pages and the operator's own reconciler.

`make dashboard-images` writes them anew.
"""

import contextlib
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.integration.dashboard import scenes
from tests.integration.dashboard.conftest import publish
from tests.integration.dashboard.servers import SECRET, Dashboard, running_dashboard
from tests.services.api_server import ApiServer
from tests.services.browser import running_browser
from tests.services.prometheus_api import running_prometheus

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "docs" / "images"
NAMES = ("list.png", "canary.png", "canary-dark.png", "rolled-back.png", "phone.png")
MAX_BYTES = 300_000
FONT = Path("/usr/share/fonts/opentype/inter")


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_there_small_and_shown(name: str) -> None:
    """In the page of the docs, with words for who does not see them."""
    data = (IMAGES / name).read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert 700 <= width <= 1400
    assert 700 <= height <= 1800
    assert len(data) < MAX_BYTES
    page = (ROOT / "docs" / "howto" / "dashboard.md").read_text(encoding="utf-8")
    shown = (
        rf"!\[[^\]]{{20,}}\]\(\.\./images/{name}\)|src=\"\.\./images/{name}\" alt=\"[^\"]{{20,}}\""
    )
    assert re.search(shown, page)


@contextlib.contextmanager
def _page(browser: Browser, dashboard: Dashboard, path: str, **options: Any) -> Iterator[Page]:
    context = browser.new_context(reduced_motion="reduce", **options)
    page = context.new_page()
    page.goto(f"{dashboard.url}{path}#token={SECRET}")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    yield page
    context.close()


def _play(api: ApiServer, dashboard: Dashboard, good: scenes.Scene, bad: scenes.Scene) -> None:
    """Let one rollout go well and one fail before the eyes of the dashboard."""
    for count, _ in enumerate(zip(good.ticks(3600), bad.ticks(3600), strict=True)):
        if count == 9:
            good.ask("pause", "bob@example.com 1 -- a look at the first answers")
        if count == 12:
            good.ask("resume", "bob@example.com 2")
        for scene in (good, bad):
            dashboard.wait_seen(scene.key, publish(api, scene))
        if (bad.world.status.get("rollout") or {}).get("step") == 3:
            bad.nature[bad.world.status["canary"]["revision"]] = scenes.BAD
        if bad.world.phase == "Aborted":
            return
    raise AssertionError("the scene never came")


@pytest.mark.skipif(
    "CANARIUM_WRITE_IMAGES" not in os.environ, reason="`make dashboard-images` makes the pictures"
)
def test_the_pictures_are_made(api: ApiServer, tmp_path: Path) -> None:
    """List, canary (light and dark), rolled back, phone."""
    assert FONT.is_dir(), "the pictures are set in Inter: apt-get install fonts-inter"
    good, bad = scenes.canary("shop", "deliveries"), scenes.canary("payments", "fraud")
    for scene in (
        scenes.waiting("search", "ranking"),
        scenes.promoted("support", "intent", "v3"),
        scenes.promoted("risk", "credit-score", "v11", "v12"),
        scenes.promoted("media", "thumbnails", "v2"),
    ):
        publish(api, scene)
    wide = {"viewport": {"width": 1280, "height": 1170}}
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(running_prometheus(good.world.metrics))
        dashboard = stack.enter_context(
            running_dashboard(api, tmp_path, clock=lambda: good.now, prometheus=source.url)
        )
        _play(api, dashboard, good, bad)
        browser = stack.enter_context(running_browser())
        canary, failed = "/d/shop/deliveries", "/d/payments/fraud"
        shots: list[tuple[str, str, str, dict[str, Any]]] = [
            ("list.png", "/", "Model deployments", {"viewport": {"width": 1280, "height": 880}}),
            ("canary.png", canary, "Checks", wide),
            ("canary-dark.png", canary, "Checks", {**wide, "color_scheme": "dark"}),
            ("rolled-back.png", failed, "Checks", wide),
            (
                "phone.png",
                canary,
                "Checks",
                {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2},
            ),
        ]
        for name, path, heading, options in shots:
            with _page(browser, dashboard, path, **options) as page:
                expect(page.get_by_role("heading", name=heading)).to_be_visible()
                page.screenshot(path=IMAGES / name)
