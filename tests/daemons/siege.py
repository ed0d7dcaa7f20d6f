"""A whole deployment that has rotated, revoked and denied, and the one who attacks it.

The attacker speaks the real protocol over plain blocking sockets: `protocol.link` does the
thinking, and there is nothing of `agents` on his side.
"""

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import msgspec

from pki.certificates import Kind
from pki.issuance import Issuer
from protocol.access import LinkClass
from protocol.link import Closed, Link, Opened, Received
from protocol.messages import LedgerEntries, LedgerGet, Message, Ping, Pong
from protocol.states import State
from protocol.tls import Credentials, client_context, server_context
from tests.support.daemons import Daemon, Site
from tests.support.links import FakePeer
from tests.support.nursery import PATIENCE
from tests.support.thief import Loot, Part, issuer_of, keyring_of, stolen

__all__ = [
    "Siege",
    "Talk",
    "besiege",
    "knock",
    "make_link",
    "nothing_new",
    "talk",
    "until",
]


@dataclass
class Siege:
    """A deployment under attack."""

    site: Site
    loot: Loot
    roots: tuple[bytes, ...]
    server: Daemon
    zone: Daemon
    hub: Daemon
    inside: Daemon
    outside: Daemon

    def part(self, kind: Kind, responder: Daemon | None = None) -> Part:
        """Whom a link expects: an honest component that there is."""
        if kind is Kind.CLIENT_TLS:
            assert responder is not None
            client = self.inside if responder is self.server else self.outside
            ca = issuer_of(stolen(responder, Kind.CLIENT_CA))
            return Part(kind, keyring_of(client).id, ca, keyring_of(responder).id)
        holder = {
            Kind.SERVER_TLS: self.server,
            Kind.HUB_TLS: self.hub,
            Kind.ZONE_SERVER_TLS: self.zone,
        }[kind]
        return Part(kind, keyring_of(holder).id, self.loot.root)


def until(claim: Callable[[], bool]) -> None:
    """Look at files until a claim about them is true: they send no events."""
    pause = threading.Event()
    for _ in range(1500):
        if claim():
            return
        pause.wait(0.02)
    raise AssertionError("it never became true")


def besiege(site: Site) -> Siege:
    """Start everything, rotate, revoke the old root, and deny one zone server."""
    server = site.start_server()
    zone, traitor = site.add_zone("zone", 2).launch(), site.add_zone("traitor", 3).launch()
    hub_ports = [f"{site.address(host)}:{site.port + 1}" for host in (2, 3)]
    hub = site.add_hub("hub", *hub_ports).launch()
    inside = site.add_client("inside", 11).launch()
    site.approve("hub")
    site.approve("zone-server", 2)
    zone.wait("key.activated", kind="client-ca")
    traitor.wait("key.activated", kind="client-ca")
    outside = site.add_client("outside", 12, servers=[f"{site.address(2)}:{site.port}"]).launch()
    inside.wait("key.activated")
    outside.wait("key.activated")
    old = {daemon.name: issuer_of(stolen(daemon, Kind.CLIENT_CA)) for daemon in (server, zone)}
    old_root = root_issuer(server)

    everybody = (zone, traitor, hub, inside, outside)
    created = site.api.post("roots", confirmed=True)["root"]["fingerprint"]
    for daemon in everybody:
        daemon.wait("key.activated", root=created)
    for daemon in (zone, traitor):
        daemon.wait("key.activated", root=created, kind="client-ca")
        daemon.wait("key.activated", root=created, kind="zone-server-tls")
    outside.wait("key.activated", root=created)
    denied, denied_ca = (stolen(traitor, kind) for kind in (Kind.ZONE_SERVER_TLS, Kind.CLIENT_CA))
    site.api.post(
        "roots", "server.test Root 0", "revoke", key_in_doubt=True, reason="test", confirmed=True
    )
    site.api.post("approvals", keyring_of(traitor).id.hex(), "revoke", reason="test")
    known = {held.leaf.fingerprint for held in (denied, denied_ca)}
    for daemon in (server, zone, hub, inside, outside):
        until(partial(_has_followed, daemon, known))
    ids = {daemon.name: keyring_of(daemon).id for daemon in (server, zone)}
    cas = {
        name: issuer_of(stolen(daemon, Kind.CLIENT_CA))
        for name, daemon in (("server", server), ("zone", zone))
    }
    root = root_issuer(server)
    site.export()  # newcomers begin where the deployment is now
    loot = Loot(
        deployment=bytes.fromhex(server.status()["deployment"]),
        root=root,
        revoked_root=old_root,
        revoked_cas={ids[name]: old[name] for name in ids},
        denied=denied,
        denied_ca=issuer_of(denied_ca),
        client=stolen(inside, Kind.CLIENT_TLS),
        other_ca={ids["server"]: cas["zone"], ids["zone"]: cas["server"]},
    )
    return Siege(site, loot, root.chain, server, zone, hub, inside, outside)


