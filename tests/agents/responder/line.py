"""A responder's registry, and clients that register there."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from agents.responder.neighbourhoods import Policy
from agents.responder.records import ClientRecord
from agents.responder.registry import Registry
from agents.runtime import logs
from pki import certificates, issuance, keys
from pki.certificates import Kind
from pki.issuance import Issuer
from pki.peers import Peer
from protocol.messages import Refused, Register, Registered
from tests.support.clock import START, FakeClock, settle
from tests.support.components import Component, MemoryClients, peer_of

DEPLOYMENT = bytes(range(16))
RESPONDER, ZONE = b"\x0a" * 16, b"\x0b" * 16
LONGEST = 90.0
SETTINGS = {"PKIClientTLSKeyRenewalWindowHours": "4"}


class SlowClients(MemoryClients):
    """A store whose disk takes its time, if it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = False
        self.writing = 0
        self.most = 0
        """How many wrote at once."""

    async def save(self, rows: Sequence[ClientRecord]) -> None:
        self.writing += 1
        self.most = max(self.most, self.writing)
        if self.slow:
            await settle()
        await super().save(rows)
        self.writing -= 1


class Line:
    """A responder's registry, and its clients."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.clock = FakeClock()
        self.store = SlowClients()
        self.registry = self.opened()
        root, ca = keys.generate(), keys.generate()
        self.root = certificates.make_root(root, "s.example", 0, START, 1 << 120)
        issuer = Issuer(root, (self.root,))
        self.ca = Issuer(ca, (self._issue(issuer, ca, Kind.CLIENT_CA, RESPONDER), self.root))

    def opened(self) -> Registry:
        return Registry(
            self.store,
            responder=RESPONDER,
            clock=self.clock,
            log=logs.get_logger(),
            policy=self.policy,
            longest=LONGEST,
            settings=lambda: SETTINGS,
        )

    def peer(self, id: bytes) -> Peer:
        """What a link proves of a client."""
        leaf = self._issue(self.ca, keys.generate(), Kind.CLIENT_TLS, id)
        return peer_of((leaf, *self.ca.chain))

    def client(self, address: str, port: int = 4000) -> "Client":
        return Client(self, self.peer(Component().id), address, port)

    async def clients(self, *addresses: str) -> list["Client"]:
        made = [self.client(address) for address in addresses]
        for client in made:
            await client.says(full=True)
        return made

    def _issue(self, issuer: Issuer, key: keys.PrivateKey, kind: Kind, id: bytes) -> bytes:
        return issuance.issue(
            issuer,
            certificates.parse_request(certificates.make_request(key, kind)),
            kind=kind,
            name=certificates.name_of(DEPLOYMENT, kind, id),
            validity=timedelta(days=7),
            now=START,
            serial=3 << 120,
        )


@dataclass
class Client:
    """A client that remembers its token."""

    line: Line
    peer: Peer
    address: str
    port: int
    token: bytes = b""

    @property
    def id(self) -> bytes:
        return self.peer.name.id

    async def asks(self, message: Register, *, remote: str = "") -> Registered | Refused:
        return await self.line.registry.register(self.peer, remote or self.address, message)

    async def says(
        self, *, full: bool = False, lost: list[bytes] | None = None, token: bytes | None = None
    ) -> Registered:
        """Register honestly, and keep the token."""
        message = Register(token=self.token if token is None else token, lost=lost or [])
        if full:
            message = Register(
                host=f"host-{self.address}",
                version="1.0",
                port=self.port,
                address=self.address,
                token=message.token,
                full=True,
                lost=message.lost,
            )
        answer = await self.asks(message)
        assert isinstance(answer, Registered), answer
        self.token = answer.token
        return answer

    @property
    def present(self) -> bool:
        row = self.line.registry.row(self.id)
        return row is not None and row.present

    @property
    def record(self) -> ClientRecord:
        row = self.line.registry.row(self.id)
        assert row is not None
        return row.record


def refused(answer: Registered | Refused, reason: str) -> Refused:
    assert isinstance(answer, Refused), answer
    assert answer.reason == reason
    return answer


def neighbours(answer: Registered) -> tuple[str | None, str | None]:
    return (
        answer.backward.address if answer.backward else None,
        answer.forward.address if answer.forward else None,
    )
