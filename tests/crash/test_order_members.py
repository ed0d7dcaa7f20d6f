"""Clients, hubs and zone servers: what they ask, answer or acknowledge comes after its fsync.

`strace` watches the daemon. Its peers are here, so they know what is said inside TLS: what they
hear is marked in the account as they hear it, what they say before they say it, and what they
are answered when they are.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agents.member.following import answer_ledger_get
from agents.member.member import Member
from agents.member.requesting import standing_of
from agents.runtime.channel import Channel
from agents.runtime.clock import SystemClock
from agents.runtime.dialer import DialError, dial, refuse
from agents.runtime.listener import Listener
from pki import certificates, issuance, keys, rotation
from pki.acknowledgements import make_ack
from pki.certificates import Kind
from pki.keys import KeyId
from pki.names import Role
from protocol.access import LinkClass
from protocol.messages import (
    Ack,
    Done,
    Enrol,
    HeadNotice,
    Issued,
    LedgerGet,
    Message,
    Nonce,
    NonceGet,
    Register,
    Registered,
    Settings,
)
from tests.crash.strace import MARK, SYNCED, Trace, traced
from tests.support.daemons import Daemon, Site
from tests.support.deployment import KINDS, POLICIES, Deployment
from tests.support.links import on_uvloop, until

pytestmark = [pytest.mark.sockets, pytest.mark.needs("strace"), pytest.mark.req("C8")]

HOST = "127.0.0.1"
DENIED = KeyId(bytes(range(32)))
Calls = list[tuple[str, str]]


class Peer:
    """Whoever the daemon reports to. It holds every root, and marks what it hears.

    The marks are "NonceGet 1", "NonceGet 2", and so on, a type of message; "Ack of 1 under 0 1"
    is of entry 1 and names keys under root 0; "key 1" is a link with a key not seen before.
    """

    def __init__(self, site: Deployment, role: Role) -> None:
        self.site = site
        self.member: Member = site.member(role, clock=SystemClock())
        site.certify(self.member.keyring, KINDS[role])
        self.trace: Trace | None = None
        self.links: list[Channel] = []
        self.certified = 0
        """Certificates that the last acknowledgement names."""
        self._heard: Counter[str] = Counter()
        self._keys: set[bytes] = set()

    def mark(self, what: str) -> None:
        """Count it, and put it into the account."""
        self._heard[what] += 1
        if self.trace is not None:
            self.trace.mark(f"{what} {self._heard[what]}")

    def heard(self, what: str) -> int:
        """How often it was marked."""
        return self._heard[what]

    @property
    def link(self) -> Channel | None:
        """The newest member link that is open."""
        members = [c for c in self.links if c.link_class is LinkClass.MEMBER and c.is_open]
        return members[-1] if members else None

    def opened(self, channel: Channel) -> None:
        """There is a link."""
        self.links.append(channel)
        if channel.peer is not None and channel.peer.leaf.key_id not in self._keys:
            self._keys.add(channel.peer.leaf.key_id)
            self.mark("key")

    async def handle(self, _channel: Channel, message: Message) -> Message:
        self.mark(self._name(message))
        if isinstance(message, Ack):
            self.certified = len(message.credentials)
        match message:
            case NonceGet():
                return Nonce(nonce=bytes(32))
            case Enrol():
                return self._issued(message)
            case Register():
                token = bytes([self.heard("Register")]) * 32
                return Registered(token=token, observed=HOST, leader=True)
            case LedgerGet():
                return answer_ledger_get(self.member.trust, message)
            case _:
                return Done()

    async def tell(self, message: Message, what: str) -> None:
        """Say something on the newest link, and mark what it is and that it was answered."""
        await until(lambda: self.link is not None)
        assert self.link is not None
        self.mark(what)
        assert isinstance(await self.link.request(message), Done)
        self.mark(f"{what} answered")

    async def rotate(self) -> None:
        """Make a new root, and tell of it."""
        self.site.rotate()
        self.site.teach(self.member.trust)
        await self.tell(HeadNotice(head=self.site.head), "new root")

    async def deny(self) -> None:
        """Deny a key, and tell of it."""
        self.site.deny(DENIED)
        self.site.teach(self.member.trust)
        await self.tell(HeadNotice(head=self.site.head), "denied")

    def _name(self, message: Message) -> str:
        if not isinstance(message, Ack):
            return type(message).__name__
        roots = [self.site.root_id(place) for place in range(len(self.site.roots))]
        oldest = min(roots.index(KeyId(held.root)) for held in message.credentials)
        return f"Ack of {message.n} under {oldest}"

    def _issued(self, message: Enrol) -> Issued:
        kind = Kind(message.kind)
        client = kind is Kind.CLIENT_TLS
        issuer = self.site.client_ca(self.member.id) if client else self.site.root_issuer()
        leaf = issuance.issue(
            issuer,
            certificates.parse_request(message.csr),
            kind=kind,
            name=certificates.name_of(self.site.id, kind, keys.component_id(message.spki)),
            validity=POLICIES[kind].validity,
            now=self.site.now,
            serial=1000 + self.heard("Enrol"),
        )
        return Issued(chain=[leaf, *issuer.chain], window=3600)


def check(calls: Calls, file: str, *, after: str, before: str, renamed: bool = True) -> None:
    """Between a mark and the next one of that name a file was synced, and its name with it."""
    start = calls.index((MARK, after))
    end = next(
        place
        for place, (call, what) in enumerate(calls)
        if place > start and call == MARK and what.startswith(before)
    )
    synced = [what for call, what in calls[start:end] if call in SYNCED]
    places = [place for place, what in enumerate(synced) if f"/{'.' * renamed}{file}" in what]
    assert places, (file, after, before, synced)
    if renamed:
        assert any(what.endswith("/state") for what in synced[places[0] :]), synced


def deployment_in(site: Site) -> Deployment:
    """A deployment whose bundle the site's components start from."""
    made = Deployment(now=SystemClock().now())
    site.bundle.write_bytes(made.bundle())
    return made


