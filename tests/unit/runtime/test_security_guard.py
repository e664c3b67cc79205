"""The guard: credentials in, a client or a refusal out."""

from pathlib import Path
from typing import Any

import pytest

from canarium_api.metric_names import AuthFailure
from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.errors import ErrorKind, LoadError, ServingError
from canarium_runtime.rest.errors import STATUS_OF_KIND, error_body, error_headers
from canarium_runtime.security import Credentials, Guard
from canarium_runtime.security import guard as guard_module
from canarium_runtime.security.clients import RefusedError, network_of
from canarium_runtime.security.keys import hash_of
from canarium_runtime.security.watching import POLL_SECONDS

KEY = b"cnr_" + b"k" * 43
OTHER = b"cnr_" + b"o" * 43
NOBODYS = b"cnr_" + b"n" * 43


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(f"bob: {hash_of(KEY)}\nann: {hash_of(OTHER)}\n")
    return file


async def make_guard(now: list[float] | None = None, **settings: Any) -> Guard:
    at = now if now is not None else [1000.0]
    config = RuntimeConfig(model_uri="file:///m", **settings)
    guard = Guard(config, clock=lambda: at[0])
    await guard.start()
    return guard


def certificates(kind: str) -> dict[str, Any]:
    return {
        "tls_certificate_file": "c", "tls_key_file": "k", "tls_client_ca_file": "a",
        "tls_client_certificates": kind,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "name"),
    [
        pytest.param(Credentials(api_key=KEY), "key:bob", id="x-api-key"),
        pytest.param(Credentials(authorization=b"Bearer " + KEY), "key:bob", id="bearer"),
        pytest.param(Credentials(authorization=b"bearer  " + OTHER), "key:ann", id="small bearer"),
        pytest.param(
            Credentials(api_key=KEY, authorization=b"Basic eDp5"), "key:bob", id="the key's header first"
        ),
    ],
)  # fmt: skip
async def test_keys_name_their_client(keys: Path, given: Credentials, name: str) -> None:
    """Twice: the second answer comes from memory."""
    guard = await make_guard(api_keys_path=str(keys))
    for _ in range(2):
        client = guard.admit(given)
        assert client is not None
        assert client.name == name
    await guard.close()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        pytest.param(Credentials(address="10.0.0.1"), AuthFailure.MISSING, id="nothing"),
        pytest.param(Credentials(api_key=NOBODYS), AuthFailure.KEY, id="nobody's key"),
        pytest.param(Credentials(authorization=b"Bearer " + NOBODYS), AuthFailure.KEY, id="bearer"),
        pytest.param(Credentials(authorization=b"Bearer "), AuthFailure.MALFORMED, id="no key"),
        pytest.param(Credentials(authorization=b"Basic eDp5"), AuthFailure.MALFORMED, id="basic"),
        pytest.param(Credentials(authorization=KEY), AuthFailure.MALFORMED, id="no scheme"),
        pytest.param(Credentials(certificate="CN=bob"), AuthFailure.MISSING, id="certificates are off"),
    ],
)  # fmt: skip
async def test_others_are_refused(keys: Path, given: Credentials, reason: AuthFailure) -> None:
    """With 401, a challenge, a count, and nothing of the secret."""
    guard = await make_guard(api_keys_path=str(keys))
    with pytest.raises(RefusedError) as caught:
        guard.admit(given)
    error = caught.value
    assert (STATUS_OF_KIND[error.kind], error.reason) == (401, reason)
    assert guard.counts.failures[reason] == 1
    headers = dict(error_headers(error))
    assert headers[b"www-authenticate"].startswith(b'Bearer realm="canarium"')
    assert b"nnnn" not in error_body(error, "r-1") + headers[b"www-authenticate"]
    await guard.close()


async def test_nothing_that_is_shown_holds_a_secret(keys: Path) -> None:
    """Neither the guard nor what it is given tells keys by its repr."""
    guard = await make_guard(api_keys_path=str(keys))
    given = Credentials(api_key=KEY)
    guard.admit(given)
    assert "kkkk" not in f"{guard!r} {given!r} {guard._keys!r} {guard.admit(given)!r}"
    await guard.close()


@pytest.mark.parametrize(
    ("settings", "given", "expected"),
    [
        pytest.param({}, Credentials(address="10.0.0.1"), "address:10.0.0.1", id="authentication off"),
        pytest.param(
            {}, Credentials(api_key=NOBODYS, address="10.0.0.1"), "address:10.0.0.1", id="off, with a key"
        ),
        pytest.param(
            {"anonymous": True, "api_keys_path": "keys"},
            Credentials(address="10.0.0.1"),
            "address:10.0.0.1",
            id="anonymous",
        ),
        pytest.param(
            {"anonymous": True, "api_keys_path": "keys"},
            Credentials(api_key=NOBODYS, address="10.0.0.1"),
            AuthFailure.KEY,
            id="anonymous, with a wrong key",
        ),
        pytest.param(
            certificates("Optional"), Credentials(certificate="CN=bob"), "cert:CN=bob", id="certificate"
        ),
        pytest.param(
            certificates("Optional"), Credentials(), AuthFailure.MISSING, id="no certificate"
        ),
        pytest.param(
            {"api_keys_path": "keys", **certificates("Optional")},
            Credentials(api_key=KEY),
            "key:bob",
            id="a key instead of a certificate",
        ),
        pytest.param(
            {"api_keys_path": "keys", **certificates("Required")},
            Credentials(api_key=KEY),
            AuthFailure.CERTIFICATE,
            id="a key does not replace a required certificate",
        ),
        pytest.param(
            {"api_keys_path": "keys", **certificates("Required")},
            Credentials(api_key=KEY, certificate="CN=proxy"),
            "key:bob",
            id="both: the key names the client",
        ),
    ],
)  # fmt: skip
async def test_ways_of_authentication_go_together(
    keys: Path, settings: dict[str, Any], given: Credentials, expected: str | AuthFailure
) -> None:
    """World: what is on; event: credentials; world: a client, or why not. Memory changes nothing."""
    if "api_keys_path" in settings:
        settings = {**settings, "api_keys_path": str(keys)}
    guard = await make_guard(**settings)
    for _ in range(2):
        if isinstance(expected, AuthFailure):
            with pytest.raises(RefusedError) as caught:
                guard.admit(given)
            assert caught.value.reason is expected
        else:
            client = guard.admit(given)
            assert client is not None
            assert client.name == expected
    await guard.close()


