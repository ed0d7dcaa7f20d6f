"""A deployment in memory: real roots, ledger and certificates, and members that stand on it.

    site = Deployment()
    client = site.member(Role.CLIENT)
    site.certify(client.keyring, Kind.CLIENT_TLS)
    site.rotate()
    client.trust.entries(site.chain.slot, 0, site.chain.encoded, source="test")

The keys of every root stay at hand, so a test can also sign as a thief would.
"""

import copy
from collections.abc import Collection
from datetime import datetime, timedelta
from pathlib import Path

from agents.member.following import Relay
from agents.member.keyring import Credential, Keyring
from agents.member.member import Member
from agents.member.trust import Trust
from agents.runtime import logs
from agents.runtime.channel import Channel
from agents.runtime.clock import Clock
from agents.runtime.files import Files
from agents.runtime.tasks import Tasks
from pki import bundle, certificates, heads, issuance, keys, ledger, rotation, trust
from pki.certificates import Kind
from pki.entries import DEPTH
from pki.issuance import Issuer
from pki.keys import KeyId, PrivateKey
from pki.names import Role
from pki.peers import Expectation, Peer, check_peer
from pki.state import TrustState
from protocol.messages import HeadNotice
from tests.support.clock import START, FakeClock
from tests.support.files import MemoryFiles

__all__ = ["KINDS", "Deployment", "passes_nothing_on"]

AUDIT = bytes(32)
RESPONDER = bytes(range(100, 116))
"""Id of the responder whose client CA certifies, where the test names none."""
POLICIES = rotation.policies(rotation.SETTINGS)[0]
KINDS = {
    Role.SERVER: Kind.SERVER_TLS,
    Role.HUB: Kind.HUB_TLS,
    Role.ZONE_SERVER: Kind.ZONE_SERVER_TLS,
    Role.CLIENT: Kind.CLIENT_TLS,
}
"""The certificate that each role shows."""


async def passes_nothing_on(_source: Channel | None, _notice: HeadNotice) -> None:
    """The relay of a member that stands alone."""


