"""What a request must pass: the name of the host, the page it comes from, the token."""

import pytest

from canarium_dashboard import guard
from canarium_dashboard.errors import (
    BadRequestError,
    DashboardError,
    ForbiddenError,
    SignedOutError,
)
from canarium_dashboard.settings import Settings

MINE = {"host": "127.0.0.1:8765", "x-canarium-dashboard": "1"}


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8765", "localhost:1", "LOCALHOST", "[::1]:8765", "[::1]"]
)
def test_its_own_names_are_let_in(host: str) -> None:
    """With any port."""
    guard.check_host(host, Settings().hosts)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8765",
        "127.0.0.1.evil.example",
        "127.0.0.2:8765",
        "[::2]:1",
    ],
)
def test_any_other_name_is_refused(host: str) -> None:
    """A foreign page may have had its own name lead here."""
    with pytest.raises(ForbiddenError, match="--allowed-host"):
        guard.check_host(host, Settings().hosts)


@pytest.mark.parametrize(
    "headers",
    [
        MINE,
        {**MINE, "origin": "http://127.0.0.1:8765"},
        {**MINE, "origin": "https://127.0.0.1:8765", "sec-fetch-site": "same-origin"},
    ],
)
def test_a_page_of_ours_is_let_in(headers: dict[str, str]) -> None:
    """A program that is no browser is, too, if it says the header."""
    guard.check_page(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": MINE["host"]},
        {**MINE, "origin": "https://evil.example"},
        {**MINE, "origin": "null"},
        {**MINE, "origin": "http://127.0.0.1:9999"},
        {**MINE, "sec-fetch-site": "cross-site"},
        {**MINE, "sec-fetch-site": "same-site"},
    ],
    ids=["no header", "other origin", "opaque origin", "other port", "cross-site", "same-site"],
)
def test_a_foreign_page_is_refused(headers: dict[str, str]) -> None:
    """Whatever credentials a browser or a proxy has added."""
    with pytest.raises(ForbiddenError):
        guard.check_page(headers)


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (None, SignedOutError),
        ("", SignedOutError),
        ("Basic YTpi", BadRequestError),
        ("Bearer ", BadRequestError),
        ("Bearer a b", BadRequestError),
        ("Bearer " + "x" * 9000, BadRequestError),
        ("Bearer a\r\nX: y", BadRequestError),
    ],
)
def test_what_is_no_token_is_refused(sent: str | None, error: type[DashboardError]) -> None:
    """It would be passed on to the API server."""
    with pytest.raises(error):
        guard.token_of({} if sent is None else {"authorization": sent})


def test_the_secret_must_be_the_one_that_was_told() -> None:
    """An empty one never fits, also where there is none."""
    guard.check_secret("s3cret", "s3cret")
    for token, secret in (("other", "s3cret"), ("s3cret", ""), ("ü", "s3cret")):
        with pytest.raises(SignedOutError):
            guard.check_secret(token, secret)


def test_the_secret_is_in_no_repr() -> None:
    """Logs and tracebacks show it to nobody."""
    assert "s3cret" not in repr(Settings(secret="s3cret"))


def test_the_policy_lets_nothing_in_from_elsewhere() -> None:
    """No inline code, no frames, no other server."""
    assert "default-src 'none'" in guard.POLICY
    assert "unsafe" not in guard.POLICY
    assert "frame-ancestors 'none'" in guard.POLICY