def free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


@asynccontextmanager
async def reported_to(
    peer: Peer, daemon: Daemon, port: int, path: Path, *, said: str
) -> AsyncIterator[Trace]:
    """A daemon that has found nobody yet is traced; from then on its peer listens."""
    daemon.launch()
    await asyncio.to_thread(daemon.wait, said)
    with traced(daemon, path) as trace:
        peer.trace = trace
        listener = await Listener.start(
            HOST,
            port,
            endpoint=peer.member.endpoint,
            handler=peer.handle,
            verify=peer.member.verifier(
                roles=frozenset({Role.CLIENT, Role.HUB}), client_ca_of=lambda: peer.member.id
            ),
            on_channel=peer.opened,
        )
        try:
            yield trace
        finally:
            daemon.kill()
            await listener.stop()
            await asyncio.gather(*(link.gone() for link in peer.links))


def check_followed(calls: Calls) -> None:
    """What is the same in all of them after a new root and a denial."""
    check(calls, "ledger", after="new root 1", before="NonceGet 2")
    check(calls, "ledger", after="new root 1", before="Ack of 1")
    check(calls, "keys.db", after="new root 1", before="NonceGet 2")
    check(calls, "keys.db", after="Enrol 2", before="key 2")
    check(calls, "keys.db", after="Enrol 2", before="Ack of 1 under 1")
    check(calls, "ledger", after="denied 1", before="denied answered 1")


