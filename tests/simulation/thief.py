"""Somebody who copies the server's sealed files, again and again, and uses what is in them.

Each theft brings the private halves of the newest root and the one before, never a standby key.
With them he is, for whoever still trusts one of those roots, the server: he listens, shows a
certificate of the server's name, signs clients' keys, and tells a history of his own:

    what is true up to where the victim stands
    REVOKE of older roots, and ROTATE as far as he has both keys, with a successor of his own
      in the commitment; a HEAD of the year 2099 that denies the server's keys
    ROTATE to a root of his own making, which nobody committed to

A zone server dials nobody: he comes to it as its hub (`call`), tells it the same, and signs the
keys that it asks for.

`forged` and `minted` say what is of his making, for those who watch.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from OpenSSL import SSL

from agents.member.keyring import Keyring
from agents.responder.enrolment import Binding, Enrolment, Terms
from agents.responder.records import IssuedRecord
from agents.runtime.channel import Channel
from agents.runtime.clock import Clock
from agents.runtime.dialer import DialError, dial
from agents.runtime.errors import UnavailableError
from agents.runtime.listener import Listener
from agents.runtime.logs import get_logger
from agents.runtime.network import Endpoint
from pki import certificates, heads, issuance, keys, ledger, rotation
from pki.certificates import Kind
from pki.entries import Body, Rotate, sign_entry
from pki.issuance import Issuer
from pki.keys import KeyId, PrivateKey
from pki.ledger import Chain
from pki.names import Role
from pki.peers import Peer
from protocol import tls
from protocol.access import LinkClass
from protocol.messages import (
    Ack,
    Done,
    Enrol,
    HeadNotice,
    LedgerEntries,
    LedgerGet,
    Message,
    NonceGet,
    Pending,
    Ping,
    Pong,
    Refused,
)
from tests.simulation.disk import Platter
from tests.support.components import peer_of
from tests.support.files import MemoryFiles

__all__ = ["ADDRESS", "PORT", "Story", "Thief"]

ADDRESS: Final = "10.6.6.6"
PORT: Final = 14172
HUB_PORT: Final = 14173
AGAIN: Final = 1.0
"""Seconds until he comes again to a zone server that would not have him, or has had enough."""
OF_ZONES: Final = (Kind.ZONE_SERVER_TLS, Kind.CLIENT_CA)
FAR: Final = 4_070_908_800
"""1 January 2099, in Unix seconds."""
POLICIES: Final = rotation.policies(rotation.SETTINGS)[0]


@dataclass(frozen=True)
class Story:
    """What one victim is told."""

    slot: bytes
    ids: tuple[bytes, ...]
    """Of the entries, in order."""
    entries: tuple[bytes, ...]
    head: bytes | None


@dataclass
class Loot:
    """What all thefts have brought."""

    roots: dict[KeyId, PrivateKey] = field(default_factory=dict)
    ders: dict[KeyId, bytes] = field(default_factory=dict)
    server: bytes = b""
    """The server's component id."""


