"""Equal requests in the air: who leads, who joins, who is told what."""

import logging

import pytest

from canarium_runtime.caching.flights import ABANDONED, Abandoned, SingleFlight

Told = list[str | Abandoned]


def make(now: list[float] | None = None) -> SingleFlight[str]:
    times = now if now is not None else [0.0]
    return SingleFlight(10.0, lambda: times[0])


def test_the_first_leads_and_all_others_get_its_outcome() -> None:
    """One run, three answers; the leader itself is not called."""
    flights, told, leader = make(), Told(), Told()
    assert not flights.join(b"k", leader.append)
    assert flights.join(b"k", told.append)
    assert flights.join(b"k", told.append)
    flights.land(b"k", "answer")
    assert (told, leader) == (["answer", "answer"], [])
    assert (len(flights), flights.joined) == (0, 2)


def test_different_keys_do_not_meet() -> None:
    """Each key has a flight of its own."""
    flights, told = make(), Told()
    assert not flights.join(b"k", told.append)
    assert not flights.join(b"l", told.append)
    flights.land(b"l", "other")
    assert (told, len(flights)) == ([], 1)


def test_when_the_leader_leaves_the_next_one_to_join_leads() -> None:
    """A client that hangs up fails nobody else: of those who joined, one leads and the rest join it."""
    flights, answers = make(), Told()
    leaders = []

    def request(name: str) -> None:
        def done(outcome: str | Abandoned) -> None:
            if isinstance(outcome, Abandoned):
                request(name)
            else:
                answers.append(outcome)

        if not flights.join(b"k", done):
            leaders.append(name)

    for name in ("first", "second", "third"):
        request(name)
    flights.abandon(b"k")
    assert leaders == ["first", "second"]
    flights.land(b"k", "answer")
    assert answers == ["answer"]


def test_one_who_leaves_is_not_told() -> None:
    """Its client is gone; the others are told, and leaving again, or after the landing, is nothing."""
    flights, gone, told = make(), Told(), Told()
    flights.join(b"k", told.append)
    flights.join(b"k", gone.append)
    flights.join(b"k", told.append)
    flights.leave(b"k", gone.append)
    flights.leave(b"k", gone.append)
    flights.land(b"k", "answer")
    flights.leave(b"k", told.append)
    assert (told, gone) == (["answer"], [])


def test_landing_twice_tells_once() -> None:
    """A leader that lands and then fails, or abandons what has landed, disturbs nobody, not even the next flight."""
    flights, told = make(), Told()
    flights.join(b"k", told.append)
    flights.join(b"k", told.append)
    flights.land(b"k", "answer")
    flights.land(b"k", "again")
    flights.abandon(b"k")
    assert told == ["answer"]


def test_one_who_cannot_take_its_answer_does_not_keep_it_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its error is logged, and everybody after it is told."""
    flights, told = make(), Told()

    def broken(_: str | Abandoned) -> None:
        raise RuntimeError

    flights.join(b"k", told.append)
    flights.join(b"k", broken)
    flights.join(b"k", told.append)
    with caplog.at_level(logging.ERROR):
        flights.land(b"k", "answer")
    assert told == ["answer"]
    assert "failed to take its answer" in caplog.text


def test_a_leader_that_is_lost_does_not_hold_its_key_for_ever() -> None:
    """After its longest time the next request leads, and those who joined before get its answer."""
    now = [0.0]
    flights, told = make(now), Told()
    flights.join(b"k", told.append)
    assert flights.join(b"k", told.append)
    now[0] = 10.1
    assert not flights.join(b"k", told.append)
    assert flights.join(b"k", told.append)
    flights.land(b"k", "answer")
    assert told == ["answer", "answer"]


def test_abandoned_is_easy_to_read() -> None:
    """Its repr is its name."""
    assert repr(ABANDONED) == "ABANDONED"
