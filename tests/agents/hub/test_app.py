"""A whole hub in this process, between a server and a zone server that tests stand in for."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agents.hub.app import Hub, run
from agents.hub.config import Config
from agents.member.following import answer_ledger_get
from agents.member.keyring import Keyring
from agents.member.links import Links
from agents.member.member import Member
from agents.member.starting import KEYS, opened
from agents.runtime import logs
from agents.runtime.address import HostPort
from agents.runtime.channel import Channel
from agents.runtime.errors import StateError
from agents.runtime.files import DISK
from agents.runtime.lifecycle import Stop
from agents.runtime.listener import Listener
from agents.runtime.notify import Notifier
from agents.runtime.statefiles import STATUS
from pki.certificates import Kind
from pki.keys import KeyId
from pki.names import Role
from protocol import codec
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.messages import (
    Ack,
    Done,
    HeadNotice,
    LedgerEntries,
    LedgerGet,
    Message,
    Nonce,
    NonceGet,
    Ping,
    Pong,
    Refused,
    Register,
    Relay,
    Relayed,
    Report,
    Settings,
)
from tests.support.channels import FakeChannel
from tests.support.clock import FakeClock, settle
from tests.support.components import Component
from tests.support.deployment import KINDS, Deployment
from tests.support.links import until
from tests.support.logs import logged

pytestmark = pytest.mark.sockets

HOST = "127.0.0.1"
NONCE = Nonce(nonce=bytes(range(32)))
ASKED = NonceGet(kind=Kind.ZONE_SERVER_TLS.value, spki=b"identity")


class Stand:
    """A server, or a zone server, as far as a hub sees one."""

    def __init__(
        self, site: Deployment, role: Role, clock: FakeClock, *, shows: Role | None = None
    ) -> None:
        self.role = role
        self.member: Member = site.member(shows or role, clock=clock)
        site.certify(self.member.keyring, KINDS[shows or role])
        self.links = Links(self.member.trust)
        self.received: list[Message] = []
        self.opened: list[Channel] = []
        self.takes_acks = True
        self.asks_for = LinkClass.MEMBER
        self.listener: Listener | None = None

    async def start(self) -> None:
        zone = self.role is Role.ZONE_SERVER
        self.listener = await Listener.start(
            HOST,
            0,
            endpoint=self.member.endpoint,
            handler=self.handle,
            verify=self.member.verifier(roles=frozenset({Role.HUB})),
            server_side=not zone,
            classify=(lambda _remote: self.asks_for) if zone else None,
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
            case NonceGet():
                return Refused(reason="approval", text="not yet", retry_after=100.0)
            case Ack() if not self.takes_acks:
                return Refused(reason="unavailable", text="no entry that we know", retry_after=1.0)
            case _:
                return Done()

    async def stop(self) -> None:
        if self.listener is not None:
            await self.listener.stop()


class Case:
    def __init__(
        self, hub: Hub, server: Stand, zones: list[Stand], site: Deployment, clock: FakeClock
    ) -> None:
        self.hub, self.server, self.zones, self.site = hub, server, zones, site
        self.clock = clock

    @property
    def zone(self) -> Stand:
        return self.zones[0]

    @property
    def report(self) -> dict[str, Any]:
        """What it says of itself."""
        report: dict[str, Any] = json.loads((self.hub.config.state / STATUS).read_text())
        return report

    async def joined(self) -> None:
        """Wait until it stands between all."""
        await until(lambda: self.hub.uplink.link is not None)
        for zone in self.zones:
            await until(lambda zone=zone: zone.received_of(Settings) != [])  # type: ignore[misc]  # a default is the loop's own


@asynccontextmanager
async def running(
    folder: Path,
    *,
    zones: int = 1,
    certified: bool = True,
    server_shows: Role | None = None,
    zone_shows: Role | None = None,
) -> AsyncIterator[Case]:
    """A hub that has joined them, if they are who they should be."""
    site, clock = Deployment(), FakeClock()
    server = Stand(site, Role.SERVER, clock, shows=server_shows)
    behind = [Stand(site, Role.ZONE_SERVER, clock, shows=zone_shows) for _ in range(zones)]
    for stand in (server, *behind):
        await stand.start()
    (folder / "init.dat").write_bytes(site.bundle())
    (folder / "state").mkdir(mode=0o700)
    if certified:
        site.certify(Keyring(folder / "state" / KEYS, DISK), Kind.HUB_TLS)
    config = Config(
        server=server.address,
        zone_servers=[zone.address for zone in behind],
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
            case = Case(hub, server, behind, site, clock)
            if certified and server_shows is None and zone_shows is None:
                await case.joined()
            yield case
            assert not serving.done()
        finally:
            stop.request("test")
            await serving
            for stand in (*behind, server):
                await stand.stop()


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
        answer = await case.zone.link.request(asked)
        assert isinstance(answer, LedgerEntries)
        assert answer.head == case.site.head
        assert case.server.received_of(Relay) == []


@pytest.mark.req("B12")
async def test_what_the_server_does_not_take_is_acknowledged_again(tmp_path: Path) -> None:
    async with running(tmp_path) as case:
        case.server.takes_acks = False
        clock, said = case.clock, case.server.received_of
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
        await case.clock.advance_network(5)
        assert len(case.report["links"]) == 2
    await until(lambda: all(link.is_closed for link in links))
    ends = [await link.closed() for link in links]
    assert [(end.code, end.by_peer) for end in ends] == [(CloseCode.GOING_AWAY, True)] * 2
    assert case.report["role"] == "hub"
    assert case.report["links"] == []


async def test_what_it_left_behind_ends_with_it(tmp_path: Path) -> None:
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")

    async with running(tmp_path) as case:
        case.hub.tasks.spawn(endless())
        await settle()
        assert ended == []
    assert ended == ["ended"]


@pytest.mark.req("E2")
async def test_each_zone_server_has_a_link_and_hears_all(tmp_path: Path) -> None:
    values = {"pki_client_tls_key_duration_days": "3"}
    async with running(tmp_path, zones=2) as case:
        await case.server.link.request(Settings(revision=5, values=values))
        for zone in case.zones:
            assert zone.link.link_class is LinkClass.MEMBER
            await until(lambda zone=zone: _settings(zone)[-1] == values)  # type: ignore[misc]  # as above
            await until(lambda zone=zone: zone.received_of(HeadNotice) != [])  # type: ignore[misc]  # as above


async def test_a_setting_that_a_hub_does_not_know_goes_no_further(tmp_path: Path) -> None:
    known = {"pki_client_tls_key_duration_days": "3"}
    async with running(tmp_path) as case:
        await case.server.link.request(Settings(revision=5, values={**known, "unknown": "1"}))
        await until(lambda: len(_settings(case.zone)) > 1)
        assert _settings(case.zone)[-1] == known


def _settings(zone: Stand) -> list[dict[str, str]]:
    return [message.values for message in zone.received if isinstance(message, Settings)]


@pytest.mark.req("B8", "B7")
async def test_settings_that_are_told_act_on_its_own_renewal(tmp_path: Path) -> None:
    async with running(tmp_path) as case:
        await until(lambda: case.hub.renewal.next_at is not None)
        before = case.hub.renewal.next_at
        assert before is not None
        values = {"pki_hub_tls_key_renewal_window_hours": "100"}
        await case.server.link.request(Settings(revision=5, values=values))
        await until(lambda: case.hub.renewal.next_at != before)
        now = case.hub.renewal.next_at
        assert now is not None
        assert now < before - timedelta(hours=40)


@pytest.mark.req("B7")
async def test_a_new_root_has_it_renew_its_certificate(tmp_path: Path) -> None:
    async with running(tmp_path) as case:
        await until(lambda: case.hub.renewal.next_at is not None)
        await settle()
        case.site.rotate()
        case.site.teach(case.server.member.trust)
        case.site.teach(case.hub.member.trust)
        await until(lambda: case.server.received_of(NonceGet) != [])


async def test_until_it_has_a_certificate_one_room_alone_asks_for_it(tmp_path: Path) -> None:
    async with running(tmp_path, certified=False) as case:
        with logged() as lines:
            await until(lambda: any(line["event"] == "uplink.unavailable" for line in lines))
            await settle()
        assert len(case.server.received_of(NonceGet)) == 1
        assert case.zone.opened == []


@pytest.mark.req("B3", "I2")
async def test_a_link_that_trust_covers_no_more_is_ended(tmp_path: Path) -> None:
    async with running(tmp_path) as case:
        links = {case.zone: case.zone.link, case.server: case.server.link}
        await settle()
        held = [stand.member.keyring.credential(KINDS[stand.role]) for stand in links]
        case.site.deny(*(one.leaf.key_id for one in held if one is not None))
        case.site.teach(case.hub.member.trust)
        await until(lambda: all(link.is_closed for link in links.values()))
        ends = [await link.closed() for link in links.values()]
        assert [(end.code, end.by_peer) for end in ends] == [(CloseCode.REVOKED, True)] * 2


async def test_one_that_has_proven_nothing_is_told_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as case:
        before = list(case.zone.received)
        case.zone.asks_for = LinkClass.ENROLMENT
        with logged() as lines:
            case.zone.link.close()
            await until(lambda: len(case.zone.opened) > 1)
            assert isinstance(await case.zone.link.request(ASKED), Nonce)
            await settle()
        assert case.zone.received == before
        assert [line for line in lines if line["event"] == "task.failed"] == []


@pytest.mark.req("A12")
@pytest.mark.parametrize("shows", [Role.HUB, Role.ZONE_SERVER])
async def test_who_is_no_server_is_not_reported_to(tmp_path: Path, shows: Role) -> None:
    with logged() as lines:
        async with running(tmp_path, server_shows=shows) as case:
            await until(lambda: any(line["event"] == "uplink.unavailable" for line in lines))
            assert case.hub.uplink.link is None
    said = {line["got"] for line in lines if line["event"] == "link.refused"}
    assert f"expected server, got {shows}" in said


@pytest.mark.req("A12", "E5")
@pytest.mark.parametrize("shows", [Role.HUB, Role.SERVER])
async def test_who_is_no_zone_server_is_not_spoken_for(tmp_path: Path, shows: Role) -> None:
    with logged() as lines:
        async with running(tmp_path, zone_shows=shows) as case:
            await until(lambda: any(line["event"] == "zone.unavailable" for line in lines))
            assert case.hub.links.of(case.zone.member.id) == []
            assert case.zone.received == []
    (line,) = [
        line
        for line in lines
        if line["event"] == "link.refused" and line["kind"] == "hub to zone server"
    ]
    assert line["expected"] == "a zone server of ours"
    assert line["got"] == f"expected zone-server, got {shows}"


async def test_either_side_may_ask_whether_it_is_there(tmp_path: Path) -> None:
    async with running(tmp_path) as case:
        for stand in (case.server, case.zone):
            answer = await stand.link.request(Ping(id=7, sender=stand.member.id))
            assert isinstance(answer, Pong)
            assert answer.id == 7
            answer = await stand.link.request(Ping(id=7, sender=bytes(16)))
            assert isinstance(answer, Refused)


@pytest.mark.req("E2")
async def test_everything_that_a_zone_server_asks_of_a_server_reaches_it(tmp_path: Path) -> None:
    one = Component()
    nobody = one.request(Kind.CLIENT_CA, bytes(32), deployment=bytes(16), issuer=KeyId(bytes(32)))
    asked = [ASKED, nobody, one.ack(bytes(32), 0, bytes(32)), Report()]
    async with running(tmp_path) as case:
        for message in asked:
            await case.zone.link.request(message)
        relayed = [m for m in case.server.received if isinstance(m, Relay)]
        assert [message.inner_type for message in relayed] == [m.FRAME for m in asked]


@pytest.mark.parametrize("message", [Register(), Done()])
async def test_what_is_not_for_a_hub_is_refused_by_its_name(
    tmp_path: Path, message: Message
) -> None:
    async with running(tmp_path) as case:
        for handle in (case.hub.handle_server, case.hub.handle_zone):
            answer = await handle(FakeChannel().channel, message)
            assert isinstance(answer, Refused)
            assert answer.reason == "unknown"
            assert type(message).__name__ in answer.text
        assert case.server.received_of(Relay) == []


async def test_its_report_says_where_it_stands(tmp_path: Path) -> None:
    async with running(tmp_path) as case:
        await until(lambda: case.hub.renewal.next_at is not None)
        await case.clock.advance_network(5)
        report, next_at = case.report, case.hub.renewal.next_at
        assert next_at is not None
        assert report["server"] == str(case.server.address)
        assert report["zone_servers"] == [str(case.zone.address)]
        assert {row["kind"] for row in report["keys"]} == {"hub-tls"}
        assert [row["next_renewal"] for row in report["keys"]] == [next_at.isoformat()]


# --- its start


def _alone(folder: Path, **options: str) -> Config:
    return Config(
        server=HostPort(HOST, 9),
        zone_servers=[HostPort(HOST, 9)],
        state=folder / "state",
        bundle=folder / "init.dat",
        **options,  # type: ignore[arg-type]  # texts, all of them
    )


async def _run(config: Config, clock: FakeClock) -> None:
    stop = Stop(clock, Notifier(None))
    stop.request("test")
    await run(config, clock=clock, stop=stop)


@pytest.mark.req("D5")
async def test_a_bundle_of_another_deployment_than_demanded_is_refused(tmp_path: Path) -> None:
    site, config = Deployment(), _alone(tmp_path, expect_fingerprint="ab" * 32)
    config.bundle.write_bytes(site.bundle())
    with pytest.raises(StateError, match="expected abab"):
        await _run(config, FakeClock())


@pytest.mark.req("D3")
@pytest.mark.parametrize("own", [None, "error"])
async def test_its_bundle_says_how_much_is_logged_where_nothing_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    said: list[str] = []
    monkeypatch.setattr(logs, "set_level", said.append)
    config = _alone(tmp_path) if own is None else _alone(tmp_path, log_level=own)
    config.bundle.write_bytes(Deployment().bundle({"log_level": "debug"}))
    await _run(config, FakeClock())
    assert said == (["debug"] if own is None else [])
