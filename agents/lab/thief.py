"""Somebody with copies of the deployment's keys, and everything he can try with them.

He copies the sealed files of server and zone server, with the key files that open them, while
the deployment runs: roots, client CAs and TLS keys, real ones. With a root he mints fresh
certificates, in date, of whatever role, under whatever name. Then he

    knocks      as a TLS client, at a port of the deployment             -> `knock`
    waits       as an impostor, where somebody of the deployment dials   -> `Impostor`
    tells       a component that comes back another history              -> `own_successor`, `tail`

What he sees counts as much as what the victims log: a door is shut only if he says so too.
"""

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from agents.lab.layout import Layout
from agents.member.keyring import Keyring
from agents.runtime.clock import Clock
from agents.runtime.files import DISK
from pki import certificates, keys
from pki.certificates import PROFILES, Kind
from pki.entries import Body, Entry, Root, Rotate, sign_entry
from pki.issuance import Issuer, issue
from pki.keys import KeyId, PrivateKey
from pki.ledger import Chain
from pki.names import Name, Role
from protocol.access import LinkClass
from protocol.codec import encode
from protocol.codes import CloseCode
from protocol.frames import FrameType
from protocol.link import Closed, Event, Link, Opened, Received
from protocol.messages import LedgerEntries, LedgerGet, Message, Ping, Refused
from protocol.tls import TLS, Credentials, client_context, server_context

__all__ = ["Impostor", "Knock", "Loot", "Minted", "Thief", "own_successor", "tail"]

TIMEOUT: Final = 10.0
SERVER_KEYS: Final = ("pki.db", "pki.key")
ZONE_KEYS: Final = ("keys.db", "keys.key")
VALIDITY: Final = timedelta(days=7)
KINDS: Final = {
    Role.SERVER: Kind.SERVER_TLS,
    Role.HUB: Kind.HUB_TLS,
    Role.ZONE_SERVER: Kind.ZONE_SERVER_TLS,
    Role.CLIENT: Kind.CLIENT_TLS,
}


@dataclass(frozen=True, slots=True)
class Minted:
    """A certificate of the thief's making, with its key."""

    role: Role
    credentials: Credentials

    @property
    def fingerprint(self) -> str:
        """What a log line calls it."""
        return certificates.read(self.credentials.chain[0]).fingerprint


@dataclass(frozen=True, slots=True)
class Loot:
    """What one theft has brought."""

    server: Keyring
    zone: Keyring
    chain: Chain
    """The ledger at that time; it is public."""

    def root_key(self, index: int) -> PrivateKey | None:
        """The private half of a root, if the server still had it."""
        return self.server.root(self.chain.roots[index].key_id)

    def root_issuer(self, index: int) -> Issuer:
        """That root as an issuer.

        Raises:
            LookupError: the server had erased it already.
        """
        key = self.root_key(index)
        if key is None:
            raise LookupError(f"root {index} was not among what was stolen")
        return Issuer(key, (self.chain.roots[index].der,))

    def client_ca(self, *, zone: bool) -> Issuer:
        """The client CA of the server or of the zone server.

        Raises:
            LookupError: it had none.
        """
        held = (self.zone if zone else self.server).credential(Kind.CLIENT_CA)
        if held is None:
            raise LookupError("no client CA was among what was stolen")
        return Issuer(held.key, held.chain)

    def mint(
        self, role: Role, id: bytes, *, root: int, now: datetime, zone: bool = False
    ) -> Minted:
        """Make a certificate: under a stolen root, a client's under a stolen client CA.

        Args:
            role: what it says that its holder is.
            id: whose name it carries: a real one.
            root: which root signs it; a client's CA decides that itself.
            now: policy time; it is fresh.
            zone: whether a client's is made by the zone server's CA.
        """
        issuer = self.client_ca(zone=zone) if role is Role.CLIENT else self.root_issuer(root)
        return mint(issuer, role, Name(self.chain.deployment, role, id), now)


def mint(issuer: Issuer, role: Role, name: Name, now: datetime) -> Minted:
    """Sign a fresh key of our own as the TLS key of that name."""
    key = keys.generate()
    kind = KINDS[role]
    leaf = issue(
        issuer,
        certificates.parse_request(certificates.make_request(key, kind)),
        kind=kind,
        name=name,
        validity=VALIDITY,
        now=now,
        serial=secrets.randbits(128) | 1,
    )
    assert PROFILES[kind].role is role  # the table above
    return Minted(role, Credentials((leaf, *issuer.chain), key))


class Thief:
    """Steals, once or more often.

    Args:
        layout: where the victims' files are.
        folder: where the copies go.
    """

    def __init__(self, layout: Layout, folder: Path) -> None:
        self._layout = layout
        self._folder = folder
        self.loot: list[Loot] = []

    def steal(self, chain: Chain) -> Loot:
        """Copy the sealed files and the key files beside them, and open the copies."""
        folder = self._folder / str(len(self.loot))
        copies = []
        for place, names in ((self._layout.server, SERVER_KEYS), (self._layout.zone, ZONE_KEYS)):
            target = folder / place.name
            target.mkdir(parents=True, mode=0o700)
            for name in names:
                shutil.copy(place.state / name, target / name)
            copies.append(Keyring(target / names[0], DISK))
        loot = Loot(copies[0], copies[1], chain)
        self.loot.append(loot)
        return loot


def own_successor(chain: Chain, key: PrivateKey, now: datetime) -> tuple[bytes, Issuer]:
    """A ROTATE from root 0 to a root of the thief's own, signed by both.

    Args:
        chain: the real ledger; of it the GENESIS is used.
        key: of root 0.
        now: policy time.

    Returns:
        The entry, and the thief's root as an issuer.
    """
    mine = keys.generate()
    fqdn = chain.roots[0].name.removesuffix(" Root 0")
    der = certificates.make_root(mine, fqdn, 1, now, secrets.randbits(128) | 1)
    entry = _rotate(chain, der, keys.key_id(keys.generate().public_key()), [key, mine], now)
    return entry.encode(), Issuer(mine, (der,))


