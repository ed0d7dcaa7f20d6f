"""A whole zone server between a hub and outside clients; it opens no connection itself (E2)."""

import asyncio
import errno
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agents.member.following import answer_ledger_get
from agents.member.keyring import Keyring
from agents.member.member import Member
from agents.member.uplink import Uplink
from agents.runtime.address import HostPort
from agents.runtime.channel import Channel
from agents.runtime.clock import Clock, SystemClock
from agents.runtime.dialer import DialError, dial, refuse
from agents.runtime.errors import StateError
from agents.runtime.files import DISK
from agents.runtime.lifecycle import Stop
from agents.runtime.notify import Notifier
from agents.runtime.tape import DiskTape
from agents.zone_server.app import _pause, run
from agents.zone_server.config import Config
from agents.zone_server.records import ZoneRecords
from pki.acknowledgements import make_ack
from pki.certificates import Kind
from pki.names import Role
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.messages import (
    Ack,
    Done,
    Enrol,
    HeadNotice,
    LedgerGet,
    Message,
    NonceGet,
    Refused,
    Register,
    Registered,
    Report,
    Settings,
)
from tests.agents.zone_server.test_records import issued
from tests.support.deployment import Deployment
from tests.support.links import until

pytestmark = pytest.mark.sockets

ROOT = Path(__file__).parents[3]
HOST = "127.0.0.1"


class Zone:
    """The process, and what it says of itself."""

    def __init__(self, folder: Path, site: Deployment) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir(mode=0o700)
        (folder / "init.dat").write_bytes(site.bundle())
        keyring = Keyring(self.state / "keys.db", DISK)
        self.id = keyring.id
        for kind in (Kind.ZONE_SERVER_TLS, Kind.CLIENT_CA):
            site.certify(keyring, kind)

    @contextmanager
    def running(self) -> Iterator[None]:
        arguments = [str(self.state), str(self.folder / "init.dat"), str(self.folder / "notes")]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.agents.zone_server.watched", *arguments], cwd=ROOT
        )
        try:
            yield
            assert process.poll() is None
        finally:
            process.terminate()
            assert process.wait(30) == 0

    @property
    def status(self) -> dict[str, Any]:
        try:
            report: dict[str, Any] = json.loads((self.state / "status.json").read_text())
        except OSError:
            return {}
        return report

    def port(self, name: str) -> int:
        return int(self.status[name].rpartition(":")[2])

    @property
    def notes(self) -> list[str]:
        return (self.folder / "notes").read_text().splitlines()


class Hub:
    """A hub's side of its link, with a server behind it that signs nothing now."""

    def __init__(self, site: Deployment) -> None:
        clock = SystemClock()
        self.site = site
        self.member: Member = site.member(Role.HUB, clock=clock)
        site.certify(self.member.keyring, Kind.HUB_TLS)
        self.received: list[Message] = []
        self.has_server = True

    async def dial(self, port: int, *, source: str = HOST) -> Channel:
        return await dial(
            HOST,
            port,
            endpoint=self.member.endpoint,
            link_class=None,
            server_side=True,
            verify=self.member.verifier(roles=frozenset({Role.ZONE_SERVER})),
            handler=self.handle,
            local_address=source,
        )

    async def handle(self, _channel: Channel, message: Message) -> Message:
        self.received.append(message)
        match message:
            case LedgerGet():
                return answer_ledger_get(self.member.trust, message)
            case Report() | Ack() if self.has_server:
                return Done()
            case _:
                return Refused(reason="unavailable", text="no server", retry_after=1.0)

    def received_of(self, kind: type[Message]) -> list[Message]:
        return [message for message in self.received if type(message) is kind]


@pytest.mark.req("E2", "A6", "I3")
async def test_it_serves_clients_and_its_hub_and_opens_no_connection(tmp_path: Path) -> None:
    site = Deployment(now=SystemClock().now())
    zone, hub = Zone(tmp_path, site), Hub(site)
    with zone.running():
        await until(lambda: "hub_listen" in zone.status)

        # Without a hub: an outside client enrols, registers, and renews.
        client: Member = site.member(Role.CLIENT, clock=SystemClock())
        uplink = Uplink(
            client,
            addresses=lambda: [(HOST, zone.port("listen"))],
            roles=frozenset({Role.ZONE_SERVER}),
            handler=refuse,
            kind=Kind.CLIENT_TLS,
        )
        answer = await uplink.visit(register)
        assert isinstance(answer, Registered)
        await uplink.obtain(Kind.CLIENT_TLS, "test")
        held = client.keyring.credential(Kind.CLIENT_TLS)
        assert held is not None
        assert held.issuer_id == zone.id

        # What it acknowledges is kept if it is an entry of ours, and told to the hub.
        assert isinstance(await uplink.visit(acknowledge(client, bytes(32))), Refused)
        assert isinstance(await uplink.visit(acknowledge(client, site.slot)), Done)

        # A hub comes: it hears of the client, and of everything that was signed.
        link = await hub.dial(zone.port("hub_listen"))
        assert link.link_class is LinkClass.MEMBER
        assert link.peer is not None
        assert link.peer.name.id == zone.id
        await until(lambda: any(r.clients for r in hub.received if isinstance(r, Report)))
        reported = [r for r in hub.received if isinstance(r, Report) and r.clients]
        assert reported[0].clients[0].id == client.id
        assert reported[0].issued == 2
        told = [ack.slot for r in hub.received if isinstance(r, Report) for ack in r.acks]
        assert told == [site.slot]

        # A new root: it catches up over the hub's link, and asks there for new certificates.
        await link.request(Settings(revision=1, values={}))
        site.rotate()
        site.teach(hub.member.trust)
        await link.request(HeadNotice(head=site.head))
        await until(lambda: hub.received_of(NonceGet) != [])
        assert hub.received_of(LedgerGet) != []
        # Its client CA is not under that root yet, so its clients do not hear of it.
        answer = await uplink.visit(register)
        assert isinstance(answer, Registered)
        assert answer.head is None
        assert client.trust.newest_root == site.root_id(0)
        link.abort()

    notes = zone.notes
    started = notes.index("started")
    assert any("socket.connect" in note for note in notes[:started]), "the hook sees connections"
    during = notes[started + 1 :]
    assert sum("socket.bind" in note for note in during) == 2
    assert [n for n in during if n.split()[0] not in {"socket.bind", "dialer"}] == []
    assert during[-1] == "dialer False", "it has not even loaded what opens connections"


