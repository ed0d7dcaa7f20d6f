"""Telling everybody: to whom, and over how long what follows is to be spread (B13)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from agents.runtime.errors import StateError, UnavailableError
from agents.runtime.network import answered
from agents.server.app import Server
from agents.server.operations import ServerOperations
from pki.certificates import Kind
from pki.keys import KeyId
from pki.peers import Peer
from protocol.access import LinkClass
from protocol.messages import Done, HeadNotice, Issued, Message, Register, Settings
from tests.support.clock import settle
from tests.support.components import Component, FakeChannel, peer_of
from tests.support.servers import enrolled, prepared

CAPACITY = 200.0


@dataclass(eq=False)
class Listening(FakeChannel):
    """A link that keeps what it is told."""

    told: list[Message] = field(default_factory=list)
    broken: bool = False
    on_closed: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.Future())

    async def request(self, message: Message) -> Message:
        self.told.append(message)
        if self.broken:
            raise UnavailableError("gone")
        return Done()


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with prepared(tmp_path) as made:
        yield made


async def linked(server: Server, kind: Kind, *, stranger: bool = False) -> Listening:
    component = Component()
    answer = await enrolled(server, component, kind)
    if not isinstance(answer, Issued):
        await ServerOperations(server).approvals_decide("me", component.key_id.hex(), "approve", "")
        answer = await enrolled(server, component, kind)
    assert isinstance(answer, Issued)
    peer: Peer | None = None if stranger else peer_of(answer.chain)
    link_class = LinkClass.ENROLMENT if stranger else LinkClass.MEMBER
    link = Listening(peer, link_class)
    server.links.add(link.channel)
    return link


@pytest.mark.req("B3")
async def test_a_head_goes_to_every_member_and_to_no_stranger(server: Server) -> None:
    client, hub = await linked(server, Kind.CLIENT_TLS), await linked(server, Kind.HUB_TLS)
    stranger = await linked(server, Kind.CLIENT_TLS, stranger=True)
    server.announcing.head(b"head")
    await settle()
    assert client.told == hub.told == [HeadNotice(head=b"head")]
    assert stranger.told == []


async def test_one_that_does_not_answer_keeps_nobody_from_hearing(server: Server) -> None:
    links = [await linked(server, Kind.CLIENT_TLS) for _ in range(3)]
    links[0].broken = True
    server.announcing.head(b"head")
    await settle()
    assert [len(link.told) for link in links] == [1, 1, 1]


@pytest.mark.req("B1", "B13")
async def test_a_new_root_is_announced_by_its_own_head_and_a_revocation_is_by_its(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await linked(server, Kind.CLIENT_TLS)
    monkeypatch.setattr(server.registry, "rows", lambda: [None] * 1000)
    old = server.authority.chain.current_root.key_id
    await server.new_root(bytes(32))
    first = server.trust.latest_head()
    await settle()
    assert client.told == [HeadNotice(head=first or b"", spread=1000 / CAPACITY)]
    server.revoke([old], bytes(32))
    await settle()
    assert client.told[1:] == [HeadNotice(head=server.trust.latest_head() or b"", spread=0.0)]


async def test_a_new_root_that_has_happened_is_announced_though_not_all_followed_from_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, happens = await linked(server, Kind.CLIENT_TLS), server.authority.new_root
    monkeypatch.setattr(server.registry, "rows", lambda: [None] * 1000)

    async def unlucky(audit: bytes) -> None:
        await happens(audit)
        raise StateError("the disk is full")

    monkeypatch.setattr(server.authority, "new_root", unlucky)
    with pytest.raises(StateError, match="the disk is full"):
        await server.new_root(bytes(32))
    await settle()
    head = server.trust.latest_head() or b""
    assert client.told == [HeadNotice(head=head, spread=1000 / CAPACITY)]


@pytest.mark.req("B3")
async def test_a_revocation_that_has_happened_is_announced_though_not_all_followed_from_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, happens = await linked(server, Kind.CLIENT_TLS), server.authority.revoke
    monkeypatch.setattr(server.registry, "rows", lambda: [None] * 1000)
    old = server.authority.chain.current_root.key_id
    await server.new_root(bytes(32))

    def unlucky(roots: Sequence[KeyId], audit: bytes) -> None:
        happens(roots, audit)
        raise StateError("the disk is full")

    monkeypatch.setattr(server.authority, "revoke", unlucky)
    with pytest.raises(StateError, match="the disk is full"):
        server.revoke([old], bytes(32))
    await settle()
    assert client.told[1:] == [HeadNotice(head=server.trust.latest_head() or b"", spread=0.0)]


async def test_a_hub_that_comes_after_a_rotation_hears_the_spread_too(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = await linked(server, Kind.HUB_TLS)
    monkeypatch.setattr(server.registry, "rows", lambda: [None] * 1000)
    server.announcing.rotated(b"head")
    server.announcing.greet(hub.channel, b"head")
    await settle()
    assert hub.told[-1] == HeadNotice(head=b"head", spread=1000 / CAPACITY)
    assert server.announcing.spread == 1000 / CAPACITY


@pytest.mark.req("B13")
async def test_renewals_are_spread_by_fleet_and_capacity(server: Server) -> None:
    client = await linked(server, Kind.CLIENT_TLS)
    assert client.peer is not None
    for n in range(4):
        link = await linked(server, Kind.CLIENT_TLS)
        message = Register(host="a", port=4000, address=f"127.0.1.{n + 1}", full=True)
        await answered(server.handle(link.channel, message))
    server.announcing.rotated(b"head")
    await settle()
    assert client.told == [HeadNotice(head=b"head", spread=4 / CAPACITY)]


@pytest.mark.req("B13")
async def test_the_spread_is_at_most_a_quarter_of_the_shortest_window(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await linked(server, Kind.CLIENT_TLS)
    monkeypatch.setattr(server.registry, "rows", lambda: [None] * 10_000_000)
    server.announcing.rotated(b"head")
    await server.settings.set(
        "pki_hub_tls_key_renewal_window_hours", "1", actor="me", at=server.clock.now()
    )
    server.announcing.rotated(b"head")
    await settle()
    quarters = [timedelta(hours=hours).total_seconds() / 4 for hours in (4, 1)]
    assert client.told == [HeadNotice(head=b"head", spread=quarter) for quarter in quarters]


@pytest.mark.req("B13")
async def test_after_a_revocation_nothing_is_spread(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await linked(server, Kind.CLIENT_TLS)
    monkeypatch.setattr(server.registry, "rows", lambda: [None] * 1000)
    server.announcing.rotated(b"one")
    server.announcing.revoked(b"two")
    server.announcing.head(b"three")
    await settle()
    spreads = [notice.spread for notice in client.told if isinstance(notice, HeadNotice)]
    assert spreads == [1000 / CAPACITY, 0.0, 0.0]


@pytest.mark.req("B8")
async def test_settings_go_to_hubs_alone(server: Server) -> None:
    client, hub = await linked(server, Kind.CLIENT_TLS), await linked(server, Kind.HUB_TLS)
    await server.settings.set(
        "pki_client_tls_key_duration_days", "9", actor="me", at=server.clock.now()
    )
    server.announcing.settings()
    await settle()
    assert client.told == []
    (told,) = hub.told
    assert told == Settings(revision=1, values=server.settings.shared())
    assert isinstance(told, Settings)
    assert told.values["pki_client_tls_key_duration_days"] == "9"


async def test_a_hub_that_comes_hears_everything_that_it_passes_on(server: Server) -> None:
    hub = await linked(server, Kind.HUB_TLS)
    server.announcing.greet(hub.channel, b"head")
    await settle()
    assert [type(message) for message in hub.told] == [Settings, HeadNotice]
    hub.told.clear()
    server.announcing.greet(hub.channel, None)
    await settle()
    assert [type(message) for message in hub.told] == [Settings]


@pytest.mark.req("I2", "B3")
async def test_a_denial_is_announced(server: Server) -> None:
    client, hub = await linked(server, Kind.CLIENT_TLS), await linked(server, Kind.HUB_TLS)
    (row,) = await ServerOperations(server).approvals()
    await ServerOperations(server).approvals_decide("me", row["fingerprint"], "revoke", "")
    await settle()
    assert client.told == [HeadNotice(head=server.trust.latest_head() or b"")]
    assert hub.peer is not None
    assert hub.peer.leaf.key_id in server.trust.denied