async def test_a_required_certificate_is_required_of_the_remembered_too(keys: Path) -> None:
    """World: a key that came with a certificate; event: the same key without one."""
    guard = await make_guard(api_keys_path=str(keys), **certificates("Required"))
    guard.admit(Credentials(api_key=KEY, certificate="CN=proxy"))
    with pytest.raises(RefusedError) as caught:
        guard.admit(Credentials(api_key=KEY))
    assert caught.value.reason is AuthFailure.CERTIFICATE
    await guard.close()


async def test_a_withdrawn_key_is_forgotten(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """World: a remembered key; event: its entry is removed, and the file is looked at."""
    assert POLL_SECONDS > 0
    monkeypatch.setattr(guard_module, "POLL_SECONDS", 0.0)
    guard = await make_guard(api_keys_path=str(keys))
    assert guard.admit(Credentials(api_key=KEY))
    keys.write_text(f"ann: {hash_of(OTHER)}\n")
    while guard._known:
        await _turn()
    with pytest.raises(RefusedError):
        guard.admit(Credentials(api_key=KEY))
    keys.write_text("broken")
    while not guard.problems():
        await _turn()
    assert "older keys are in force" in guard.problems()["api_keys"]
    assert guard.admit(Credentials(api_key=OTHER))
    await guard.close()


async def _turn() -> None:
    import asyncio

    await asyncio.sleep(0)


async def test_a_server_without_readable_keys_does_not_start(tmp_path: Path) -> None:
    """Nobody could come in, and the reason is in the status."""
    with pytest.raises(LoadError, match="API keys cannot be read"):
        await make_guard(api_keys_path=str(tmp_path / "none"))


async def test_clients_are_limited_each(keys: Path) -> None:
    """World: 1 a second, burst 2; events: three requests of bob, one of ann; a second later bob again."""
    now = [1000.0]
    guard = await make_guard(now, api_keys_path=str(keys), rate_limit=1, rate_limit_burst=2)
    bob, ann = Credentials(api_key=KEY), Credentials(authorization=b"Bearer " + OTHER)
    guard.admit(bob)
    guard.admit(Credentials(authorization=b"Bearer " + KEY))
    with pytest.raises(ServingError) as caught:
        guard.admit(bob)
    assert caught.value.kind is ErrorKind.RATE_LIMITED
    assert STATUS_OF_KIND[caught.value.kind] == 429
    assert dict(error_headers(caught.value)) == {b"retry-after": b"1"}
    assert guard.counts.limited == 1
    assert guard.admit(ann)
    now[0] += 1.0
    assert guard.admit(bob)
    await guard.close()


async def test_wrong_credentials_do_not_use_a_limit(keys: Path) -> None:
    """Refused before they are counted: nobody can use up another's rate."""
    guard = await make_guard(api_keys_path=str(keys), rate_limit=1, rate_limit_burst=1)
    for _ in range(5):
        with pytest.raises(RefusedError):
            guard.admit(Credentials(api_key=NOBODYS))
    assert guard.admit(Credentials(api_key=KEY))
    await guard.close()


async def test_overrides_are_by_the_name_in_the_audit_log(keys: Path) -> None:
    guard = await make_guard(
        api_keys_path=str(keys),
        rate_limit=1,
        rate_limit_burst=1,
        rate_limit_clients={"key:ann": {"rate": 1, "burst": 3}},
    )
    for _ in range(3):
        assert guard.admit(Credentials(api_key=OTHER))
    with pytest.raises(ServingError):
        guard.admit(Credentials(api_key=OTHER))
    await guard.close()


async def test_memory_is_bounded(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowd of addresses neither fills the memory nor drives the known clients out of it."""
    monkeypatch.setattr(guard_module, "_MOST_REMEMBERED", 10)
    guard = await make_guard(api_keys_path=str(keys), anonymous=True)
    bob = guard.admit(Credentials(api_key=KEY))
    for number in range(100):
        guard.admit(Credentials(address=f"10.0.0.{number}"))
    assert len(guard._addresses) == 10
    assert guard.admit(Credentials(api_key=KEY)) is bob
    await guard.close()


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
    ],
)
def test_addresses_of_one_host_are_limited_together(address: str, network: str) -> None:
    assert network_of(address) == network


async def test_open_paths_need_no_credentials(keys: Path) -> None:
    guard = await make_guard(api_keys_path=str(keys))
    assert guard.is_open("GET", "/v2/health/ready")
    assert guard.is_open("GET", "/metrics")
    assert not guard.is_open("POST", "/predict")
    await guard.close()
    closed = await make_guard(api_keys_path=str(keys), open_paths=("Health",))
    assert not closed.is_open("GET", "/metrics")
    await closed.close()
    off = await make_guard()
    assert off.is_open("POST", "/predict")
