"""A whole server in this process, with its port, its socket and its loops, and who comes to it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from agents.member.keyring import Keyring
from agents.member.links import SETTLED
from agents.member.member import Member
from agents.member.requesting import standing_of
from agents.member.trust import Trust
from agents.member.uplink import Uplink
from agents.runtime import logs
from agents.runtime.channel import Channel
from agents.runtime.errors import UnavailableError
from agents.runtime.lifecycle import Stop
from agents.runtime.listener import Listener
from agents.runtime.network import DialError
from agents.runtime.notify import Notifier
from agents.runtime.statefiles import STATUS
from agents.runtime.tasks import Tasks
from agents.server.app import Server
from agents.server.operations import ServerOperations
from pki import keys
from pki import trust as ledger_trust
from pki.certificates import Kind
from pki.names import Role
from protocol.codes import CloseCode
from protocol.messages import (
    Done,
    HeadNotice,
    Message,
    Settings,
)
from tests.support.clock import FakeClock, settle
from tests.support.deployment import KINDS, passes_nothing_on
from tests.support.files import MemoryFiles
from tests.support.links import until
from tests.support.logs import logged
from tests.support.servers import prepared, shown

pytestmark = pytest.mark.sockets


class Ready(Stop):
    """Notes what was there when the daemon said that it was ready."""

    def __init__(self, clock: FakeClock, server: Server) -> None:
        super().__init__(clock, Notifier(None))
        self.server = server
        self.found: set[str] | None = None

    def ready(self, status: str = "") -> None:
        config = self.server.config
        self.found = {p.name for p in (config.state / STATUS, config.socket) if p.exists()}
        super().ready(status)


class Peer:
    """A component that has followed so far, and what it was told."""

    def __init__(self, server: Server, role: Role, clock: FakeClock) -> None:
        log, files = logs.get_logger(), MemoryFiles()
        self.server, self.told = server, list[Message]()
        head = server.trust.latest_head()
        trust = Trust(
            ledger_trust.from_chain(server.authority.chain, head=head),
            path=Path("/peer/ledger"),
            files=files,
            clock=clock,
            log=log,
        )
        self.member = Member(
            role,
            KINDS[role],
            keyring=Keyring(Path("/peer/keys.db"), files),
            trust=trust,
            clock=clock,
            log=log,
            tasks=Tasks(clock, log),
            relay=passes_nothing_on,
        )
        assert server.listener is not None
        port = server.listener.port
        self.uplink = Uplink(
            self.member,
            addresses=lambda: [("127.0.0.1", port)],
            roles=frozenset({Role.SERVER}),
            handler=self._answer,
            kind=KINDS[role],
        )

    async def connect(self) -> Channel:
        """Whatever it takes to stand on a member link."""
        try:
            return await self.uplink.connect()
        except UnavailableError:
            key_id = keys.key_id(self.member.keyring.identity_spki)
            await ServerOperations(self.server).approvals_decide("me", key_id.hex(), "approve", "")
            return await self.uplink.connect()

    def told_of(self, kind: type[Message]) -> list[Message]:
        return [message for message in self.told if type(message) is kind]

    async def _answer(self, _channel: Channel, message: Message) -> Message:
        self.told.append(replace(message, call=0, trace=""))
        return Done()


class Case:
    def __init__(self, server: Server, clock: FakeClock, stop: Ready) -> None:
        self.server, self.clock, self.stop = server, clock, stop
        self.operations = ServerOperations(server)

    @property
    def report(self) -> dict[str, Any]:
        """What it says of itself."""
        report: dict[str, Any] = json.loads((self.server.config.state / STATUS).read_text())
        return report

    def peer(self, role: Role) -> Peer:
        return Peer(self.server, role, self.clock)

    async def joined(self, role: Role) -> tuple[Peer, Channel, Channel]:
        """A component, its link, and the server's end of that."""
        peer = self.peer(role)
        link = await peer.connect()
        (end,) = self.server.links.of(peer.member.id)
        return peer, link, end


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Case]:
    clock = FakeClock()
    async with prepared(folder, clock=clock) as server:
        stop = Ready(clock, server)

        async def serve() -> None:
            async with AsyncExitStack() as stack:
                await server.serve(stop, stack)

        served = asyncio.ensure_future(serve())
        await until(lambda: stop.found is not None or served.done())
        await settle()
        try:
            yield Case(server, clock, stop)
            assert stop.requested or not served.done()
        finally:
            stop.request("test")
            await served


# --- what is there from the start


async def test_ready_is_said_when_its_report_and_its_socket_are_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as case:
        assert case.stop.found == {STATUS, case.server.config.socket.name}
    assert not case.server.config.socket.exists()


async def test_its_report_says_where_it_stands(tmp_path: Path) -> None:
    async with serving(tmp_path) as case:
        _, link, _ = await case.joined(Role.CLIENT)
        await case.clock.advance_network(5)
        assert case.server.listener is not None
        assert case.report["listen"] == f"127.0.0.1:{case.server.listener.port}"
        assert case.server.listener.port != 0
        renewals = {k.value: r.next_at for k, r in case.server.renewals.items()}
        assert {row["kind"]: row["next_renewal"] for row in case.report["keys"]} == {
            kind: at.isoformat() for kind, at in renewals.items() if at is not None
        }
        assert [row["peer_role"] for row in case.report["links"]] == ["client"]
        assert link.is_open


# --- who is let in


