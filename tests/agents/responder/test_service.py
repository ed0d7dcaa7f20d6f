"""One handler a responder: who the sender is comes from its link, never from the message."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from agents.responder.service import ack_record
from agents.runtime.network import answered
from agents.server.app import Server
from pki.certificates import Kind
from pki.errors import SignatureError
from protocol.access import LinkClass
from protocol.messages import (
    Ack,
    Credential,
    Done,
    Issued,
    LedgerEntries,
    LedgerGet,
    Message,
    Nonce,
    NonceGet,
    Ping,
    Pong,
    Refused,
    Register,
    Registered,
)
from tests.support.clock import START
from tests.support.components import Component, FakeChannel, given, peer_of
from tests.support.servers import enrolled, prepared, shown


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with prepared(tmp_path) as made:
        yield made


async def member(server: Server, component: Component) -> FakeChannel:
    """The member link of a client that has just enrolled."""
    answer = await enrolled(server, component, Kind.CLIENT_TLS)
    assert isinstance(answer, Issued)
    return FakeChannel(peer_of(answer.chain))


def stranger(exporter: bytes = b"\x66" * 32) -> FakeChannel:
    return FakeChannel(None, LinkClass.ENROLMENT, ("127.0.1.12", 5), exporter)


async def say(server: Server, link: FakeChannel, message: Message) -> Message | None:
    return await answered(server.service.handle(link.channel, message))


def last_ack(server: Server, component: Component, *credentials: Credential) -> Ack:
    last = server.authority.chain.last
    return component.ack(server.authority.slot, last.n, last.id, credentials)


async def test_a_ping_is_answered_to_the_component_of_the_link(server: Server) -> None:
    one = Component()
    link = await member(server, one)
    assert await say(server, link, Ping(id=7, sender=one.id)) == Pong(id=7)
    answer = await say(server, link, Ping(id=8, sender=Component().id))
    assert isinstance(answer, Refused)
    assert answer.reason == "identity"


async def test_a_request_is_bound_to_the_link_that_it_came_by(server: Server) -> None:
    component = Component()
    here, elsewhere = stranger(b"\x66" * 32), stranger(b"\x67" * 32)
    for link, good in ((elsewhere, False), (here, True)):
        nonce = await say(server, here, NonceGet(kind="client-tls", spki=component.spki))
        assert isinstance(nonce, Nonce)
        message = component.request(
            Kind.CLIENT_TLS,
            given(nonce),
            deployment=server.trust.deployment,
            issuer=shown(server),
            exporter=here.exporter,
        )
        assert isinstance(await say(server, link, message), Issued) is good


@pytest.mark.req("A7", "B15")
async def test_on_a_member_link_one_renews_ones_own(server: Server) -> None:
    owner, thief = Component(), Component()
    link = await member(server, owner)
    for who, good in ((thief, False), (owner, True)):
        nonce = await say(server, link, NonceGet(kind="client-tls", spki=who.spki))
        assert isinstance(nonce, Nonce)
        message = who.request(
            Kind.CLIENT_TLS,
            given(nonce),
            deployment=server.trust.deployment,
            issuer=shown(server),
            exporter=link.exporter,
        )
        assert isinstance(await say(server, link, message), Issued) is good


async def test_a_request_begun_before_our_own_renewal_is_still_good(server: Server) -> None:
    component, link, before = Component(), stranger(), shown(server)
    nonce = await say(server, link, NonceGet(kind="client-tls", spki=component.spki))
    assert isinstance(nonce, Nonce)
    await server.certify(Kind.SERVER_TLS, "test")
    assert shown(server) != before
    message = component.request(
        Kind.CLIENT_TLS,
        given(nonce),
        deployment=server.trust.deployment,
        issuer=before,
        exporter=link.exporter,
    )
    assert isinstance(await say(server, link, message), Issued)


@pytest.mark.req("F1", "F3")
async def test_a_registration_is_of_the_component_of_the_link(server: Server) -> None:
    component = Component()
    link = await member(server, component)
    message = Register(host="a", port=4000, address="127.0.1.11", full=True)
    answer = await say(server, link, message)
    assert isinstance(answer, Registered)
    assert answer.head == server.trust.latest_head()
    assert answer.observed == link.remote[0]
    assert [row.record.id for row in server.registry.rows()] == [component.id]


@pytest.mark.req("F1")
async def test_a_registration_whose_link_has_ended_is_not_taken(server: Server) -> None:
    link = await member(server, Component())
    message = Register(host="a", port=4000, address="127.0.1.11", full=True)
    link.is_closed = True
    answer = await say(server, link, message)
    assert isinstance(answer, Refused)
    assert answer.reason == "closed"
    assert server.registry.rows() == []


@pytest.mark.req("B12")
async def test_an_acknowledgement_is_kept_if_it_is_the_links_own(server: Server) -> None:
    one, two = Component(), Component()
    link = await member(server, one)
    assert await say(server, link, last_ack(server, one)) == Done()
    answer = await say(server, link, last_ack(server, two))
    assert isinstance(answer, Refused)
    assert answer.reason == "identity"
    kept = server.acknowledgements.of(server.authority.slot)
    assert set(kept) == {one.id}
    assert kept[one.id].role == "client"


@pytest.mark.req("B12")
async def test_an_acknowledgement_that_was_altered_is_refused(server: Server) -> None:
    component = Component()
    link = await member(server, component)
    await server.new_root(bytes(32))
    first = server.authority.chain.entries[0]
    honest = component.ack(server.authority.slot, 0, first.id)
    last = server.authority.chain.last
    for altered in (
        msgspec.structs.replace(honest, n=last.n, entry_id=last.id),
        msgspec.structs.replace(honest, slot=bytes(32)),
        msgspec.structs.replace(honest, spki=Component().spki),
    ):
        answer = await say(server, link, altered)
        assert isinstance(answer, Refused)
        assert answer.reason == "signature"
    assert server.acknowledgements.of(server.authority.slot) == {}


async def test_anybody_reads_the_ledger_and_a_stranger_learns_nothing(server: Server) -> None:
    slot = server.authority.slot
    answer = await say(server, stranger(), LedgerGet(slot=slot, n=0, entry_id=bytes(32)))
    assert isinstance(answer, LedgerEntries)
    assert answer.entries == list(server.authority.chain.encoded)
    assert answer.head == server.trust.latest_head()
    unknown = await say(server, stranger(), LedgerGet(slot=bytes(32), n=0, entry_id=bytes(32)))
    assert unknown == LedgerEntries(slot=bytes(32), first=0, entries=[])


async def test_what_is_not_for_a_responder_is_refused(server: Server) -> None:
    link = await member(server, Component())
    assert isinstance(await say(server, link, Done()), Refused)


def test_an_acknowledgement_is_verified_before_it_is_a_record() -> None:
    component = Component()
    held = Credential(kind="client-tls", key_id=bytes(32), root=bytes(32), not_after=5)
    message = component.ack(bytes(32), 3, b"\x01" * 32, [held])
    record = ack_record(message, role="client", now=START)
    assert (record.component, record.n, record.at) == (component.id, 3, START)
    assert [tuple(one) for one in record.credentials] == [("client-tls", bytes(32), bytes(32), 5)]
    with pytest.raises(SignatureError):
        ack_record(msgspec.structs.replace(message, n=4), role="client", now=START)
