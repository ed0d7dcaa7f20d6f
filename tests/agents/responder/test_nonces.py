"""Nonces: one key, one kind, one use, one minute."""

import pytest

from agents.responder import nonces
from agents.responder.nonces import LIFETIME, Nonces
from tests.support.clock import FakeClock

SPKI, OTHER = b"one", b"two"


def test_a_nonce_is_spent_once() -> None:
    given = Nonces(FakeClock())
    nonce = given.give(SPKI, "client-tls")
    assert len(nonce) == 32
    assert given.spend(nonce, SPKI, "client-tls")
    assert not given.spend(nonce, SPKI, "client-tls")


@pytest.mark.parametrize(
    ("spki", "kind"), [(OTHER, "client-tls"), (SPKI, "hub-tls"), (OTHER, "hub-tls")]
)
def test_a_nonce_is_for_one_key_and_kind(spki: bytes, kind: str) -> None:
    given = Nonces(FakeClock())
    nonce = given.give(SPKI, "client-tls")
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
    nonce = given.give(SPKI, "client-tls")
    clock.move_network(seconds)
    assert given.spend(nonce, SPKI, "client-tls") is good


def test_nonces_differ() -> None:
    given = Nonces(FakeClock())
    assert len({given.give(SPKI, "client-tls") for _ in range(100)}) == 100


def test_a_flood_costs_the_oldest_their_nonce_and_no_more_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nonces, "MAX_NONCES", 10)
    given = Nonces(FakeClock())
    first = given.give(SPKI, "client-tls")
    kept = [given.give(OTHER, "client-tls") for _ in range(10)]
    assert not given.spend(first, SPKI, "client-tls")
    assert all(given.spend(nonce, OTHER, "client-tls") for nonce in kept)


def test_old_nonces_are_forgotten_when_new_ones_are_given() -> None:
    clock = FakeClock()
    given = Nonces(clock)
    for _ in range(5):
        given.give(SPKI, "client-tls")
    clock.move_network(LIFETIME + 1)
    given.give(SPKI, "client-tls")
    assert len(given) == 1
