"""Components at the other end of a responder, without sockets: they ask, sign and acknowledge.

Honest unless told otherwise: each part of what they sign can be another than it should be.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from agents.responder.enrolment import Binding, Enrolment
from agents.responder.records import AckRecord, ClientRecord, IssuedRecord
from agents.runtime.channel import Channel
from agents.runtime.errors import StateError
from pki import certificates, enrolment, keys
from pki.acknowledgements import make_ack
from pki.certificates import Kind
from pki.keys import KeyId, PrivateKey
from pki.names import Name
from pki.peers import Peer
from protocol.access import LinkClass
from protocol.messages import Ack, Credential, Enrol, Issued, Nonce, NonceGet, Pending, Refused

__all__ = [
    "EXPORTER",
    "Component",
    "FakeChannel",
    "MemoryAcks",
    "MemoryClients",
    "MemoryIssues",
    "ask",
    "given",
    "peer_of",
]

EXPORTER = b"\x33" * 32


@dataclass(frozen=True)
class Component:
    """Somebody with an identity key."""

    identity: PrivateKey = field(default_factory=keys.generate)

    @property
    def spki(self) -> bytes:
        return keys.spki(self.identity.public_key())

    @property
    def key_id(self) -> KeyId:
        return keys.key_id(self.spki)

    @property
    def id(self) -> bytes:
        return keys.component_id(self.spki)

    def request(
        self,
        kind: Kind,
        nonce: bytes,
        *,
        deployment: bytes,
        issuer: KeyId,
        exporter: bytes = EXPORTER,
        key: PrivateKey | None = None,
        host: str = "host",
    ) -> Enrol:
        """A request for a certificate of a new key, signed for this issuer and link."""
        csr = certificates.make_request(key or keys.generate(), kind)
        signature = enrolment.sign_request(
            self.identity,
            deployment=deployment,
            issuer=issuer,
            nonce=nonce,
            csr=csr,
            binding=exporter,
        )
        return Enrol(
            kind=kind.value,
            csr=csr,
            spki=self.spki,
            nonce=nonce,
            signature=signature,
            host=host,
        )

    def ack(
        self, slot: bytes, n: int, entry_id: bytes, credentials: Sequence[Credential] = ()
    ) -> Ack:
        """An acknowledgement."""
        spki, signature = make_ack(self.identity, slot, n, entry_id)
        return Ack(
            slot=slot,
            n=n,
            entry_id=entry_id,
            spki=spki,
            signature=signature,
            credentials=list(credentials),
        )


def given(answer: Nonce | Refused) -> bytes:
    """The nonce of an answer that has to be one."""
    assert isinstance(answer, Nonce), answer
    return answer.nonce


async def ask(
    service: Enrolment,
    component: Component,
    kind: Kind,
    *,
    deployment: bytes,
    issuer: KeyId,
    host: str = "host",
) -> Issued | Pending | Refused:
    """Ask honestly for a certificate, over an enrolment link."""
    nonce = given(service.nonce(NonceGet(kind=kind.value, spki=component.spki), "a link"))
    message = component.request(kind, nonce, deployment=deployment, issuer=issuer, host=host)
    return await service.enrol(message, Binding(frozenset({issuer}), EXPORTER, None, "127.0.1.11"))


def peer_of(chain: Sequence[bytes]) -> Peer:
    """The peer that a link has verified this chain of."""
    facts = [certificates.read(der) for der in chain]
    name = facts[0].name
    assert isinstance(name, Name)
    ca = facts[1].key_id if len(facts) == 3 else None
    return Peer(name, facts[0], facts[-1].key_id, ca, min(one.not_after for one in facts))


@dataclass(eq=False)
class FakeChannel:
    """What handlers see of a link."""

    peer: Peer | None = None
    link_class: LinkClass = LinkClass.MEMBER
    remote: tuple[str, int] = ("127.0.1.11", 40000)
    exporter: bytes = EXPORTER
    id: str = "00c0ffee"
    kind: str = "server port"
    is_closed: bool = False

    @property
    def name(self) -> str:
        return "somebody"

    def binding(self) -> bytes:
        return self.exporter

    @property
    def channel(self) -> Channel:
        return cast(Channel, self)


class MemoryIssues:
    """An issuance record; `broken` is a disk that is full."""

    def __init__(self) -> None:
        self.records: list[IssuedRecord] = []
        self.broken = False

    async def record(self, issued: IssuedRecord) -> None:
        if self.broken:
            raise StateError("no space left", hint="free some space")
        self.records.append(issued)


class MemoryClients:
    """A registry store; `broken` is a disk that is full."""

    def __init__(self) -> None:
        self.rows: dict[bytes, ClientRecord] = {}
        self.broken = False

    async def save(self, rows: Sequence[ClientRecord]) -> None:
        if self.broken:
            raise StateError("no space left")
        # As a database does: whole seconds.
        self.rows |= {row.id: _whole(row) for row in rows}

    async def load(self) -> list[ClientRecord]:
        return [self.rows[id] for id in sorted(self.rows)]


class MemoryAcks:
    """A store of acknowledgements."""

    def __init__(self) -> None:
        self.acks: dict[tuple[bytes, bytes], AckRecord] = {}

    async def save_ack(self, ack: AckRecord) -> None:
        self.acks[ack.component, ack.slot] = ack

    async def load_acks(self) -> list[AckRecord]:
        return [self.acks[at] for at in sorted(self.acks)]


def _whole(row: ClientRecord) -> ClientRecord:
    last = row.last_registration
    return replace(row, last_registration=last and last.replace(microsecond=0))
