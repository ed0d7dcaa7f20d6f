"""Who has followed to a root: from signed acknowledgements, and from nothing else."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from agents.responder.records import AckRecord, Credential
from agents.server.coverage import Component, State, cover
from pki.ledger import Chain
from tests.pki import lineage as ledgers

NOW = datetime(2026, 5, 1, tzinfo=UTC)
CHAIN = ledgers.honest(3)
"""Entry and root n are n."""


def client(number: int = 1, *, present: bool = True, role: str = "client") -> Component:
    return Component(role, bytes([number]) * 16, f"host-{number:02}", present, NOW)


def credential(root: int, kind: str = "client-tls") -> Credential:
    return Credential(kind, b"\x01" * 32, ledgers.kid(root), 0)


def ack(n: int, credentials: Sequence[Credential], *, chain: Chain = CHAIN) -> AckRecord:
    return AckRecord(
        component=bytes([1]) * 16,
        slot=chain.slot,
        n=n,
        entry_id=chain.entries[n].id,
        spki=b"",
        signature=b"",
        role="client",
        credentials=tuple(credentials),
        at=NOW,
    )


@pytest.mark.req("B12")
@pytest.mark.parametrize(
    ("word", "present", "state", "why"),
    [
        (ack(2, [credential(2)]), True, State.MOVED, "acknowledged"),
        (ack(2, [credential(2)]), False, State.MOVED, "acknowledged"),
        (ack(2, [credential(1)]), True, State.MOVING, "client-tls still under an older root"),
        (ack(2, [credential(2), credential(0, "client-ca")]), True, State.MOVING, "client-ca"),
        (
            ack(2, [credential(1), credential(0), credential(0, "client-ca")]),
            True,
            State.MOVING,
            "client-ca, client-tls still under an older root",
        ),
        (ack(2, []), True, State.MOVING, "no certificate yet"),
        (ack(1, [credential(2)]), True, State.MOVING, "acknowledged entry 1, this root is entry 2"),
        (ack(1, [credential(1)]), False, State.OFFLINE, "offline, will follow: acknowledged"),
        (None, True, State.MOVING, "never acknowledged"),
        (None, False, State.OFFLINE, "offline, will follow: never acknowledged"),
    ],
)
def test_the_state_of_one(word: AckRecord | None, present: bool, state: State, why: str) -> None:
    one = client(present=present)
    coverage = cover(CHAIN, ledgers.kid(2), [one], {} if word is None else {one.id: word})
    (row,) = coverage.rows
    assert row.state is state
    assert why in row.why
    assert (coverage.behind == ()) == (state is State.MOVED)


@pytest.mark.req("B12")
def test_who_is_at_a_newer_root_has_moved_past_an_older_one() -> None:
    one = client()
    acks = {one.id: ack(2, [credential(2)])}
    assert [cover(CHAIN, ledgers.kid(n), [one], acks).behind for n in range(3)] == [()] * 3
    acks = {one.id: ack(1, [credential(1)])}
    assert [len(cover(CHAIN, ledgers.kid(n), [one], acks).behind) for n in range(3)] == [0, 0, 1]


@pytest.mark.req("B12")
def test_an_acknowledgement_of_a_forged_entry_moves_nobody() -> None:
    forged = ledgers.rotate(ledgers.rotate(ledgers.genesis(), more=ledgers.ALIEN))
    one = client()
    acks = {one.id: ack(2, [credential(2)], chain=forged)}
    (row,) = cover(CHAIN, ledgers.kid(2), [one], acks).rows
    assert row.state is State.MOVING


@pytest.mark.req("B12")
def test_the_acknowledgement_of_one_moves_no_other() -> None:
    one, two = client(1), client(2)
    rows = cover(CHAIN, ledgers.kid(2), [one, two], {one.id: ack(2, [credential(2)])}).rows
    assert {row.component.host: row.state for row in rows} == {
        "host-01": State.MOVED,
        "host-02": State.MOVING,
    }


@pytest.mark.req("B12")
def test_counts_are_by_role_and_those_behind_come_first() -> None:
    everybody = [
        client(1),
        client(2, present=False),
        client(3),
        client(4, role="hub"),
        client(5, role="zone-server", present=False),
    ]
    acks = {everybody[0].id: ack(2, [credential(2)]), everybody[3].id: ack(2, [credential(2)])}
    coverage = cover(CHAIN, ledgers.kid(2), everybody, acks)
    assert {role: dict(count) for role, count in coverage.counts().items()} == {
        "client": {"moved": 1, "moving": 1, "offline": 1},
        "hub": {"moved": 1},
        "zone-server": {"offline": 1},
    }
    assert [row.component.host for row in coverage.rows] == [
        "host-03",
        "host-02",
        "host-05",
        "host-01",
        "host-04",
    ]
    assert len(coverage.behind) == 3
    assert (coverage.root, coverage.name) == (ledgers.kid(2), "s.example Root 2")


@pytest.mark.req("B12")
def test_in_each_state_roles_are_together_and_their_hosts_in_order() -> None:
    everybody = [client(3), client(1, role="hub"), client(4), client(2)]
    coverage = cover(CHAIN, ledgers.kid(2), everybody, {})
    hosts = [(row.component.role, row.component.host) for row in coverage.rows]
    assert hosts == [
        ("client", "host-02"),
        ("client", "host-03"),
        ("client", "host-04"),
        ("hub", "host-01"),
    ]
