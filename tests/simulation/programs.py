"""What runs on each machine: the product's daemons, put together as their `run` does.

What is left out is what belongs to a process: the lock of the state directory, the log level,
signals. The files are the machine's own (`ground`).
"""

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from agents.client.app import Client
from agents.client.config import Config as ClientConfig
from agents.hub.app import Hub
from agents.hub.config import Config as HubConfig
from agents.member.keyring import Keyring
from agents.member.starting import opened
from agents.member.trust import Trust
from agents.runtime import logs
from agents.runtime.address import HostPort
from agents.runtime.lifecycle import Stop as RealStop
from agents.server.app import Server
from agents.server.config import Config as ServerConfig
from agents.server.store import Store
from agents.zone_server.app import ZoneServer
from agents.zone_server.config import Config as ZoneConfig
from agents.zone_server.records import ZoneRecords
from pki.names import Role
from tests.simulation.machine import PORT, Machine, Program
from tests.simulation.store import Database, SimStore
from tests.simulation.watch import RECORDS, Watch

__all__ = ["BUNDLE", "FQDN", "HUB_PORT", "Programs"]

FQDN: Final = "server.test"
HUB_PORT: Final = 14173
PENDING: Final = 5.0
"""Seconds after which a hub or zone server that is not approved asks again."""
BUNDLE: Final = "bundle"


@dataclass(frozen=True)
class Programs:
    """The programs of one world."""

    database: Database
    watch: Watch

    async def server(self, program: Program) -> None:
        """Run a server."""
        machine = program.machine
        config = ServerConfig(
            fqdn=FQDN,
            state=machine.folder,
            standby=Path("/standby"),
            pending_seconds=PENDING,
            listen=HostPort(machine.address, PORT),
        )
        store = SimStore(self.database, alive=lambda: program.alive, kill=program.die)
        async with AsyncExitStack() as stack:
            server = Server(config, machine.clock, cast(Store, store))
            await server.prepare()
            program.part = server
            self.watch.check_kept()
            await server.serve(cast(RealStop, program.stop), stack)

    async def client(self, program: Program, responder: Machine) -> None:
        """Run a client of a server or of a zone server."""
        machine = program.machine
        config = ClientConfig(
            servers=[HostPort(responder.address, PORT)],
            listen=HostPort(machine.address, machine.port),
            source=machine.address,
            host=machine.name,
            state=machine.folder,
            bundle=machine.folder / BUNDLE,
        )
        with _opened(machine, Role.CLIENT) as (keyring, trust):
            client = Client(config, machine.clock, keyring, trust)
            program.part = client
            await client.serve(cast(RealStop, program.stop))

    async def hub(self, program: Program, server: Machine, zones: list[Machine]) -> None:
        """Run a hub between a server and its zone servers."""
        machine = program.machine
        config = HubConfig(
            server=HostPort(server.address, PORT),
            zone_servers=[HostPort(zone.address, HUB_PORT) for zone in zones],
            state=machine.folder,
            bundle=machine.folder / BUNDLE,
        )
        with _opened(machine, Role.HUB) as (keyring, trust):
            hub = Hub(config, machine.clock, keyring, trust)
            program.part = hub
            await hub.serve(cast(RealStop, program.stop))

    async def zone_server(self, program: Program) -> None:
        """Run a zone server."""
        machine = program.machine
        config = ZoneConfig(
            listen=HostPort(machine.address, PORT),
            hub_listen=HostPort(machine.address, HUB_PORT),
            state=machine.folder,
            bundle=machine.folder / BUNDLE,
        )
        disk = program.disk
        with _opened(machine, Role.ZONE_SERVER) as (keyring, trust):
            records = await ZoneRecords.open(
                machine.folder / RECORDS, machine.clock, files=disk, tapes=disk.tape
            )
            try:
                zone = ZoneServer(config, machine.clock, keyring, trust, records)
                program.part = zone
                await zone.serve(cast(RealStop, program.stop))
            finally:
                await records.close()


@contextmanager
def _opened(machine: Machine, role: Role) -> Iterator[tuple[Keyring, Trust]]:
    with opened(
        machine.folder,
        role,
        bundle=machine.folder / BUNDLE,
        expect=None,
        clock=machine.clock,
        log=logs.get_logger(),
    ) as (keyring, trust):
        yield keyring, trust
