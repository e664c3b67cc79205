"""Laws of who gets which version in an A/B test."""

import re
from http.cookies import SimpleCookie

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canarium_api.matching import COOKIE_VALUE_PATTERN, HEADER_PATTERN
from canarium_api.split import Split
from canarium_operator.core.resources.route import cookie_pattern
from canarium_runtime.router import assignment

KEYS = st.binary(min_size=1, max_size=64)
SHARES = st.integers(0, 100)
NAMES = st.from_regex(HEADER_PATTERN, fullmatch=True).filter(
    lambda n: len(n) <= 40 and "\n" not in n
)
VALUES = st.from_regex(COOKIE_VALUE_PATTERN, fullmatch=True).filter(lambda v: "\n" not in v)


def split(share: int, canary: str = "abcdef0123") -> Split:
    return Split(stable="0123456789", canary=canary, share=share, key="x-user-id")


@given(KEYS, SHARES, SHARES)
def test_a_larger_share_never_takes_a_user_back(key: bytes, one: int, other: int) -> None:
    """Who has B at a share has it at every larger one; and the same key gets the same version again."""
    smaller, larger = sorted((one, other))
    before = assignment.gets_canary("ml/fraud", split(smaller), key)
    assert before == assignment.gets_canary("ml/fraud", split(smaller), key)
    assert not before or assignment.gets_canary("ml/fraud", split(larger), key)


@given(KEYS)
def test_nobody_gets_b_at_0_and_everybody_at_100(key: bytes) -> None:
    """The ends of the scale."""
    assert not assignment.gets_canary("ml/fraud", split(0), key)
    assert assignment.gets_canary("ml/fraud", split(100), key)


@pytest.mark.parametrize("share", [1, 10, 50, 90])
def test_of_100_000_users_the_share_gets_b(share: int) -> None:
    """Within three standard deviations, for keys as they are in life: numbers in a row."""
    users = 100_000
    got = sum(assignment.gets_canary("ml/fraud", split(share), b"%d" % n) for n in range(users))
    sigma = (users * share / 100 * (1 - share / 100)) ** 0.5
    assert abs(got - users * share / 100) <= 3 * sigma


def test_each_test_chooses_its_own_users() -> None:
    """Another object, or another version, is another draw: half of one half."""
    draws = [
        ("ml/fraud", split(50)),
        ("ml/offers", split(50)),
        ("ml/fraud", split(50, "fedcba9876")),
    ]
    users = 20_000
    of = [{n for n in range(users) if assignment.gets_canary(d, s, b"%d" % n)} for d, s in draws]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        both = len(of[one] & of[other])
        assert abs(both - users / 4) <= 4 * (users * 3 / 16) ** 0.5


def test_the_places_do_not_change() -> None:
    """A new release of the router must not move anybody: these are for ever."""
    places = [assignment.place("ml/fraud abcdef0123", key) for key in (b"ana", b"ben", b"42")]
    assert places == PLACES


PLACES = [8909, 5400, 1109]


@given(
    split_=st.builds(
        Split,
        stable=st.from_regex(r"[0-9a-f]{6,64}", fullmatch=True),
        canary=st.from_regex(r"[0-9a-f]{6,64}", fullmatch=True),
        share=SHARES,
        key=NAMES,
        is_cookie=st.booleans(),
    )
)
def test_a_split_is_read_as_it_was_written(split_: Split) -> None:
    """Whatever the route can say, the router understands."""
    assert Split.parse(split_.render()) == split_


@given(st.text(max_size=200))
def test_what_no_route_says_is_refused(text: str) -> None:
    """Nothing but a split with two revisions: no address can be smuggled in."""
    try:
        found = Split.parse(text)
    except ValueError:
        return
    assert re.fullmatch(r"[0-9a-f]{6,64}", found.stable)
    assert re.fullmatch(r"[0-9a-f]{6,64}", found.canary)


@given(NAMES, VALUES, st.lists(st.tuples(NAMES, VALUES), max_size=4), st.integers(0, 4))
def test_the_cookie_pattern_finds_the_cookie_and_nothing_else(
    name: str, value: str, others: list[tuple[str, str]], at: int
) -> None:
    """It means the same whether a gateway searches (Go) or matches the whole value (Envoy)."""
    pattern = re.compile(cookie_pattern(name, value))
    without = "; ".join(f"{n}={v}" for n, v in others if (n, v) != (name, value))
    assert bool(pattern.search(without)) == bool(pattern.fullmatch(without)) is False
    pairs = [*others[:at], (name, value), *others[at:]]
    for joint in ("; ", ";"):
        header = joint.join(f"{n}={v}" for n, v in pairs)
        assert pattern.search(header)
        assert pattern.fullmatch(header)


@given(NAMES.filter(lambda n: n.isalnum()), VALUES.filter(str.isalnum))
def test_a_key_in_a_cookie_is_found_as_browsers_send_it(name: str, value: str) -> None:
    """Beside other cookies, in quotes or not."""
    jar = SimpleCookie({"first": "1", name: value})
    header = "; ".join(f"{n}={m.coded_value}" for n, m in jar.items()).encode()
    told = Split(stable="a" * 10, canary="b" * 10, share=50, key=name, is_cookie=True)
    if name != "first":
        assert assignment.key_of([(b"cookie", header)], told) == value.encode()
    assert assignment.key_of([(b"cookie", b"none=1")], told) in (
        None,
        b"1" if name == "none" else None,
    )