@pytest.mark.req("B12")
async def test_what_a_hub_without_a_server_does_not_take_is_acknowledged_again(
    tmp_path: Path,
) -> None:
    site = Deployment(now=SystemClock().now())
    zone, hub = Zone(tmp_path, site), Hub(site)
    hub.has_server = False
    with zone.running():
        await until(lambda: "hub_listen" in zone.status)
        link = await hub.dial(zone.port("hub_listen"))
        await until(lambda: hub.received_of(Ack) != [])
        refused = len(hub.received_of(Ack))
        hub.has_server = True
        await until(lambda: len(hub.received_of(Ack)) > refused)
        assert link.is_open
        link.abort()


async def register(channel: Channel) -> Message:
    return await channel.request(
        Register(full=True, host="outside", port=1, address=HOST, version="1")
    )


def acknowledge(client: Member, slot: bytes) -> Callable[[Channel], Awaitable[Message]]:
    last = client.trust.last(client.trust.slots[0])
    spki, signature = make_ack(client.keyring.identity, slot, last.n, last.id)

    async def send(channel: Channel) -> Message:
        return await channel.request(
            Ack(slot=slot, n=last.n, entry_id=last.id, spki=spki, signature=signature)
        )

    return send


@pytest.mark.req("E2")
async def test_a_stranger_at_the_hub_port_costs_the_hub_nothing(tmp_path: Path) -> None:
    site, foreign = Deployment(now=SystemClock().now()), Deployment(now=SystemClock().now())
    zone, hub, impostor = Zone(tmp_path, site), Hub(site), Hub(foreign)
    with zone.running():
        await until(lambda: "hub_listen" in zone.status)
        port = zone.port("hub_listen")
        for source in ("127.0.0.2", "127.0.0.3"):
            with pytest.raises(DialError):
                await impostor.dial(port, source=source)
            link = await hub.dial(port)
            assert link.link_class is LinkClass.MEMBER
            link.abort()


@pytest.mark.parametrize(
    ("said", "waited"), [(None, 2.0), (0.0, 0.5), (7.0, 7.0), (1e9, 600.0)], ids=str
)
def test_a_hub_is_waited_for_within_reason(said: float | None, waited: float) -> None:
    assert _pause(said) == waited


@pytest.mark.req("E2")
async def test_who_is_no_hub_of_ours_learns_nothing_at_its_hub_port(tmp_path: Path) -> None:
    site, foreign = Deployment(now=SystemClock().now()), Deployment(now=SystemClock().now())
    zone, impostor = Zone(tmp_path, site), Hub(foreign)
    with zone.running():
        await until(lambda: "hub_listen" in zone.status)
        with pytest.raises(DialError) as refused:
            await impostor.dial(zone.port("hub_listen"))
        assert refused.value.code is CloseCode.UNTRUSTED
        # It is let in once to be asked for its ledger, and shows nobody to it.
        link = await impostor.dial(zone.port("hub_listen"))
        assert link.link_class is LinkClass.DISCOVERY
        assert link.peer is None
        await link.closed()
        assert {type(m) for m in impostor.received} <= {LedgerGet}
        assert impostor.received_of(Enrol) == []
        assert zone.status["newest_root"] == site.root_id().hex()

        # Another member of ours is no hub either.
        server = Hub(site)
        site.certify(server.member.keyring, Kind.SERVER_TLS)
        server.member.kind = Kind.SERVER_TLS
        with pytest.raises(DialError) as caught:
            await server.dial(zone.port("hub_listen"))
        assert caught.value.code is CloseCode.WRONG_ROLE


async def test_it_ends_when_nobody_knows_what_of_its_records_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever supervises it starts it again, and a start reads them: it would refuse for ever."""
    clock = SystemClock()
    zone = Zone(tmp_path, Deployment(now=clock.now()))
    opened: list[ZoneRecords] = []
    really_open = ZoneRecords.open

    async def remembered(path: Path, clock: Clock) -> ZoneRecords:
        opened.append(await really_open(path, clock))
        return opened[0]

    def broken(_tape: DiskTape) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(ZoneRecords, "open", remembered)
    config = Config(
        listen=HostPort(HOST, 0),
        hub_listen=HostPort(HOST, 0),
        state=zone.state,
        bundle=tmp_path / "init.dat",
    )
    running = asyncio.create_task(run(config, clock=clock, stop=Stop(clock, Notifier(None))))
    await until(lambda: "listen" in zone.status)
    with monkeypatch.context() as patch:
        patch.setattr(DiskTape, "sync", broken)
        with pytest.raises(StateError, match="cannot sync"):
            await opened[0].record(issued())
    with pytest.raises(ExceptionGroup) as ended:
        await running
    assert [str(one) for one in ended.value.exceptions] == [
        f"cannot sync {zone.state / 'records.log'}: input/output error"
    ]
    assert [type(one) for one in ended.value.exceptions] == [StateError]