@on_uvloop
class TestOrder:
    async def test_a_client(self, site: Site, tmp_path: Path) -> None:
        peer, port = Peer(deployment_in(site), Role.SERVER), free_port()
        client = site.add_client("client", 11, servers=[f"{HOST}:{port}"])
        async with reported_to(
            peer, client, port, tmp_path / "calls", said="registration.failed"
        ) as trace:
            await until(lambda: peer.heard("Register") >= 2)
            await peer.rotate()
            await until(lambda: bool(peer.heard("Ack of 1 under 1") and peer.heard("key") >= 2))
            await peer.deny()
            calls = await asyncio.to_thread(trace.end)
        check(calls, "keys.db", after="attached", before="NonceGet 1")
        check(calls, "keys.db", after="Enrol 1", before="key 1")
        check(calls, "keys.db", after="Enrol 1", before="Ack of 0")
        check(calls, "registration.json", after="Register 1", before="Register 2")
        check_followed(calls)

    async def test_a_hub(self, site: Site, tmp_path: Path) -> None:
        peer, port = Peer(deployment_in(site), Role.SERVER), free_port()
        hub = site.add_hub("hub", f"{HOST}:9").configure(server=f"{HOST}:{port}")
        async with reported_to(
            peer, hub, port, tmp_path / "calls", said="uplink.unavailable"
        ) as trace:
            await until(lambda: peer.heard("Ack of 0 under 0") >= 1)
            values = {next(iter(rotation.SETTINGS)): "77"}
            await peer.tell(Settings(revision=1, values=values), "settings")
            await peer.rotate()
            await until(lambda: bool(peer.heard("Ack of 1 under 1") and peer.heard("key") >= 2))
            await peer.deny()
            calls = await asyncio.to_thread(trace.end)
        check(calls, "keys.db", after="attached", before="NonceGet 1")
        check(calls, "keys.db", after="Enrol 1", before="key 1")
        check(calls, "keys.db", after="Enrol 1", before="Ack of 0")
        check(calls, "settings.json", after="settings 1", before="settings answered 1")
        check_followed(calls)

    async def test_a_zone_server(self, site: Site, tmp_path: Path) -> None:
        hub, zone = Peer(deployment_in(site), Role.HUB), site.add_zone("zone", 2)
        address = site.address(2)
        await asyncio.to_thread(zone.start)
        with traced(zone, tmp_path / "calls") as trace:
            hub.trace = trace
            dialling = asyncio.ensure_future(keep(hub, address, site.port + 1))
            try:
                await until(lambda: hub.certified == 2)
                await report_to(address, site.port, hub)
                values = {next(iter(rotation.SETTINGS)): "77"}
                await hub.tell(Settings(revision=1, values=values), "settings")
                await hub.rotate()
                await until(lambda: hub.heard("Ack of 1 under 1") >= 1)
                await hub.deny()
                calls = await asyncio.to_thread(trace.end)
            finally:
                dialling.cancel()
                zone.kill()
                await asyncio.gather(*(link.gone() for link in hub.links))
        check(calls, "keys.db", after="attached", before="NonceGet 1")
        check(calls, "keys.db", after="Enrol 1", before="Ack of 0")
        check(calls, "keys.db", after="Enrol 2", before="Ack of 0")
        for what in ("enrol", "register", "acknowledge"):
            log = "records.log"
            check(calls, log, after=f"{what} 1", before=f"{what} answered", renamed=False)
        check(calls, "settings.json", after="settings 1", before="settings answered")
        check(calls, "ledger", after="new root 1", before="NonceGet 3")
        check(calls, "ledger", after="new root 1", before="Ack of 1")
        check(calls, "keys.db", after="Enrol 4", before="Ack of 1 under 1")
        check(calls, "ledger", after="denied 1", before="denied answered")


async def keep(hub: Peer, host: str, port: int) -> None:
    """Dial a zone server as a hub does, again whenever the link has ended."""
    while True:
        try:
            link = await dial(
                host,
                port,
                endpoint=hub.member.endpoint,
                link_class=None,
                server_side=True,
                verify=hub.member.verifier(roles=frozenset({Role.ZONE_SERVER})),
                handler=hub.handle,
            )
        except DialError:
            continue
        hub.opened(link)
        await link.closed()


async def report_to(host: str, port: int, hub: Peer) -> None:
    """Do at a zone server all that a client does there."""
    client: Member = hub.site.member(Role.CLIENT, clock=SystemClock())

    async def reach(link_class: LinkClass) -> Channel:
        return await dial(
            host,
            port,
            endpoint=client.endpoint,
            link_class=link_class,
            verify=client.verifier(roles=frozenset({Role.ZONE_SERVER})),
            handler=refuse,
        )

    link = await reach(LinkClass.ENROLMENT)
    hub.mark("enrol")
    await client.enrol(link, Kind.CLIENT_TLS, standing_of(link), reason="test")
    hub.mark("enrol answered")
    link.close()
    await link.gone()
    link = await reach(LinkClass.MEMBER)
    hub.mark("register")
    said = Register(host="a", version="1", port=1, address=HOST, full=True)
    assert isinstance(await link.request(said), Registered)
    hub.mark("register answered")
    (slot,) = client.trust.slots
    last = client.trust.last(slot)
    spki, signature = make_ack(client.keyring.identity, slot, last.n, last.id)
    hub.mark("acknowledge")
    ack = Ack(slot=slot, n=last.n, entry_id=last.id, spki=spki, signature=signature)
    assert isinstance(await link.request(ack), Done)
    hub.mark("acknowledge answered")
    link.close()
    await link.gone()