@pytest.mark.req("A12", "E5")
async def test_its_port_is_for_clients_and_hubs(tmp_path: Path) -> None:
    async with serving(tmp_path) as case:
        for role in (Role.CLIENT, Role.HUB):
            await case.joined(role)
        with logged() as lines, pytest.raises(DialError, match="wrong_role"):
            await case.peer(Role.ZONE_SERVER).connect()
    said = {
        (line["kind"], line["expected"], line["got"])
        for line in lines
        if line["event"] == "link.refused"
    }
    got = "expected client or hub, got zone-server"
    assert ("server port", "a client of ours, or a hub", got) in said


async def test_admission_at_its_port_is_what_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[object] = []
    start = Listener.start

    async def noted(host: str, port: int, **options: object) -> Listener:
        taken.append(options["admission"])
        return await start(host, port, **options)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(Listener, "start", noted)
    async with serving(tmp_path) as case:
        assert taken == [case.server.config.admission]


# --- what it tells, and when


@pytest.mark.req("B8")
async def test_a_hub_that_comes_is_told_everything_and_a_client_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as case:
        with logged() as lines:
            client, _, _ = await case.joined(Role.CLIENT)
            hub, _, _ = await case.joined(Role.HUB)
            await until(lambda: hub.told_of(HeadNotice) != [])
        assert hub.told == [
            Settings(revision=0, values=case.server.settings.shared()),
            HeadNotice(head=case.server.trust.latest_head() or b""),
        ]
        assert client.told == []
        assert [line for line in lines if line["event"] == "task.failed"] == []


@pytest.mark.req("B8")
async def test_a_setting_is_told_to_hubs_and_acts_on_its_own_keys(tmp_path: Path) -> None:
    async with serving(tmp_path) as case:
        hub, _, _ = await case.joined(Role.HUB)
        renewal = case.server.renewals[Kind.SERVER_TLS]
        before = renewal.next_at
        assert before is not None
        name = "pki_server_tls_key_renewal_window_hours"
        await case.operations.setting_set("me", name, "100")
        await until(lambda: len(hub.told_of(Settings)) == 2)
        told = hub.told_of(Settings)[1]
        assert isinstance(told, Settings)
        assert told.values[name] == "100"
        await until(lambda: renewal.next_at != before)
        now = renewal.next_at
        assert now is not None
        assert now < before - timedelta(hours=40)


@pytest.mark.req("B3")
async def test_a_head_is_signed_and_told_every_hour(tmp_path: Path) -> None:
    async with serving(tmp_path) as case:
        client, _, _ = await case.joined(Role.CLIENT)
        before = case.server.trust.latest_head()
        await case.clock.advance(timedelta(hours=1))
        await until(lambda: client.told_of(HeadNotice) != [])
        assert case.server.trust.latest_head() != before


@pytest.mark.req("B7")
async def test_its_own_keys_are_renewed_in_their_time(tmp_path: Path) -> None:
    async with serving(tmp_path) as case:
        before = shown(case.server)
        await case.clock.advance(timedelta(days=60))
        await until(lambda: case.server._shown()[0] != before)
        assert case.server._shown()[0] == shown(case.server)


@pytest.mark.req("B12")
async def test_what_a_client_acknowledges_is_kept(tmp_path: Path) -> None:
    async with serving(tmp_path) as case:
        client, link, _ = await case.joined(Role.CLIENT)
        await client.member.acknowledge(link, case.server.member.id)
        kept = case.server.acknowledgements.of(case.server.authority.slot)
        assert [ack.role for ack in kept.values()] == ["client"]
        assert set(kept) == {client.member.id}


@pytest.mark.req("B9")
async def test_a_link_that_was_shown_the_key_before_is_as_good_for_a_certificate(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as case:
        client, link, _ = await case.joined(Role.CLIENT)
        before = client.member.keyring.credential(Kind.CLIENT_TLS)
        await case.server.certify(Kind.SERVER_TLS, "test")
        await client.member.enrol(link, Kind.CLIENT_TLS, standing_of(link), reason="test")
        assert client.member.keyring.credential(Kind.CLIENT_TLS) != before


# --- which links end


@pytest.mark.req("B4")
async def test_a_link_under_a_revoked_root_is_ended(tmp_path: Path) -> None:
    async with serving(tmp_path) as case:
        _, link, _ = await case.joined(Role.CLIENT)
        old = case.server.authority.chain.current_root.key_id
        await case.server.new_root(bytes(32))
        assert link.is_open
        case.server.revoke([old], bytes(32))
        await until(lambda: link.is_closed)
        assert (await link.closed()).code is CloseCode.REVOKED


async def test_a_link_that_was_shown_an_older_certificate_is_made_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as case:
        _, link, _ = await case.joined(Role.CLIENT)
        await settle()
        await case.server.certify(Kind.SERVER_TLS, "test")
        await case.clock.advance_network(SETTLED)
        await until(lambda: link.is_closed)
        assert (await link.closed()).code is CloseCode.TRUST_CHANGED


async def test_its_end_is_told_to_all_and_is_in_its_last_report(tmp_path: Path) -> None:
    async with serving(tmp_path) as case:
        _, link, _ = await case.joined(Role.CLIENT)
        await case.clock.advance_network(5)
        assert len(case.report["links"]) == 1
    await until(lambda: link.is_closed)
    end = await link.closed()
    assert (end.code, end.by_peer) == (CloseCode.GOING_AWAY, True)
    assert case.report["links"] == []


async def test_what_it_left_behind_ends_with_it(tmp_path: Path) -> None:
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")

    async with serving(tmp_path) as case:
        case.server.tasks.spawn(endless())
        await settle()
        assert ended == []
        case.stop.request("test")
        await until(lambda: ended != [])
