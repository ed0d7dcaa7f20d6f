"""A deployment to measure: made by the product itself, with members that exist as keys only.

    python -m bench.deployment FOLDER CLIENTS

    server.toml, state/, standby/     a server that `anchorline server run` takes as it is
    init.dat                          the bundle for a real client
    tls/chain.pem key.pem root.pem    the server's own TLS key, for the sides that are not ours
    clients.bin, hub.bin              identities for `c/load.c`: keys with their certificates
    enrollers.json                    the same for `enrolling.py`, with identity keys

Every side of a row shows and verifies the same certificates, of the product's own profile.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509 import load_der_x509_certificate

from agents.runtime import logs
from agents.runtime.address import HostPort
from agents.runtime.clock import SystemClock
from agents.server.app import STORE, Server
from agents.server.config import Config
from agents.server.store import Store
from pki import certificates, issuance, keys
from pki.bundle import make_bundle
from pki.certificates import Kind
from pki.issuance import Issuer
from pki.keys import PrivateKey

__all__ = ["ENROLLERS", "Deployment", "Identity", "encode_identity", "open_server"]

ENROLLERS = 32
"""Clients whose identity keys are kept."""
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Identity:
    """A member's key and chain (root last), and its id."""

    id: bytes
    key: PrivateKey
    chain: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where its files are."""

    folder: Path

    @property
    def config(self) -> Path:
        """Of the server."""
        return self.folder / "server.toml"

    @property
    def bundle(self) -> Path:
        """For clients."""
        return self.folder / "init.dat"

    @property
    def clients(self) -> Path:
        """Identities of clients."""
        return self.folder / "clients.bin"

    @property
    def hub(self) -> Path:
        """The identity of a hub."""
        return self.folder / "hub.bin"

    @property
    def enrollers(self) -> Path:
        """Clients with their identity keys."""
        return self.folder / "enrollers.json"

    @property
    def pems(self) -> tuple[Path, Path, Path]:
        """The server's chain, its key and the root."""
        tls = self.folder / "tls"
        return tls / "chain.pem", tls / "key.pem", tls / "root.pem"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "server.log"

    def server(self, port: int = 0) -> Config:
        """The configuration, as a value."""
        return Config(
            fqdn="bench.test",
            state=self.folder / "state",
            standby=self.folder / "standby",
            listen=HostPort("127.0.0.1", port),
            socket=self.folder / "api.sock",
            log=self.log,
        )

    def write_config(self, port: int) -> None:
        """Write the configuration of a server at this port."""
        config = self.server(port)
        self.config.write_text(
            f'fqdn = "{config.fqdn}"\nstate = "{config.state}"\nstandby = "{config.standby}"\n'
            f'listen = "127.0.0.1:{port}"\nsocket = "{config.socket}"\nlog = "{config.log}"\n'
        )


async def open_server(deployment: Deployment) -> Server:
    """The server of a deployment, prepared and not listening; founded if it is new."""
    clock = SystemClock()
    config = deployment.server()
    config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    server = Server(config, clock, Store.open(config.state / STORE))
    await server.prepare()
    return server


def encode_identity(identity: Identity) -> bytes:
    """One identity as `c/load.c` reads it; the root stays out, as it does on the wire."""
    parts = [keys.private_bytes(identity.key), *identity.chain[:-1]]
    sized = [len(part).to_bytes(4) + part for part in parts]
    return sized[0] + (len(parts) - 1).to_bytes(4) + b"".join(sized[1:])


def client_ca(server: Server) -> Issuer:
    """Who signs clients."""
    held = server.keyring.credential(Kind.CLIENT_CA)
    if held is None:
        raise LookupError("the server has no client CA")
    return Issuer(held.key, held.chain)


async def make(folder: Path, clients: int) -> None:
    """Found a deployment in an empty folder, with this many clients."""
    deployment = Deployment(folder)
    server = await open_server(deployment)
    try:
        ca = client_ca(server)
        number = iter(range(1, clients + 2))
        members = []
        for _ in range(clients):
            identity_key = keys.generate()
            id = keys.component_id(keys.spki(identity_key.public_key()))
            members.append((identity_key, _issue(server, ca, Kind.CLIENT_TLS, id, next(number))))
        deployment.clients.write_bytes(b"".join(encode_identity(one) for _, one in members))
        hub = _issue(server, server.authority.issuer(), Kind.HUB_TLS, bytes(16), next(number))
        deployment.hub.write_bytes(encode_identity(hub))
        kept = [
            {
                "identity": keys.private_bytes(identity_key).hex(),
                "key": keys.private_bytes(one.key).hex(),
                "chain": [der.hex() for der in one.chain],
            }
            for identity_key, one in members[:ENROLLERS]
        ]
        deployment.enrollers.write_text(json.dumps(kept))
        state = server.trust.state
        bundle = make_bundle(server.authority.issuer().key, state.chains, state.heads, {})
        deployment.bundle.write_bytes(bundle)
        _write_pems(deployment, server)
    finally:
        server.store.close()


def _issue(server: Server, issuer: Issuer, kind: Kind, id: bytes, serial: int) -> Identity:
    key = keys.generate()
    der = issuance.issue(
        issuer,
        certificates.parse_request(certificates.make_request(key, kind)),
        kind=kind,
        name=certificates.name_of(server.trust.deployment, kind, id),
        validity=7 * DAY,
        now=server.clock.now(),
        serial=serial,
    )
    return Identity(id, key, (der, *issuer.chain))


def _write_pems(deployment: Deployment, server: Server) -> None:
    held = server.keyring.credential(Kind.SERVER_TLS)
    assert held is not None  # `prepare` has made it
    chain, key, root = deployment.pems
    chain.parent.mkdir()
    pems = [load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in held.chain]
    chain.write_bytes(b"".join(pems[:-1]))
    root.write_bytes(pems[-1])
    key.touch(0o600)
    key.write_bytes(
        held.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Make a deployment."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.deployment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a new folder")
    parser.add_argument("clients", type=int, metavar="CLIENTS", help="how many")
    args = parser.parse_args(argv)
    folder: Path = args.folder
    try:
        folder.mkdir(mode=0o700, parents=True)
    except OSError as exc:
        parser.error(f"{folder}: {exc.strerror}")
    logs.configure("bench", clock=SystemClock(), path=folder / "make.log")
    asyncio.run(make(folder, args.clients))
    with suppress(BrokenPipeError):
        print("made", os.fspath(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