class Deployment:
    """One server's lineage of roots, and what is signed under it."""

    def __init__(
        self,
        fqdn: str = "server.test",
        *,
        id: bytes = bytes(range(16)),
        now: datetime = START,
    ) -> None:
        self.id = id
        self.now = now
        self.keys = [keys.generate() for _ in range(1 + DEPTH)]
        self.roots = [certificates.make_root(self.keys[0], fqdn, 0, now, 1)]
        self.denied: tuple[KeyId, ...] = ()
        self._fqdn = fqdn
        self._serial = 1 << 120
        self._time = int(now.timestamp())
        following = [keys.key_id(key.public_key()) for key in self.keys[1:]]
        self.chain = ledger.make_genesis(
            self.roots[0], self.keys[0], following, id, self._time, AUDIT
        )
        self.head = self.make_head()

    def twin(self) -> "Deployment":
        """The same deployment so far, to be told another story: who holds it has all keys."""
        other = copy.copy(self)
        other.keys, other.roots = list(self.keys), list(self.roots)
        return other

    @property
    def slot(self) -> bytes:
        """Id of its one slot."""
        return self.chain.slot

    def root_id(self, index: int = -1) -> KeyId:
        """KeyID of a root."""
        return certificates.read(self.roots[index]).key_id

    def rotate(self) -> None:
        """Make the next root, and a HEAD that says so."""
        place = len(self.roots)
        self.keys.append(keys.generate())
        more = keys.key_id(self.keys[-1].public_key())
        root = certificates.make_root(self.keys[place], self._fqdn, place, self.now, 1 + place)
        self.chain = ledger.make_rotate(
            self.chain, root, self.keys[place - 1], self.keys[place], more, self._tick(), AUDIT
        )
        self.roots.append(root)
        self.head = self.make_head()

    def revoke(self, *indexes: int) -> None:
        """Revoke roots, and make a HEAD that says so."""
        ids = [self.root_id(index) for index in indexes]
        self.chain = ledger.make_revoke(self.chain, ids, self.newest_key, self._tick(), AUDIT)
        self.head = self.make_head()

    def deny(self, *key_ids: KeyId) -> None:
        """Deny single keys in a new HEAD."""
        self.denied = (*self.denied, *key_ids)
        self.head = self.make_head()

    @property
    def newest_key(self) -> PrivateKey:
        """The private half of the newest root."""
        return self.keys[len(self.roots) - 1]

    def make_head(self, key: PrivateKey | None = None) -> bytes:
        """A HEAD of the present end, by the newest root or by somebody else."""
        return heads.make_head(
            key or self.newest_key,
            slot=self.chain.slot,
            n=self.chain.last.n,
            entry_id=self.chain.last.id,
            time=self._tick(),
            denied=self.denied,
        )

    def state(self) -> TrustState:
        """What a component believes that has followed so far."""
        return trust.from_chain(self.chain, head=self.head)

    def bundle(self, settings: dict[str, str] | None = None) -> bytes:
        """The init bundle of this moment."""
        return bundle.make_bundle(self.newest_key, [self.chain], [self.head], settings)

    def teach(self, known: Trust) -> None:
        """Tell a component everything."""
        known.entries(self.slot, 0, self.chain.encoded, source="test")
        known.take_head(self.head, source="test")

    # --- certificates

    def root_issuer(self, index: int = -1) -> Issuer:
        """A root as a signer."""
        place = range(len(self.roots))[index]
        return Issuer(self.keys[place], (self.roots[place],))

    def client_ca(self, responder: bytes = RESPONDER, *, root: int = -1) -> Issuer:
        """A fresh client CA of a responder."""
        key = keys.generate()
        der = self._sign(self.root_issuer(root), key, Kind.CLIENT_CA, responder)
        return Issuer(key, (der, self.roots[root]))

    def issue(
        self,
        key: PrivateKey,
        kind: Kind,
        holder: bytes,
        *,
        root: int = -1,
        responder: bytes = RESPONDER,
        validity: timedelta | None = None,
        now: datetime | None = None,
    ) -> tuple[bytes, ...]:
        """A chain for a key: leaf first, root last."""
        client = kind is Kind.CLIENT_TLS
        issuer = self.client_ca(responder, root=root) if client else self.root_issuer(root)
        return (self._sign(issuer, key, kind, holder, validity, now), *issuer.chain)

    def certify(
        self,
        keyring: Keyring,
        kind: Kind,
        *,
        root: int = -1,
        responder: bytes = RESPONDER,
        validity: timedelta | None = None,
        now: datetime | None = None,
    ) -> Credential:
        """Give a member a certificate of a kind."""
        chain = self.issue(
            keyring.prepare(kind),
            kind,
            keyring.id,
            root=root,
            responder=responder,
            validity=validity,
            now=now,
        )
        return keyring.activate(kind, chain, POLICIES[kind].window)

    def _sign(
        self,
        issuer: Issuer,
        key: PrivateKey,
        kind: Kind,
        holder: bytes,
        validity: timedelta | None = None,
        now: datetime | None = None,
    ) -> bytes:
        self._serial += 1
        return issuance.issue(
            issuer,
            certificates.parse_request(certificates.make_request(key, kind)),
            kind=kind,
            name=certificates.name_of(self.id, kind, holder),
            validity=validity or POLICIES[kind].validity,
            now=now or self.now,
            serial=self._serial,
        )

    # --- members

    def member(
        self,
        role: Role,
        *,
        clock: Clock | None = None,
        files: Files | None = None,
        folder: Path = Path("/state"),
        state: TrustState | None = None,
        relay: Relay = passes_nothing_on,
    ) -> Member:
        """A member that has followed so far (or as far as `state`), without a certificate."""
        clock, log = clock or FakeClock(self.now), logs.get_logger()
        files = files or MemoryFiles()
        known = Trust(
            state or self.state(), path=folder / "ledger", files=files, clock=clock, log=log
        )
        known.persist()
        return Member(
            role,
            KINDS[role],
            keyring=Keyring(folder / "keys.db", files),
            trust=known,
            clock=clock,
            log=log,
            tasks=Tasks(clock, log),
            relay=relay,
        )

    def peer(
        self,
        role: Role,
        *,
        id: bytes = bytes(range(1, 17)),
        root: int = -1,
        responder: bytes = RESPONDER,
    ) -> Peer:
        """Who a link says is there: a component with a fresh certificate."""
        chain = self.issue(keys.generate(), KINDS[role], id, root=root, responder=responder)
        return self.peer_of(chain)

    def peer_of(self, chain: Collection[bytes]) -> Peer:
        """Who shows this chain."""
        above = certificates.read(tuple(chain)[1]).name
        return check_peer(
            tuple(chain),
            Expectation(
                roles=frozenset(Role),
                deployment=self.id,
                client_ca_of=None if above is None else above.id,
            ),
            roots=frozenset(certificates.read(root).key_id for root in self.roots),
            denied=frozenset(),
            now=self.now,
        )

    def _tick(self) -> int:
        self._time += 1
        return self._time
