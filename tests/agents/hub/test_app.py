"""A whole hub in this process, between a server and a zone server that tests stand in for."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agents.hub.app import Hub
from agents.hub.config import Config
from agents.member.following import answer_ledger_get
from agents.member.keyring import Keyring
from agents.member.links import Links
from agents.member.member import Member
from agents.member.starting import KEYS, opened
from agents.runtime import logs
from agents.runtime.address import HostPort
from agents.runtime.channel import Channel
from agents.runtime.files import DISK
from agents.runtime.lifecycle import Stop
from agents.runtime.listener import Listener
from agents.runtime.notify import Notifier
from pki.certificates import Kind
from pki.names import Role
from protocol import codec
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.messages import (
    Ack,
    Done,
    HeadNotice,
    LedgerGet,
    Message,
    Nonce,
    NonceGet,
    Refused,
    Relay,
    Relayed,
    Settings,
)
from tests.support.clock import FakeClock
from tests.support.deployment import KINDS, Deployment
from tests.support.links import until

pytestmark = pytest.mark.sockets

HOST = "127.0.0.1"
NONCE = Nonce(nonce=bytes(range(32)))
ASKED = NonceGet(kind=Kind.ZONE_SERVER_TLS.value, spki=b"identity")


class Stand:
    """A server, or a zone server, as far as a hub sees one."""

    def __init__(self, site: Deployment, role: Role, clock: FakeClock) -> None:
        self.member: Member = site.member(role, clock=clock)
        site.certify(self.member.keyring, KINDS[role])
        self.links = Links(self.member.trust)
        self.received: list[Message] = []
        self.opened: list[Channel] = []
        self.takes_acks = True
        self.listener: Listener | None = None

    async def start(self) -> None:
        zone = self.member.role is Role.ZONE_SERVER
        self.listener = await Listener.start(
            HOST,
            0,
            endpoint=self.member.endpoint,
            handler=self.handle,
            verify=self.member.verifier(roles=frozenset({Role.HUB})),
            server_side=not zone,
            classify=(lambda _remote: LinkClass.MEMBER) if zone else None,
            on_channel=self.opened.append,
        )

    @property
    def address(self) -> HostPort:
        assert self.listener is not None
        return HostPort(HOST, self.listener.port)

    @property
    def link(self) -> Channel:
        """The newest link of the hub that is open."""
        return [channel for channel in self.opened if channel.is_open][-1]

    def received_of(self, kind: type[Message]) -> list[Message]:
        return [message for message in self.received if type(message) is kind]

    async def handle(self, _channel: Channel, message: Message) -> Message:
        self.received.append(message)
        match message:
            case LedgerGet():
                return answer_ledger_get(self.member.trust, message)
            case Relay():
                return Relayed(inner_type=NONCE.FRAME, inner=codec.encode_body(NONCE))
            case Ack() if not self.takes_acks:
                return Refused(reason="unavailable", text="no entry that we know", retry_after=1.0)
            case _:
                return Done()

    async def stop(self) -> None:
        if self.listener is not None:
            await self.listener.stop()


class Case:
    def __init__(self, hub: Hub, server: Stand, zone: Stand, site: Deployment) -> None:
        self.hub, self.server, self.zone, self.site = hub, server, zone, site

    async def joined(self) -> None:
        """Wait until it stands between both."""
        await until(lambda: self.hub.uplink.link is not None and bool(self.zone.opened))
        await until(lambda: self.zone.received_of(Settings) != [])


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Case]:
    site, clock = Deployment(), FakeClock()
    server, zone = Stand(site, Role.SERVER, clock), Stand(site, Role.ZONE_SERVER, clock)
    await server.start()
    await zone.start()
    (folder / "init.dat").write_bytes(site.bundle())
    (folder / "state").mkdir(mode=0o700)
    site.certify(Keyring(folder / "state" / KEYS, DISK), Kind.HUB_TLS)
    config = Config(
        server=server.address,
        zone_servers=[zone.address],
        state=folder / "state",
        bundle=folder / "init.dat",
    )
    with opened(
        config.state,
        Role.HUB,
        bundle=config.bundle,
        expect=None,
        clock=clock,
        log=logs.get_logger(),
    ) as (keyring, trust):
        hub = Hub(config, clock, keyring, trust)
        stop = Stop(clock, Notifier(None))
        serving = asyncio.ensure_future(hub.serve(stop))
        try:
            case = Case(hub, server, zone, site)
            await case.joined()
            yield case
            assert not serving.done()
        finally:
            stop.request("test")
            await serving
            await zone.stop()
            await server.stop()


@pytest.mark.req("E2", "I5")
async def test_dials_both_and_listens_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening: list[object] = []
    start = Listener.start

    async def noted(host: str, port: int, **options: object) -> Listener:
        listening.append(options["endpoint"])
        return await start(host, port, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Listener, "start", noted)
    async with running(tmp_path) as case:
        assert case.server.link.link_class is LinkClass.MEMBER
        assert case.zone.link.link_class is LinkClass.MEMBER
        assert listening == [case.server.member.endpoint, case.zone.member.endpoint]


@pytest.mark.req("E2")
async def test_a_zone_servers_request_reaches_the_server_with_its_name(tmp_path: Path) -> None:
    async with running(tmp_path) as case:
        answer = await case.zone.link.request(ASKED)
        assert isinstance(answer, Nonce)
        assert answer.nonce == NONCE.nonce
        (relayed,) = case.server.received_of(Relay)
        assert isinstance(relayed, Relay)
        assert (relayed.proven, relayed.zone) == (True, case.zone.member.id)


async def test_without_the_server_a_zone_server_is_told_to_ask_again(tmp_path: Path) -> None:
    async with running(tmp_path) as case:
        await case.server.stop()
        link = case.hub.uplink.link
        await until(lambda: link is None or link.is_closed)
        answer = await case.zone.link.request(ASKED)
        assert isinstance(answer, Refused)
        assert answer.reason == "unavailable"
        assert answer.retry_after is not None


@pytest.mark.req("B8")
async def test_settings_go_on_to_the_zone_servers(tmp_path: Path) -> None:
    values = {"pki_client_tls_key_duration_days": "3"}
    async with running(tmp_path) as case:
        await case.server.link.request(Settings(revision=5, values=values))
        await until(
            lambda: any(isinstance(m, Settings) and m.values == values for m in case.zone.received)
        )
        assert case.hub.settings.policies()[Kind.CLIENT_TLS].validity.days == 3


@pytest.mark.req("B3", "B10")
async def test_a_head_that_counts_goes_on_and_one_that_does_not_stays(tmp_path: Path) -> None:
    async with running(tmp_path) as case:
        thief = Deployment()
        await case.server.link.request(HeadNotice(head=thief.head))
        await case.server.link.request(HeadNotice(head=case.site.make_head(thief.newest_key)))
        case.site.deny()
        await case.server.link.request(HeadNotice(head=case.site.head))

        def heads() -> set[bytes]:
            return {m.head for m in case.zone.received if isinstance(m, HeadNotice)}

        await until(lambda: case.site.head in heads())
        assert thief.head not in heads()


@pytest.mark.req("B9", "E2")
async def test_after_a_change_of_trust_the_zone_server_gets_a_new_link_first(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as case:
        old = case.zone.link
        case.site.rotate()
        case.site.teach(case.zone.member.trust)
        case.site.teach(case.server.member.trust)
        case.site.teach(case.hub.member.trust)
        await until(lambda: len(case.zone.opened) > 1)
        assert (await old.closed()).code is CloseCode.SUPERSEDED
        assert case.zone.link.is_open


async def test_a_zone_server_reads_the_ledger_of_the_hub_itself(tmp_path: Path) -> None:
    async with running(tmp_path) as case:
        last = case.zone.member.trust.last(case.site.slot)
        asked = LedgerGet(slot=case.site.slot, n=last.n, entry_id=last.id)
        await case.zone.link.request(asked)
        assert case.server.received_of(Relay) == []


@pytest.mark.req("B12")
async def test_what_the_server_does_not_take_is_acknowledged_again(tmp_path: Path) -> None:
    async with running(tmp_path) as case:
        case.server.takes_acks = False
        clock, said = case.hub.clock, case.server.received_of
        assert isinstance(clock, FakeClock)
        await clock.advance_network(1)
        await until(lambda: said(Ack) != [])
        case.server.takes_acks = True
        await until(lambda: (clock.due_network or 60) < 10)  # it waits to try again
        await clock.advance_network(10)
        await until(lambda: len(said(Ack)) > 1)
        assert len(case.server.opened) == 1


async def test_its_end_is_told_to_both(tmp_path: Path) -> None:
    async with running(tmp_path) as case:
        links = [case.server.link, case.zone.link]
    assert [(await link.closed()).code for link in links] == [CloseCode.GOING_AWAY] * 2
    report = json.loads((tmp_path / "state" / "status.json").read_text())
    assert report["role"] == "hub"
