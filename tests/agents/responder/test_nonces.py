"""Nonces: one key, one kind, one use, one minute."""

import pytest

from agents.responder import nonces
from agents.responder.nonces import LIFETIME, MAX_HELD, Nonces
from tests.support.clock import FakeClock

SPKI, OTHER = b"one", b"two"
LINK = "5f2c0001"


def test_a_nonce_is_spent_once() -> None:
    given = Nonces(FakeClock())
    nonce = given.give(SPKI, "client-tls", LINK)
    assert len(nonce) == 32
    assert given.spend(nonce, SPKI, "client-tls")
    assert not given.spend(nonce, SPKI, "client-tls")


@pytest.mark.parametrize(
    ("spki", "kind"), [(OTHER, "client-tls"), (SPKI, "hub-tls"), (OTHER, "hub-tls")]
)
def test_a_nonce_is_for_one_key_and_kind(spki: bytes, kind: str) -> None:
    given = Nonces(FakeClock())
    nonce = given.give(SPKI, "client-tls", LINK)
    assert not given.spend(nonce, spki, kind)
    # And whoever tried has used it up: a nonce is never tried twice.
    assert not given.spend(nonce, SPKI, "client-tls")


def test_a_nonce_of_nobody_is_none() -> None:
    assert not Nonces(FakeClock()).spend(bytes(32), SPKI, "client-tls")
    assert not Nonces(FakeClock()).spend(bytes(32), b"", "")


@pytest.mark.parametrize(("seconds", "good"), [(LIFETIME, True), (LIFETIME + 0.001, False)])
def test_a_nonce_is_good_for_a_minute_of_network_time(seconds: float, good: bool) -> None:
    clock = FakeClock()
    given = Nonces(clock)
    nonce = given.give(SPKI, "client-tls", LINK)
    clock.move_network(seconds)
    assert given.spend(nonce, SPKI, "client-tls") is good


def test_nonces_differ() -> None:
    given = Nonces(FakeClock())
    assert len({given.give(SPKI, "client-tls", LINK) for _ in range(100)}) == 100


@pytest.mark.req("E6")
def test_a_flood_on_one_link_costs_nobody_else_a_nonce() -> None:
    given = Nonces(FakeClock())
    first = given.give(SPKI, "client-tls", LINK)
    flood = [given.give(OTHER, "client-tls", "another") for _ in range(100)]
    assert given.spend(first, SPKI, "client-tls")
    good = [given.spend(nonce, OTHER, "client-tls") for nonce in flood]
    assert good == [False] * (100 - MAX_HELD) + [True] * MAX_HELD
    assert len(given) == 0


def test_a_flood_on_many_links_costs_the_oldest_their_nonce_and_no_more_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nonces, "MAX_NONCES", 10)
    given = Nonces(FakeClock())
    first = given.give(SPKI, "client-tls", LINK)
    kept = [given.give(OTHER, "client-tls", str(number)) for number in range(10)]
    assert not given.spend(first, SPKI, "client-tls")
    assert all(given.spend(nonce, OTHER, "client-tls") for nonce in kept)


def test_old_nonces_are_forgotten_when_new_ones_are_given() -> None:
    clock = FakeClock()
    given = Nonces(clock)
    for _ in range(5):
        given.give(SPKI, "client-tls", LINK)
    clock.move_network(LIFETIME + 1)
    given.give(SPKI, "client-tls", LINK)
    assert len(given) == 1
