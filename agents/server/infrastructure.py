"""Hubs and zone servers as the server sees them, and the envelopes that hubs bring (E2, I2).

A zone server never connects inwards. What it asks of a server comes in a RELAY on its hub's
link: the hub vouches for who sent it (it ended that link), and for nothing else. A request for
a certificate proves itself by the identity key and the approval; an acknowledgement by its own
signature; a report is the zone server's word about its clients.

1. Whom a hub says it has proven is a zone server that an administrator has approved, or nothing
   that it is said to say is listened to. So a hub cannot speak as anybody else, and what is kept
   of zone servers is bounded by what was approved.
2. What an envelope may ask a certificate for is what a zone server has: its TLS key, and, once
   its link has proven it, its client CA. All others have doors of their own.
3. A zone server has a bounded number of clients; rows beyond that are left out.
4. What a zone server said of its clients counts while it is approved and heard of: the clients of
   one that has burnt down are another's as soon as that tells of them.
5. An acknowledgement is listened to from where its client reports, for what it lists beside its
   signature is that zone server's word. One that comes while the client is still somewhere else
   is to be told again, and not lost: who it is about would count as behind for good (B12).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from agents.member.answering import NOT_YOURS
from agents.member.following import answer_ledger_get
from agents.member.member import Member
from agents.responder.enrolment import Binding, Enrolment
from agents.responder.records import AckRecord, ClientRecord
from agents.responder.registry import Registry
from agents.responder.service import ack_record
from agents.runtime.channel import Channel
from agents.runtime.inbox import say_refused
from pki.certificates import Kind
from pki.errors import PKIError
from pki.keys import component_id
from pki.names import ID_BYTES, Name, Role
from protocol import codec
from protocol.access import relayable
from protocol.errors import ProtocolError
from protocol.frames import FrameType
from protocol.messages import (
    VERSION,
    Ack,
    ClientRow,
    Done,
    Enrol,
    LedgerGet,
    Message,
    NonceGet,
    Refused,
    Relay,
    Relayed,
    Report,
)

__all__ = ["KINDS", "MAX_CLIENTS", "SILENT_AFTER", "Infrastructure", "Zone"]

SILENT_AFTER = 90.0
"""Seconds of network time after which a zone server that reports nothing counts as offline."""


ELSEWHERE = "elsewhere"
"""Reason of a refusal: the client reports to another zone server as yet."""

MAX_CLIENTS = 25_000
"""Clients of one zone server: what one core answers at half load."""

KINDS: Mapping[bool, frozenset[str]] = {
    True: frozenset({Kind.ZONE_SERVER_TLS.value, Kind.CLIENT_CA.value}),
    False: frozenset({Kind.ZONE_SERVER_TLS.value}),
}
"""What an envelope may ask a certificate for, by whether its sender was proven (rule 2)."""


@dataclass(slots=True)
class Zone:
    """What is known of a zone server since this server started."""

    heard: float
    """Network time of its last message."""
    issued: int = 0
    """Certificates that its client CA says it has signed."""
    clients: set[bytes] = field(default_factory=set)
    """Component ids of the clients that it reports."""
    crowded: bool = False
    """Whether it was said that it reports more clients than it may have."""


class Infrastructure:
    """Answers RELAY, and knows which zone servers are there.

    Args:
        approved: component ids of the zone servers that are approved now.
        most: clients that one zone server may have.
    """

    def __init__(
        self,
        member: Member,
        *,
        enrolment: Enrolment,
        registry: Registry,
        acknowledged: Callable[[AckRecord], Awaitable[None]],
        approved: Callable[[], frozenset[bytes]],
        most: int = MAX_CLIENTS,
    ) -> None:
        self._member = member
        self._enrolment = enrolment
        self._registry = registry
        self._acknowledged = acknowledged
        self._approved = approved
        self._most = most
        self._began = member.clock.monotonic()
        self.zones: dict[bytes, Zone] = {}

    def zone_present(self, id: bytes) -> bool:
        """Whether a zone server was heard of lately."""
        zone = self.zones.get(id)
        return zone is not None and self._member.clock.monotonic() - zone.heard < SILENT_AFTER

    def counts(self, id: bytes) -> bool:
        """Whether what a zone server said of its clients still counts (rule 4)."""
        if id not in self._approved():
            return False
        since_start = self._member.clock.monotonic() - self._began
        return since_start < SILENT_AFTER or self.zone_present(id)

    async def relay(self, hub: Channel, message: Relay) -> Relayed | Refused:
        """Open an envelope, answer what is in it, and close the answer in another."""
        answer = await self._open(hub, message)
        if isinstance(answer, Refused):
            expected = "a request of a zone server that is approved"
            say_refused(self._member.log, hub, message, answer, expected=expected)
        return answer

    async def _open(self, hub: Channel, message: Relay) -> Relayed | Refused:
        if len(message.zone) != (ID_BYTES if message.proven else 0):
            return Refused(reason="envelope", text="an id is proven, or there is none")
        try:
            inner = codec.decode(FrameType(message.inner_type), message.inner)
        except (ProtocolError, ValueError) as exc:
            return Refused(reason="envelope", text=str(exc))
        if type(inner) not in relayable(proven=message.proven):
            return Refused(reason="envelope", text=f"{type(inner).__name__} is not relayed")
        if isinstance(inner, NonceGet | Enrol) and inner.kind not in KINDS[message.proven]:
            return Refused(reason="kind", text=f"no {inner.kind!r:.40} in an envelope")
        if message.proven and not self._is_approved(message.zone):
            return Refused(reason="envelope", text="no zone server that is approved has this id")
        self._heard(message)
        answer = await self._answer(hub, message, inner)
        if isinstance(inner, Ack) and isinstance(answer, Refused):
            expected = f"zone server {message.zone.hex()} alone"
            say_refused(self._member.log, hub, inner, answer, expected=expected)
        return Relayed(inner_type=answer.FRAME, inner=codec.encode_body(answer))

    def _is_approved(self, zone: bytes) -> bool:
        return zone in self._approved() and zone != self._member.id

    async def _answer(self, hub: Channel, envelope: Relay, inner: Message) -> Message:
        match inner:
            case LedgerGet():
                return answer_ledger_get(self._member.trust, inner)
            case NonceGet():
                return self._enrolment.nonce(inner, f"{hub.id}/{envelope.zone.hex()}")
            case Enrol():
                return await self._enrolment.enrol(inner, self._binding(hub, envelope))
            case Ack():
                return await self._ack(inner, Role.ZONE_SERVER, only=envelope.zone)
            case Report():
                return await self._report(envelope.zone, inner)
            case _:
                return Refused(reason="envelope", text=f"{type(inner).__name__} is not answered")

    def _binding(self, hub: Channel, envelope: Relay) -> Binding:
        trust = self._member.trust
        return Binding(
            issuers=frozenset({trust.newest_root}),
            exporter=bytes(32),
            peer=Name(trust.deployment, Role.ZONE_SERVER, envelope.zone)
            if envelope.proven
            else None,
            address=f"{hub.remote[0]} (hub)",
            link=hub.id,
        )

    async def _ack(self, message: Ack, role: Role, *, only: bytes | None = None) -> Done | Refused:
        try:
            record = ack_record(message, role=role.value, now=self._member.clock.now())
        except PKIError as exc:
            return Refused(reason="signature", text=str(exc))
        if only is not None and record.component != only:
            return NOT_YOURS
        await self._acknowledged(record)
        return Done()

    async def _report(self, zone: bytes, message: Report) -> Done | Refused:
        self.zones[zone].issued = message.issued
        rows = self._admitted(zone, message.clients)
        await self._registry.adopt([self._client(zone, row) for row in rows])
        later: Refused | None = None
        for ack in message.acks:
            answer = await self._client_ack(zone, ack)
            if isinstance(answer, Refused) and answer.reason == ELSEWHERE:
                later = answer
            elif isinstance(answer, Refused):
                self._member.log.warning("report.refused", spki=ack.spki, reason=answer.text)
        return later or Done()

    def _admitted(self, zone: bytes, rows: Sequence[ClientRow]) -> list[ClientRow]:
        """The rows of a report that there is room for (rule 3)."""
        state = self.zones[zone]
        admitted = []
        for row in rows:
            if row.id not in state.clients:
                if len(state.clients) >= self._most:
                    self._say_crowded(zone, state)
                    continue
                self._left_another(row.id)
                state.clients.add(row.id)
            admitted.append(row)
        return admitted

    def _registry_clients(self, zone: bytes) -> set[bytes]:
        """What an earlier run was told."""
        return {row.record.id for row in self._registry.rows() if row.record.responder == zone}

    def _left_another(self, client: bytes) -> None:
        """A client that moves makes room where it was."""
        before = self._registry.responder_of(client)
        if before in self.zones:
            self.zones[before].clients.discard(client)

    def _say_crowded(self, zone: bytes, state: Zone) -> None:
        if not state.crowded:
            state.crowded = True
            self._member.log.warning(
                "report.crowded", holder=zone.hex(), reason=f"more than {self._most} clients"
            )

    async def _client_ack(self, zone: bytes, ack: Ack) -> Done | Refused:
        """An acknowledgement of a client of this zone; of others it has nothing to tell."""
        try:
            component = component_id(ack.spki)
        except PKIError as exc:
            return Refused(reason="signature", text=str(exc))
        responder = self._registry.responder_of(component)
        if responder is None:
            return Refused(reason="identity", text="no client that is known")
        if responder != zone:
            return Refused(reason=ELSEWHERE, text="the client still reports to another responder")
        return await self._ack(ack, Role.CLIENT)

    def _heard(self, message: Relay) -> None:
        if not message.proven:
            return
        heard = self._member.clock.monotonic()
        zone = self.zones.get(message.zone)
        if zone is None:
            clients = self._registry_clients(message.zone)
            self.zones[message.zone] = Zone(heard, clients=clients)
        else:
            zone.heard = heard

    def _client(self, zone: bytes, row: ClientRow) -> ClientRecord:
        now = self._member.clock.now()
        known = self._registry.row(row.id)
        return ClientRecord(
            id=row.id,
            host=row.host,
            claimed=row.address,
            seen=row.observed,
            port=row.port,
            protocol=VERSION,
            version=row.version,
            last_registration=_date(row.last_registered),
            key_not_after=_date(row.key_not_after),
            root=row.root,
            responder=zone,
            token_out=None,
            token_shown=None,
            lost_at=None if row.status == "present" else now,
            first_seen=known.record.first_seen if known else now,
        )


def _date(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
