"""Clients as far as a load needs them: contexts, an endpoint, and asking for a certificate.

The product's own dialer and messages; what a real client does beside (files, ledger, line) is
left out, for it costs the load and not the server.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from OpenSSL import SSL

from agents.runtime.channel import Channel
from agents.runtime.clock import SystemClock
from agents.runtime.network import Endpoint
from bench.deployment import Deployment
from pki import enrolment, keys
from pki.bundle import open_bundle
from pki.certificates import Kind
from pki.errors import PKIError
from pki.keys import KeyId, PrivateKey
from pki.names import Role
from pki.peers import Expectation, Peer, check_peer
from protocol.codes import CloseCode
from protocol.errors import Refusal
from protocol.messages import Enrol, Message, Nonce, NonceGet
from protocol.tls import Credentials, client_context, discovery_context

__all__ = ["Applicant", "Contexts", "Site", "enrol", "enrollers"]


@dataclass(frozen=True, slots=True)
class Applicant:
    """A client that can ask for certificates."""

    identity: PrivateKey
    shown: Credentials | None
    """What it shows on member links."""


class Contexts:
    """`network.Contexts` of a client, each made once."""

    def __init__(self, shown: Credentials | None, root: bytes) -> None:
        self._member = client_context(shown, [root])
        self._enrolment = client_context(None, [root])

    def server(self) -> SSL.Context:
        """None: nobody dials a load."""
        raise LookupError("a load listens nowhere")

    def member(self) -> SSL.Context:
        """Shows what we have."""
        return self._member

    def enrolment(self) -> SSL.Context:
        """Shows nothing."""
        return self._enrolment

    def discovery(self) -> SSL.Context:
        """Verifies nobody."""
        return discovery_context()


class Site:
    """What a client knows of a deployment from its bundle."""

    def __init__(self, deployment: Deployment) -> None:
        bundle = open_bundle(deployment.bundle.read_bytes())
        self.id = bundle.deployment
        self.root = bundle.chains[0].current_root.der
        self.clock = SystemClock()
        self._roots: Collection[KeyId] = [bundle.chains[0].current_root.key_id]
        self._expected = Expectation(roles=frozenset({Role.SERVER}), deployment=self.id)

    def endpoint(self, contexts: Contexts) -> Endpoint:
        """A client's side of links; patient, for a load waits in its own queue as well."""
        return Endpoint(
            role=Role.CLIENT.value,
            clock=self.clock,
            contexts=contexts,
            handshake_timeout=30.0,
            idle_timeout=3600.0,
        )

    def verify(self, chain: tuple[bytes, ...]) -> Peer:
        """Whether it is the server."""
        now: datetime = self.clock.now()
        try:
            return check_peer(chain, self._expected, roots=self._roots, denied=(), now=now)
        except PKIError as exc:
            raise Refusal(CloseCode.UNTRUSTED, str(exc)) from exc


def enrollers(deployment: Deployment) -> list[Applicant]:
    """The clients whose identity keys were kept."""
    rows: list[Mapping[str, str | list[str]]] = json.loads(Path(deployment.enrollers).read_text())

    def key(row: Mapping[str, str | list[str]], name: str) -> PrivateKey:
        return keys.load_private(bytes.fromhex(str(row[name])))

    return [
        Applicant(
            key(row, "identity"),
            Credentials(tuple(map(bytes.fromhex, row["chain"])), key(row, "key")),
        )
        for row in rows
    ]


async def enrol(channel: Channel, site: Site, identity: PrivateKey, csr: bytes) -> Message:
    """Ask for a certificate over an open link, and return the answer."""
    spki = keys.spki(identity.public_key())
    given = await channel.request(NonceGet(kind=Kind.CLIENT_TLS.value, spki=spki), timeout=60.0)
    if not isinstance(given, Nonce):
        return given
    assert channel.peer is not None  # an enrolment link proves the server
    signature = enrolment.sign_request(
        identity,
        deployment=site.id,
        issuer=channel.peer.leaf.key_id,
        nonce=given.nonce,
        csr=csr,
        binding=channel.binding(),
    )
    request = Enrol(
        kind=Kind.CLIENT_TLS.value,
        csr=csr,
        spki=spki,
        nonce=given.nonce,
        signature=signature,
        host="client.bench.test",
    )
    return await channel.request(request, timeout=60.0)
