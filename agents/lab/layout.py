"""Where everything of a lab lies: folders, addresses, ports, configurations.

    <root>/                     temporary; removed at the end unless it is to be kept
      anchorline-init.dat       the init bundle, exported as an operator would
      logs/<name>.log           one JSON line an event
      server/  hub/  zone-server/  client-01/ ...
        config.toml             what `anchorline <role> run --config` reads as well
        state/                  made by the lab, and marked so: `node` takes no other

    127.0.0.1      server (its hub dials from here too)
    127.0.1.0/24   inside clients, first subnet      127.0.9.1      zone server
    127.0.2.0/24   inside clients, second subnet     127.0.9.0/24   outside clients

Every address of 127.0.0.0/8 is this machine's own, so clients of three subnets are plain
processes, each with a listening address and a source address of its own. All of them listen
on one port, which is looked for when the lab starts: two labs do not meet.
"""

import json
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Final

from agents.runtime.errors import StateError, UnavailableError

__all__ = ["LOGS", "MARKER", "MIN_CLIENTS", "Layout", "Place", "check_marker", "make_layout"]

MARKER: Final = ".made-by-anchorline-lab"
"""File that the lab puts into each state directory that it makes."""

LOGS: Final = "logs"
"""Folder of the log files."""

MIN_CLIENTS: Final = 4
"""Three inside, so that a chain has a middle, and one outside."""
MAX_CLIENTS: Final = 300

FIRST_HOST: Final = 11
SERVER_ADDRESS: Final = "127.0.0.1"
ZONE_ADDRESS: Final = "127.0.9.1"
PORTS: Final = range(15_000, 32_000, 2)
"""Below what Linux hands out to connections by itself (32768 on)."""
PORT_STRIDE: Final = 37
"""Keeps labs that start at the same time, with neighbouring process numbers, apart."""

REGISTRATION: Final = (2.0, 4.0)
"""Seconds of network time between two registrations of a lab client."""
PING: Final = 1.0

Value = str | int | float | list[str]


@dataclass(frozen=True, slots=True)
class Place:
    """One component of the lab: its name, and where it lies and listens."""

    name: str
    role: str
    folder: Path
    log: Path
    address: str
    port: int
    options: dict[str, Value] = field(default_factory=dict)
    """What its configuration says beside state and log."""

    @property
    def config(self) -> Path:
        """Its configuration file."""
        return self.folder / "config.toml"

    @property
    def state(self) -> Path:
        """Its state directory."""
        return self.folder / "state"

    def prepare(self) -> None:
        """Make folder, marked state directory and configuration."""
        self.folder.mkdir(mode=0o700)
        self.state.mkdir(mode=0o700)
        (self.state / MARKER).touch(mode=0o600)
        self.config.write_text(self.toml())

    def toml(self) -> str:
        """Its configuration, as a file."""
        common: dict[str, Value] = {"state": str(self.state), "log": str(self.log)}
        # What JSON writes for a text, a number or a list of texts is TOML as well.
        lines = [f"{name} = {json.dumps(value)}" for name, value in (common | self.options).items()]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Layout:
    """All places of one lab."""

    root: Path
    port: int
    server: Place
    hub: Place
    zone: Place
    inside: tuple[Place, ...]
    """Clients that report to the server, by address."""
    outside: tuple[Place, ...]
    """Clients that report to the zone server, by address."""

    @property
    def clients(self) -> tuple[Place, ...]:
        """Every client, by number."""
        return self.inside + self.outside

    @property
    def places(self) -> tuple[Place, ...]:
        """Every component that runs from the beginning."""
        return (self.server, self.hub, self.zone, *self.clients)

    @property
    def bundle(self) -> Path:
        """The init bundle that everybody starts from."""
        return self.root / "anchorline-init.dat"

    @property
    def logs(self) -> Path:
        """Folder of the log files."""
        return self.root / LOGS

    @property
    def socket(self) -> Path:
        """Unix socket of the administration API."""
        return self.server.folder / "server.sock"

    @property
    def hub_port(self) -> int:
        """Where the zone server waits for its hub."""
        return self.port + 1

    def chains(self) -> tuple[tuple[Place, ...], ...]:
        """The clients in the lines that they should form: by subnet, by address (G1)."""
        found: dict[str, list[Place]] = {}
        for place in self.clients:
            found.setdefault(place.address.rpartition(".")[0], []).append(place)
        return tuple(tuple(chain) for chain in found.values())

    def place(self, name: str) -> Place:
        """The component of that name.

        Raises:
            KeyError: there is none.
        """
        return {place.name: place for place in self.places}[name]

    def newcomer(self) -> Place:
        """A client that is not there from the beginning: the end of the first subnet's line."""
        first = self.chains()[0]
        host = FIRST_HOST + len(first)
        name = f"client-{len(self.clients) + 1:02}"
        return client_place(self, name, f"127.0.1.{host}", self.server)

    def with_client(self, place: Place) -> "Layout":
        """The layout with one more inside client at the end of the first line."""
        first = len(self.chains()[0])
        return replace(self, inside=(*self.inside[:first], place, *self.inside[first:]))

    def prepare(self) -> None:
        """Make all folders and configurations."""
        self.logs.mkdir(mode=0o700)
        for place in self.places:
            place.prepare()


