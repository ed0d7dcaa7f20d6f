"""Which acknowledgement of a component is kept."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from agents.member.trust import Trust
from agents.responder.records import AckRecord, Credential
from agents.runtime import logs
from agents.runtime.errors import StateError
from agents.server.acknowledgements import Acknowledgements
from pki import trust as ledger_trust
from pki.ledger import Chain
from tests.pki import lineage as ledgers
from tests.support.clock import START, FakeClock
from tests.support.components import MemoryAcks
from tests.support.files import MemoryFiles

CHAIN = ledgers.honest(3)
FORGED = ledgers.rotate(ledgers.rotate(ledgers.genesis(), more=ledgers.ALIEN))
ID = b"\x01" * 16
HELD = Credential("client-tls", b"\x02" * 32, ledgers.kid(2), 0)


def follower(chain: Chain) -> Trust:
    return Trust(
        ledger_trust.from_chain(chain),
        path=Path("/state/ledger"),
        files=MemoryFiles(),
        clock=FakeClock(),
        log=logs.get_logger(),
    )


def ack(
    n: int, *, chain: Chain = CHAIN, credentials: Sequence[Credential] = (), slot: bytes = b""
) -> AckRecord:
    return AckRecord(
        component=ID,
        slot=slot or chain.slot,
        n=n,
        entry_id=chain.entries[n].id,
        spki=b"spki",
        signature=b"signature",
        role="client",
        credentials=tuple(credentials),
        at=START + timedelta(hours=n),
    )


async def kept(*acks: AckRecord, trust: Trust | None = None) -> AckRecord | None:
    store = MemoryAcks()
    held = Acknowledgements(store)
    for one in acks:
        await held.take(one, trust or follower(CHAIN))
    again = Acknowledgements(store)
    await again.load()
    assert again.of(CHAIN.slot) == held.of(CHAIN.slot)
    return held.of(CHAIN.slot).get(ID)


@pytest.mark.req("B12")
async def test_the_last_one_is_kept() -> None:
    assert await kept(ack(0), ack(1), ack(2)) == ack(2)
    later = ack(2, credentials=[HELD])
    assert await kept(ack(2), later) == later


@pytest.mark.req("B12")
async def test_an_older_one_that_comes_late_changes_nothing() -> None:
    assert await kept(ack(2), ack(1)) == ack(2)


@pytest.mark.req("B12")
async def test_one_that_names_no_entry_of_ours_is_not_kept() -> None:
    assert await kept(ack(2, chain=FORGED)) is None
    assert await kept(ack(1), ack(2, chain=FORGED)) == ack(1)


async def test_slots_that_nobody_knows_fill_nothing() -> None:
    store = MemoryAcks()
    held = Acknowledgements(store)
    for n in range(100):
        await held.take(ack(0, slot=n.to_bytes(32, "big")), follower(CHAIN))
    assert store.acks == {}


async def test_a_smaller_number_is_believed_once_the_greater_one_is_gone() -> None:
    """Rule 9: who had followed a tail that was replaced acknowledges a shorter chain."""
    store = MemoryAcks()
    held = Acknowledgements(store)
    await held.take(ack(2, chain=FORGED), follower(FORGED))
    assert held.of(CHAIN.slot)[ID].n == 2
    await held.take(ack(1), follower(CHAIN))
    assert held.of(CHAIN.slot)[ID] == ack(1)


async def test_another_entry_of_the_same_number_is_another_word() -> None:
    held = Acknowledgements(MemoryAcks())
    await held.take(ack(2, chain=FORGED), follower(FORGED))
    await held.take(ack(2), follower(CHAIN))
    assert held.of(CHAIN.slot) == {ID: ack(2)}


async def test_the_same_one_is_written_once() -> None:
    store = MemoryAcks()
    held = Acknowledgements(store)
    first = ack(2)
    await held.take(first, follower(CHAIN))
    later = AckRecord(**{name: getattr(first, name) for name in first.__slots__} | {"at": START})
    await held.take(later, follower(CHAIN))
    assert store.acks[ID, CHAIN.slot] == first


async def test_one_that_could_not_be_kept_is_kept_when_it_comes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryAcks()
    held, trust = Acknowledgements(store), follower(CHAIN)

    async def full(_ack: AckRecord) -> None:
        raise StateError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "save_ack", full)
        with pytest.raises(StateError):
            await held.take(ack(1), trust)
    assert held.of(CHAIN.slot) == {}
    await held.take(ack(1), trust)
    assert held.of(CHAIN.slot) == {ID: ack(1)}
    assert store.acks[ID, CHAIN.slot] == ack(1)


async def test_a_slot_of_its_own_is_kept_apart() -> None:
    held = Acknowledgements(MemoryAcks())
    await held.take(ack(2), follower(CHAIN))
    assert held.of(bytes(32)) == {}