def _has_followed(daemon: Daemon, denied: set[str]) -> bool:
    status = daemon.status()
    return denied <= set(status["denied"]) and len(status["roots"]) == 1


def root_issuer(server: Daemon) -> Issuer:
    """The root under which a server's own TLS key stands, as somebody who has stolen it."""
    held = stolen(server, Kind.SERVER_TLS)
    key = keyring_of(server).root(held.root)
    assert key is not None
    return Issuer(key, (held.chain[-1],))


@dataclass
class Talk:
    """One connection, as the attacker saw it."""

    opened: LinkClass | None = None
    heard: list[Message] = field(default_factory=list)
    closed: Closed | None = None

    @property
    def refused(self) -> bool:
        """Whether the other side ended it, in words or by an alert, before it said anything."""
        return self.closed is not None and self.closed.by_peer and not self.heard


def nothing_new(asked: LedgerGet) -> LedgerEntries:
    """What one says who knows no ledger."""
    return LedgerEntries(slot=asked.slot, first=asked.n, entries=[])


def talk(
    sock: socket.socket,
    link: Link,
    *,
    asks: bool,
    history: Callable[[LedgerGet], LedgerEntries] = nothing_new,
) -> Talk:
    """Carry a link over a socket until it ends, or until a question of ours was answered."""
    said = Talk()
    sock.settimeout(PATIENCE)
    while True:
        sock.sendall(link.data_to_send())
        try:
            data = sock.recv(65536)
        except ConnectionError:
            data = b""
        for event in link.receive_data(data, 0.0) if data else link.receive_eof(0.0):
            match event:
                case Opened(link_class=link_class):
                    said.opened = link_class
                    # Or its CLOSE came along; and a stranger's link knows no such question.
                    if asks and link.state is State.OPEN and said.opened is LinkClass.MEMBER:
                        link.send(Ping(id=1, call=1))
                case Received(message=Pong()):
                    return said
                case Received(message=message):
                    said.heard.append(message)
                    if isinstance(message, LedgerGet) and link.state is State.OPEN:
                        link.send(msgspec.structs.replace(history(message), call=message.call))
                case Closed():
                    said.closed = event
                    return said


def make_link(
    shown: Credentials,
    roots: tuple[bytes, ...],
    *,
    role: str,
    victim: str,
    server_side: bool,
) -> Link:
    """An attacker's end of a link: it believes whoever is at the other."""
    make = server_context if server_side else client_context
    return Link(
        make(shown, roots),
        server_side=server_side,
        local_role=role,
        verify=lambda _chain: FakePeer(victim),
        link_class=None if server_side else LinkClass.MEMBER,
        handshake_deadline=float("inf"),
        idle_timeout=float("inf"),
    )


def knock(
    host: str,
    port: int,
    *,
    role: str,
    victim: str,
    shown: Credentials,
    roots: tuple[bytes, ...],
    server_side: bool = False,
    history: Callable[[LedgerGet], LedgerEntries] = nothing_new,
    source: str = "127.0.0.1",
) -> Talk:
    """Dial as an attacker; `server_side` like a hub at a zone server's hub port."""
    link = make_link(shown, roots, role=role, victim=victim, server_side=server_side)
    with socket.create_connection((host, port), source_address=(source, 0)) as sock:
        return talk(sock, link, asks=True, history=history)