def tail(
    chain: Chain, root: Root, signers: Sequence[PrivateKey], now: datetime
) -> tuple[bytes, bytes]:
    """A ROTATE from root 0 to the real root 1 that commits to a key of the thief's in the end.

    With both keys it is a valid second entry for who knows no better.

    Returns:
        The entry, and its id.
    """
    mine = keys.key_id(keys.generate().public_key())
    entry = _rotate(chain, root.der, mine, signers, now)
    return entry.encode(), entry.id


def _rotate(
    chain: Chain, der: bytes, more: KeyId, signers: Sequence[PrivateKey], now: datetime
) -> Entry:
    body = Body(1, chain.slot, int(now.timestamp()), secrets.token_bytes(32), Rotate(der, more))
    return sign_entry(body, signers)


@dataclass(frozen=True, slots=True)
class Knock:
    """What has become of one attempt."""

    admitted: bool
    """Whether a question on a member link was answered."""
    said: str
    """What the other side said, or how it ended."""


async def knock(
    address: str, port: int, minted: Minted, roots: Sequence[bytes], *, source: str
) -> Knock:
    """Connect with a minted certificate, and ask the question that every member answers.

    Args:
        address: of the victim.
        port: of the victim.
        minted: what to show.
        roots: with which to verify the victim: they are public.
        source: address to come from.
    """
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(address, port, local_addr=(source, 0))
            try:
                return await _ask(reader, writer, minted, roots)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError) as exc:
        return Knock(False, f"{type(exc).__name__}: {exc}")


async def _ask(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    minted: Minted,
    roots: Sequence[bytes],
) -> Knock:
    tls = TLS(client_context(minted.credentials, roots), server_side=False)
    heard = b""
    asked = False
    while True:
        writer.write(tls.data_to_send())
        data = await reader.read(1 << 16)
        if not data:
            return Knock(False, str(tls.failure or "closed without a word"))
        heard += tls.receive(data)
        if tls.failure is not None:
            return Knock(False, str(tls.failure))
        if tls.handshake_done and not asked:
            asked = True
            tls.write(encode(Ping(id=1, call=1)))
        # A frame is a length of four bytes, a type of one, and a body.
        while len(heard) >= 5 and len(heard) >= 5 + int.from_bytes(heard[:4], "big"):
            if heard[4] == FrameType.PONG:
                return Knock(True, "answered")
            if heard[4] == FrameType.CLOSE:
                return Knock(False, "closed with a code")
            heard = heard[5 + int.from_bytes(heard[:4], "big") :]


@dataclass(frozen=True, slots=True)
class _Anybody:
    """Whom an impostor takes his victim for: he does not care."""

    role: str


@dataclass(slots=True)
class Impostor:
    """Listens where somebody of the deployment dials, shows what he has, and listens to them.

    Args:
        minted: what he shows.
        roots: with which victims' own certificates are verified: they are public.
        dialler: the role of whoever dials.
        clock: network time.
        entries: the history that he tells to who asks for one.
        tls_client: be the TLS client on the connections that he accepts, as a zone server is.
    """

    minted: Minted
    roots: Sequence[bytes]
    dialler: str
    clock: Clock
    entries: Sequence[bytes] = ()
    tls_client: bool = False
    member_messages: list[str] = field(default_factory=list)
    """What victims have said to him on member links, as to one of theirs."""
    ledgers_told: int = 0
    refusals: list[str] = field(default_factory=list)
    _server: asyncio.Server | None = None

    async def listen(self, address: str, port: int) -> None:
        """Wait there from now on."""
        self._server = await asyncio.start_server(self._serve, address, port)

    async def close(self) -> None:
        """Go away."""
        if self._server is not None:
            self._server.close()
            self._server.close_clients() if hasattr(self._server, "close_clients") else None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._talk(reader, writer)
        except (OSError, TimeoutError):
            return
        finally:
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        make = client_context if self.tls_client else server_context
        link = Link(
            make(self.minted.credentials, self.roots),
            server_side=not self.tls_client,
            local_role=self.minted.role,
            verify=lambda _chain: _Anybody(self.dialler),
            link_class=LinkClass.MEMBER if self.tls_client else None,
            handshake_deadline=self.clock.monotonic() + TIMEOUT,
            idle_timeout=TIMEOUT,
        )
        while True:
            writer.write(link.data_to_send())
            data = await reader.read(1 << 16)
            now = self.clock.monotonic()
            events = link.receive_data(data, now) if data else link.receive_eof(now)
            for event in events:
                self._hear(link, event)
            if any(isinstance(event, Closed) for event in events):
                writer.write(link.data_to_send())
                return

    def _hear(self, link: Link, event: Event) -> None:
        match event:
            case Closed(code=code, text=text):
                if code is not CloseCode.NORMAL:
                    self.refusals.append(f"{code.name.lower()}: {text}")
            case Received(message=message):
                if link.link_class is LinkClass.MEMBER:
                    self.member_messages.append(type(message).__name__)
                link.send(self._answer(message))
            case Opened():
                if self.tls_client:
                    link.send(Ping(id=1, call=1))

    def _answer(self, message: Message) -> Message:
        if isinstance(message, LedgerGet):
            self.ledgers_told += 1
            return LedgerEntries(
                call=message.call,
                trace=message.trace,
                slot=message.slot,
                first=1,
                entries=list(self.entries),
            )
        return Refused(call=message.call, trace=message.trace, reason="busy")
