"""A server without doors: everything of it but the listener and the API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agents.runtime.address import HostPort
from agents.runtime.clock import Clock
from agents.runtime.files import DISK, Files
from agents.server.app import Server
from agents.server.config import Config
from agents.server.store import Store
from pki.certificates import Kind
from pki.keys import KeyId
from protocol.messages import Issued, Pending, Refused
from tests.support.clock import FakeClock, settle
from tests.support.components import Component, ask
from tests.support.files import MemoryFiles

__all__ = [
    "FQDN",
    "config_in",
    "enrolled",
    "opened",
    "prepared",
    "restore_older_keys",
    "shown",
    "tls_key",
]

FQDN = "server.example"


def config_in(folder: Path) -> Config:
    return Config(
        fqdn=FQDN,
        state=folder / "state",
        standby=folder / "standby",
        listen=HostPort("127.0.0.1", 0),
        socket=folder / "server.sock",
        pending_seconds=5.0,
    )


@asynccontextmanager
async def opened(
    folder: Path,
    *,
    clock: Clock | None = None,
    files: Files = DISK,
    config: Config | None = None,
) -> AsyncIterator[Server]:
    """A server as its start makes it, before `prepare`."""
    config = config or config_in(folder)
    config.state.mkdir(mode=0o700, exist_ok=True)
    store = Store.open(folder / "server.db")
    try:
        server = Server(config, clock or FakeClock(), store, files=files)
        try:
            yield server
        finally:
            await settle()  # what was announced has nobody to go to
            await server.tasks.close()
    finally:
        store.close()


@asynccontextmanager
async def prepared(
    folder: Path,
    *,
    clock: Clock | None = None,
    files: Files = DISK,
    config: Config | None = None,
) -> AsyncIterator[Server]:
    """A server that is ready to serve."""
    async with opened(folder, clock=clock, files=files, config=config) as server:
        await server.prepare()
        yield server


def shown(server: Server) -> KeyId:
    """The TLS key that the server shows."""
    held = server.keyring.credential(Kind.SERVER_TLS)
    assert held is not None
    return held.leaf.key_id


async def enrolled(
    server: Server, component: Component, kind: Kind, *, host: str = "host"
) -> Issued | Pending | Refused:
    """Ask the server for a certificate, on an enrolment link of one's own."""
    return await ask(
        server.enrolment,
        component,
        kind,
        deployment=server.trust.deployment,
        issuer=shown(server),
        host=host,
    )


def tls_key(server: Server) -> KeyId:
    held = server.keyring.credential(Kind.SERVER_TLS)
    assert held is not None
    return held.leaf.key_id


async def restore_older_keys(folder: Path, files: MemoryFiles, clock: FakeClock) -> None:
    """Make two roots and put back the keys from before them: with these, nobody can sign."""
    path = config_in(folder).state / "pki.db"
    backup = files.content[path]
    async with prepared(folder, files=files, clock=clock) as server:
        await server.new_root(bytes(32))
        await server.new_root(bytes(32))
    files.content[path] = backup
