"""Which addresses may be reached, and webhooks as the specification says."""

import base64
import hashlib
import hmac
import ipaddress
from datetime import timedelta

import httpx
import pytest

from canarium_api.jobs_config import parse_networks
from canarium_runtime.jobs.network import AddressRules, ForbiddenAddressError, is_public
from canarium_runtime.jobs.webhooks import delay_after, parse_secrets, sign


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("1.1.1.1", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),  # noqa: S104
        ("224.0.0.1", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:1.1.1.1", True),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
    ],
)
def test_an_address_is_public_if_it_and_what_it_stands_for_are(address: str, public: bool) -> None:
    """Addresses that hold another one are judged by that."""
    assert is_public(ipaddress.ip_address(address)) is public


def check(url: str, *addresses: str, networks: str = "") -> str:
    rules = AddressRules(
        private_networks=parse_networks(networks), resolve=lambda host, port: addresses
    )
    return rules.check(httpx.URL(url))


def test_the_address_that_was_looked_at_is_the_one_to_connect_to() -> None:
    """So that a name that answers differently the next time gains nothing."""
    assert check("https://example.com/", "1.1.1.1", "1.0.0.1") == "1.1.1.1"
    assert check("https://9.9.9.9/") == "9.9.9.9"


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("https://example.com/", ("1.1.1.1", "10.0.0.1")),
        ("https://example.com/", ("::1",)),
        ("https://127.0.0.1/", ()),
        ("https://[::ffff:10.0.0.1]/", ()),
        ("https://example.com/", ("fe80::1%eth0",)),
        ("http://example.com/", ("1.1.1.1",)),
    ],
)
def test_a_host_with_one_address_that_is_not_allowed_is_refused(
    url: str, addresses: tuple[str, ...]
) -> None:
    """And plain HTTP to the internet."""
    with pytest.raises(ForbiddenAddressError):
        check(url, *addresses)


def test_networks_of_the_settings_are_allowed() -> None:
    """Also by plain HTTP."""
    assert check("http://svc/", "10.1.2.3", networks="10.1.0.0/16, fd00::/8") == "10.1.2.3"
    with pytest.raises(ForbiddenAddressError):
        check("http://svc/", "10.2.0.1", networks="10.1.0.0/16")


def test_a_name_without_an_address_is_no_verdict() -> None:
    """It may have one later."""
    with pytest.raises(httpx.ConnectError):
        check("https://example.com/")


SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_a_signature_is_that_of_the_specification() -> None:
    """The example of Standard Webhooks, and one signature more for each further secret."""
    body = b'{"test": 2432232314}'
    secrets = parse_secrets(SECRET)
    signature = sign(secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    both = parse_secrets(f"{SECRET}\n\nwhsec_{base64.b64encode(b'k' * 24).decode()}\n")
    first, second = sign(both, "m", 1, b"x").split(" ")
    expected = hmac.new(b"k" * 24, b"m.1.x", hashlib.sha256).digest()
    assert second == f"v1,{base64.b64encode(expected).decode()}"
    assert first != second


@pytest.mark.parametrize("text", ["", "hush", "whsec_hush!", "whsec_aHVzaA=="])
def test_what_is_no_secret_is_refused_and_not_quoted(text: str) -> None:
    """24 bytes are the least."""
    with pytest.raises(ValueError, match="secret") as caught:
        parse_secrets(text)
    assert "hush" not in str(caught.value)
    assert "aHVzaA" not in str(caught.value)


def test_attempts_come_further_apart_up_to_an_hour() -> None:
    """8 of them take about two and a half hours."""
    delays = [delay_after(attempts) for attempts in range(1, 8)]
    assert delays[0] == timedelta(seconds=5)
    assert delays == sorted(delays)
    assert delays[-1] == timedelta(hours=1)
    assert timedelta(hours=2) < sum(delays, timedelta()) < timedelta(hours=3)
