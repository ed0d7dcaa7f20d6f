"""The four ports of a besieged deployment, and what bad input at one of them may cost."""

import socket
from typing import Final

from agents.runtime.remedies import REMEDIES
from pki.certificates import Kind
from protocol.access import LinkClass
from protocol.tls import Credentials
from tests.daemons.siege import Siege, knock
from tests.support.daemons import Daemon, Line
from tests.support.thief import mint

__all__ = [
    "PORTS",
    "TLS_SERVERS",
    "call",
    "costs_one_line",
    "place",
    "shown_at",
    "still_serves",
    "warnings",
]

TLS_SERVERS: Final = ("server", "zone", "inside")
"""The ports at which the component that listens is the TLS server."""
PORTS: Final = (*TLS_SERVERS, "hub port")
"""All; at a zone server's hub port, who dials is the TLS server."""
HOSTS: Final = {"server": 1, "zone": 2, "hub port": 2, "inside": 11}


def place(siege: Siege, where: str) -> tuple[Daemon, tuple[str, int]]:
    """Who listens there, and where it is."""
    daemon = siege.zone if where == "hub port" else getattr(siege, where)
    port = siege.site.port + (where == "hub port")
    return daemon, (siege.site.address(HOSTS[where]), port)


def shown_at(siege: Siege, where: str) -> Credentials:
    """What somebody in order shows there; he is nobody whom the deployment knows."""
    if where == "hub port":
        return mint(
            siege.loot.root, Kind.HUB_TLS, bytes(range(16)), deployment=siege.loot.deployment
        )
    part = siege.part(Kind.CLIENT_TLS, siege.zone if where == "zone" else siege.server)
    return mint(part.issuer, part.kind, bytes(range(16)), deployment=siege.loot.deployment)


def call(siege: Siege, where: str, *, source: int = 64) -> socket.socket:
    """A TCP connection to a port, from an address that nobody else has."""
    sock = socket.socket()
    sock.bind((siege.site.address(source), 0))
    sock.connect(place(siege, where)[1])
    return sock


def warnings(daemon: Daemon, mark: int, remote: tuple[str, int]) -> list[Line]:
    """What a component has said of the connection with this address, debug lines apart."""
    return [
        line
        for line in list(daemon.output.lines)[mark:]
        if line.get("remote") == list(remote) and line["level"] in ("warning", "error")
    ]


def costs_one_line(
    siege: Siege,
    where: str,
    mark: int,
    remote: tuple[str, int],
    event: str = "link.refused",
    *,
    by_peer: bool = False,
    **fields: object,
) -> Line:
    """Of a connection there is one line that says what to do; others are served."""
    daemon, _ = place(siege, where)
    line = daemon.wait(event, after=mark, remote=list(remote[:2]))
    for name, value in fields.items():
        assert line[name] == value, line
    assert line["level"] == "warning"
    assert line["kind"]
    assert line["link"]
    reason = str(line["reason"] if event == "link.refused" else line["code"])
    assert line["remedy"] == REMEDIES[reason]
    assert line["by_peer"] is by_peer
    if event == "link.refused":
        assert line["expected"]
        assert line["got"]
        assert line["fingerprint"]
    else:
        assert line["peer"]
        assert line["reason"]
    still_serves(siege, where)
    assert warnings(daemon, mark, remote) == [line]
    return line


def still_serves(siege: Siege, where: str) -> None:
    """Somebody in order is served on the same port."""
    _, (host, port) = place(siege, where)
    hub = where == "hub port"
    talk = knock(
        host,
        port,
        role="hub" if hub else "client",
        victim={"hub port": "zone-server", "inside": "client"}.get(where, "server"),
        shown=shown_at(siege, where),
        roots=siege.roots,
        server_side=hub,
        # Nobody from there was refused: that would have a zone server ask for news first.
        source=siege.site.address(81),
    )
    assert talk.opened is LinkClass.MEMBER
    assert talk.closed is None