class Thief:
    """Steals, and acts on it. His clock is right.

    Args:
        fqdn: of the server, whose roots he imitates.
    """

    def __init__(self, clock: Clock, fqdn: str) -> None:
        self.loot = Loot()
        self.forged: set[bytes] = set()
        """Ids of entries that he made."""
        self.minted: set[int] = set()
        """Serial numbers of certificates that he signed."""
        self.fooled: set[str] = set()
        """Addresses of who took him for the server."""
        self._clock = clock
        self._fqdn = fqdn
        self._story: Story | None = None
        self._issuer: Issuer | None = None
        self._credentials: tls.Credentials | None = None
        self._enrolment: Enrolment | None = None
        self._deployment = b""
        self._client_ca: Issuer | None = None
        self._calls: list[asyncio.Task[None]] = []

    # --- what he has

    def steal(self, platter: Platter, folder: Path, chain: Chain) -> None:
        """Copy the server's keys, as they lie on its disk."""
        copies = MemoryFiles()
        copies.content = {
            path: data for path, data in platter.content.items() if path.parent == folder
        }
        keyring = Keyring(folder / "pki.db", copies)
        for root in chain.roots:
            key = keyring.root(root.key_id)
            if key is not None:
                self.loot.roots[root.key_id], self.loot.ders[root.key_id] = key, root.der
        self.loot.server, self._deployment = keyring.id, chain.deployment

    def issuers(self, among: Sequence[KeyId]) -> list[Issuer]:
        """Those stolen roots that are among these, as issuers, oldest first."""
        return [
            Issuer(self.loot.roots[id], (self.loot.ders[id],))
            for id in among
            if id in self.loot.roots
        ]

    # --- what he tells

    def tell(self, truth: Chain, trusted: Sequence[KeyId]) -> bool:
        """Prepare for a victim that stands at `truth`; False where he has nothing to show.

        Args:
            truth: what the victim believes.
            trusted: the roots that it trusts, oldest first.
        """
        able = self.issuers(trusted) or self.issuers([root.key_id for root in truth.roots])
        if not able:
            return False
        self._issuer = able[-1]
        self._credentials = self._mint(self._issuer, Kind.SERVER_TLS, self.loot.server)
        self._client_ca = self._mint_ca(self._issuer, self.loot.server)
        self._story = self._forge(truth)
        self._enrolment = Enrolment(
            dict.fromkeys((Kind.CLIENT_TLS, *OF_ZONES), self),
            deployment=self._deployment,
            record=self,
            clock=self._clock,
            log=get_logger(),
        )
        return True

    def _forge(self, truth: Chain) -> Story:
        now = int(self._clock.now().timestamp())
        chain, key = truth, self.loot.roots.get(truth.current_root.key_id)
        entries = list(truth.encoded)
        head: bytes | None = None
        if key is not None:
            chain = self._branch(truth, key, now)
            key = self.loot.roots[chain.current_root.key_id]
            denied = [KeyId(secrets.token_bytes(32))]
            head = heads.make_head(
                key,
                slot=chain.slot,
                n=chain.last.n,
                entry_id=chain.last.id,
                time=FAR,
                denied=denied,
            )
            entries = [*chain.encoded, self._alien(chain, key, now)]
        ids = [one.id for one in chain.entries]
        self.forged.update(ids[len(truth.entries) :])
        return Story(truth.slot, tuple(ids), tuple(entries), head)

    def _branch(self, chain: Chain, key: PrivateKey, now: int) -> Chain:
        """As much history as the stolen keys can sign."""
        older = [r.key_id for r in chain.roots[:-1] if r.key_id not in chain.revoked]
        if older:
            chain = ledger.make_revoke(chain, older, key, now, bytes(32))
        while (following := self.loot.roots.get(chain.state.next[0])) is not None:
            chain = ledger.make_rotate(
                chain,
                self.loot.ders[chain.state.next[0]],
                key,
                following,
                keys.key_id(keys.generate().public_key()),
                now,
                secrets.token_bytes(32),
            )
            key = following
        return chain

    def _alien(self, chain: Chain, key: PrivateKey, now: int) -> bytes:
        """A ROTATE to a root that is all his own."""
        mine = keys.generate()
        der = certificates.make_root(
            mine, self._fqdn, len(chain.roots), self._clock.now(), secrets.randbits(120) | 1
        )
        more = keys.key_id(keys.generate().public_key())
        body = Body(chain.last.n + 1, chain.last.id, now, bytes(32), Rotate(der, more))
        entry = sign_entry(body, [key, mine])
        self.forged.add(entry.id)
        return entry.encode()

    # --- what he signs

    def _sign(self, issuer: Issuer, key: PrivateKey, kind: Kind, id: bytes) -> bytes:
        der = issuance.issue(
            issuer,
            certificates.parse_request(certificates.make_request(key, kind)),
            kind=kind,
            name=certificates.name_of(self._deployment, kind, id),
            validity=POLICIES[kind].validity,
            now=self._clock.now(),
            serial=secrets.randbits(120) | 1 << 120,
            constraints=(),  # nobody's rules: a root of a clock that was ahead will do
        )
        self.minted.add(certificates.read(der).serial)
        return der

    def _mint(self, issuer: Issuer, kind: Kind, id: bytes) -> tls.Credentials:
        key = keys.generate()
        return tls.Credentials((self._sign(issuer, key, kind, id), *issuer.chain), key)

    def _mint_ca(self, root: Issuer, id: bytes) -> Issuer:
        key = keys.generate()
        return Issuer(key, (self._sign(root, key, Kind.CLIENT_CA, id), *root.chain))

    async def admit(self, applicant: object) -> Pending | Refused | None:
        """Everybody (`agents.responder.enrolment.Signing`)."""
        return None

    async def terms(self, kind: Kind) -> Terms:
        """His client CA for clients, and a stolen root for zone servers."""
        issuer = self._issuer if kind in OF_ZONES else self._client_ca
        if issuer is None:
            raise UnavailableError("nothing stolen yet")
        return Terms(issuer, POLICIES[kind])

    async def record(self, issued: IssuedRecord) -> None:
        """Remember what he signed (`agents.responder.records.IssuanceRecord`)."""
        self.minted.add(issued.serial)

    # --- where he waits

    async def listen(self) -> Listener:
        """Wait for those whom the network leads here."""
        return await Listener.start(
            ADDRESS,
            PORT,
            endpoint=Endpoint(role=Role.SERVER.value, clock=self._clock, contexts=self),
            verify=_anybody,
            handler=self._handle,
            on_channel=self._greet,
            kind="thief",
        )

    def _greet(self, channel: Channel) -> None:
        """Tell a victim that there is news; where it comes for it, it hears the story."""
        if channel.link_class is LinkClass.MEMBER and self._story and self._story.head:
            notice = HeadNotice(head=self._story.head, spread=0.0)
            asyncio.get_running_loop().create_task(self._tell(channel, notice))

    async def _tell(self, channel: Channel, notice: HeadNotice) -> None:
        with contextlib.suppress(UnavailableError):
            await channel.request(notice)

    async def _handle(self, channel: Channel, message: Message) -> Message:
        match message:
            case Ping():
                return Pong(id=message.id)
            case LedgerGet():
                return self._answer(message)
            case Ack():
                self.fooled.add(channel.remote[0])
                return Done()
            case NonceGet() if self._enrolment is not None:
                return self._enrolment.nonce(message, channel.id)
            case Enrol() if self._enrolment is not None:
                return await self._enrolment.enrol(message, self._binding(channel, message))
            case _:
                return Refused(reason="unavailable", text="later", retry_after=1.0)

    def _binding(self, channel: Channel, message: Enrol) -> Binding:
        remote = channel.remote[0]
        if message.kind in OF_ZONES:  # as if a server far behind him had been asked
            peer = channel.peer.name if channel.peer is not None else None
            return Binding(frozenset(self.loot.roots), bytes(32), peer, remote)
        shown = self._credentials.chain if self._credentials is not None else ()
        leaves = frozenset(certificates.read(leaf).key_id for leaf in shown[:1])
        return Binding(leaves, channel.binding(), None, remote)

    def _answer(self, asked: LedgerGet) -> LedgerEntries:
        story = self._story
        if story is None or asked.slot != story.slot:
            return LedgerEntries(slot=asked.slot, first=0, entries=[], more=False, head=None)
        first = asked.n + 1 if story.ids[asked.n : asked.n + 1] == (asked.entry_id,) else 0
        return LedgerEntries(
            slot=asked.slot,
            first=first,
            entries=list(story.entries[first:]),
            more=False,
            head=story.head,
        )

    # --- `agents.runtime.network.Contexts`

    def server(self) -> SSL.Context:
        """What he shows to who dials him."""
        if self._credentials is None:
            raise LookupError("nothing stolen yet")
        return tls.server_context(self._credentials, list(self.loot.ders.values()))

    def member(self) -> SSL.Context:
        """What he shows to whom he dials."""
        return tls.client_context(self._credentials, list(self.loot.ders.values()))

    def enrolment(self) -> SSL.Context:
        """Unused: he has better."""
        return tls.client_context(None, list(self.loot.ders.values()))

    def discovery(self) -> SSL.Context:
        """Unused: the ledger is no secret."""
        return tls.discovery_context()

    # --- where he comes as a hub

    def call(self, host: str, roots: Sequence[bytes]) -> None:
        """Come to a zone server again and again, with the story that was prepared for it."""
        if self._issuer is not None:
            work = self._call(host, self._issuer, list(roots))
            self._calls.append(asyncio.get_running_loop().create_task(work))

    def hang_up(self) -> None:
        """Come no more."""
        for call in self._calls:
            call.cancel()
        self._calls.clear()

    async def _call(self, host: str, issuer: Issuer, roots: Sequence[bytes]) -> None:
        while True:
            try:
                channel = await self._dial_as_hub(host, issuer, roots)
            except DialError:
                pass
            else:
                try:
                    self._greet(channel)
                    await channel.closed()
                finally:
                    channel.abort()
            await asyncio.sleep(AGAIN)

    async def _dial_as_hub(self, host: str, issuer: Issuer, roots: Sequence[bytes]) -> Channel:
        credentials = self._mint(issuer, Kind.HUB_TLS, secrets.token_bytes(16))
        return await dial(
            host,
            HUB_PORT,
            endpoint=Endpoint(role=Role.HUB.value, clock=self._clock, contexts=self),
            link_class=None,
            server_side=True,
            verify=_anybody,
            handler=self._handle,
            context=tls.server_context(credentials, roots),
            local_address=ADDRESS,
            kind="thief",
        )

    # --- where he knocks

    async def knock_as_hub(self, host: str, issuer: Issuer, roots: Sequence[bytes]) -> bool:
        """Whether a zone server stays on a link with him."""
        try:
            channel = await self._dial_as_hub(host, issuer, roots)
        except DialError:
            return False
        is_member = channel.link_class is LinkClass.MEMBER
        channel.abort()
        return is_member

    async def knock(
        self,
        host: str,
        issuer: Issuer,
        role: Role,
        id: bytes,
        roots: Sequence[bytes],
        *,
        responder: bytes = b"",
        port: int = PORT,
    ) -> bool:
        """Whether this door opens to a fresh certificate under a stolen root.

        Args:
            responder: whose client CA he imitates; the server's where it is nobody's.
            roots: every root that there is, DER: whoever answers is welcome.
        """
        if role is Role.CLIENT:
            credentials = self._mint(
                self._mint_ca(issuer, responder or self.loot.server), Kind.CLIENT_TLS, id
            )
        else:
            credentials = self._mint(issuer, Kind.HUB_TLS, id)
        try:
            channel = await dial(
                host,
                port,
                endpoint=Endpoint(role=role.value, clock=self._clock, contexts=self),
                link_class=LinkClass.MEMBER,
                verify=_anybody,
                context=tls.client_context(credentials, roots),
                local_address=ADDRESS,
                kind="thief",
            )
        except DialError:
            return False
        channel.abort()
        return True


def _anybody(chain: tuple[bytes, ...]) -> Peer:
    return peer_of(chain)