def make_layout(root: Path, clients: int, *, port: int | None = None) -> Layout:
    """Lay out a lab in a folder that exists and is empty; nothing is written yet.

    A third of the clients is outside. Those inside are two subnets from eight on, and one
    below that, so that there is a chain with a middle.

    Args:
        root: the folder.
        clients: how many, at least `MIN_CLIENTS`.
        port: of everything that listens; by default one that is free is looked for.

    Raises:
        ValueError: too few or too many clients.
        UnavailableError: no port is free.
    """
    if not MIN_CLIENTS <= clients <= MAX_CLIENTS:
        raise ValueError(f"{clients} clients, expected {MIN_CLIENTS} to {MAX_CLIENTS}")
    outside = clients // 3
    inside = clients - outside
    first = (inside + 1) // 2 if inside >= 8 else inside
    addresses = [
        *(f"127.0.1.{FIRST_HOST + n}" for n in range(first)),
        *(f"127.0.2.{FIRST_HOST + n}" for n in range(inside - first)),
        *(f"127.0.9.{FIRST_HOST + n}" for n in range(outside)),
    ]
    if port is None:
        port = free_port(
            [SERVER_ADDRESS, ZONE_ADDRESS, *addresses],
            first=PORTS[os.getpid() * PORT_STRIDE % len(PORTS)],
        )
    layout = _empty(root, port)
    made = []
    for number, address in enumerate(addresses, start=1):
        responder = layout.server if number <= inside else layout.zone
        made.append(client_place(layout, f"client-{number:02}", address, responder))
    return replace(layout, inside=tuple(made[:inside]), outside=tuple(made[inside:]))


def _empty(root: Path, port: int) -> Layout:
    """The layout without clients."""
    bundle = str(root / "anchorline-init.dat")
    server = _place(
        root,
        "server",
        "server",
        SERVER_ADDRESS,
        port,
        {
            "fqdn": "server.lab",
            "standby": str(root / "server" / "standby"),
            "listen": f"{SERVER_ADDRESS}:{port}",
            "socket": str(root / "server" / "server.sock"),
            "registration_seconds": REGISTRATION[1],
            "pending_seconds": 1.0,
        },
    )
    hub = _place(
        root,
        "hub",
        "hub",
        SERVER_ADDRESS,
        0,
        {
            "server": f"{SERVER_ADDRESS}:{port}",
            "zone_servers": [f"{ZONE_ADDRESS}:{port + 1}"],
            "bundle": bundle,
        },
    )
    zone = _place(
        root,
        "zone-server",
        "zone-server",
        ZONE_ADDRESS,
        port,
        {
            "listen": f"{ZONE_ADDRESS}:{port}",
            "hub_listen": f"{ZONE_ADDRESS}:{port + 1}",
            "registration_seconds": REGISTRATION[1],
            "bundle": bundle,
        },
    )
    return Layout(root, port, server, hub, zone, (), ())


def client_place(layout: Layout, name: str, address: str, responder: Place) -> Place:
    """A client of a lab, which reports to the server or to the zone server."""
    return _place(
        layout.root,
        name,
        "client",
        address,
        layout.port,
        {
            "servers": [f"{responder.address}:{responder.port}"],
            "listen": f"{address}:{layout.port}",
            "source": address,
            "host": name,
            "bundle": str(layout.bundle),
            "registration_min": REGISTRATION[0],
            "registration_max": REGISTRATION[1],
            "ping": PING,
        },
    )


def _place(
    root: Path, name: str, role: str, address: str, port: int, options: dict[str, Value]
) -> Place:
    return Place(name, role, root / name, root / LOGS / f"{name}.log", address, port, options)


def free_port(
    addresses: Iterable[str],
    *,
    first: int = PORTS.start,
    is_free: Callable[[Iterable[str], int], bool] | None = None,
) -> int:
    """Return a port that is free, with the one after it, on all addresses.

    Args:
        addresses: where something will listen.
        first: the port to look at first; labs that start at once look at different ones.
        is_free: asks the kernel.

    Raises:
        UnavailableError: none is.
    """
    wanted = list(addresses)
    check = is_free or _is_free
    at = (first - PORTS.start) // PORTS.step
    for port in chain(PORTS[at:], PORTS[:at]):
        if check(wanted, port) and check([ZONE_ADDRESS], port + 1):
            return port
    raise UnavailableError(f"no port from {PORTS.start} to {PORTS.stop} is free on every address")


def _is_free(addresses: Iterable[str], port: int) -> bool:
    with ExitStack() as stack:
        for address in addresses:
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((address, port))
            except OSError:
                return False
    return True


def check_marker(state: Path) -> None:
    """Let a state directory pass that a lab has made.

    Raises:
        StateError: it is none.
    """
    if not (state / MARKER).is_file():
        raise StateError(
            f"state directory {state} was not made by a lab",
            hint="policy time of a lab is for the lab's own components; "
            "run this one with: anchorline <role> run --config FILE",
        )
