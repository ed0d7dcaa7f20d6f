"""Hubs and zone servers as the server sees them, and the envelopes that hubs bring (E2, I2).

A zone server never connects inwards. What it asks of a server comes in a RELAY on its hub's
link: the hub vouches for who sent it (it ended that link), and for nothing else. A request for
a certificate proves itself by the identity key and the approval; an acknowledgement by its own
signature; a report is the zone server's word about its clients.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from agents.member.answering import NOT_YOURS
from agents.member.following import answer_ledger_get
from agents.member.member import Member
from agents.responder.enrolment import Binding, Enrolment
from agents.responder.records import AckRecord, ClientRecord
from agents.responder.registry import Registry
from agents.responder.service import ack_record
from agents.runtime.channel import Channel
from pki.errors import PKIError
from pki.keys import component_id
from pki.names import Name, Role
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

__all__ = ["Infrastructure", "Zone"]

SILENT_AFTER = 90.0
"""Seconds of network time after which a zone server that reports nothing counts as offline."""


ID_BYTES = 16


@dataclass(slots=True)
class Zone:
    """What is known of a zone server since this server started."""

    hub: bytes
    """Component id of the hub that brought its last message."""
    heard: float
    """Network time of that message."""
    at: datetime
    issued: int = 0
    """Certificates that its client CA says it has signed."""


class Infrastructure:
    """Answers RELAY, and knows which zone servers are there."""

    def __init__(
        self,
        member: Member,
        *,
        enrolment: Enrolment,
        registry: Registry,
        acknowledged: Callable[[AckRecord], Awaitable[None]],
    ) -> None:
        self._member = member
        self._enrolment = enrolment
        self._registry = registry
        self._acknowledged = acknowledged
        self.zones: dict[bytes, Zone] = {}

    def zone_present(self, id: bytes) -> bool:
        """Whether a zone server was heard of lately."""
        zone = self.zones.get(id)
        return zone is not None and self._member.clock.monotonic() - zone.heard < SILENT_AFTER

    async def relay(self, hub: Channel, message: Relay) -> Relayed | Refused:
        """Open an envelope, answer what is in it, and close the answer in another."""
        if len(message.zone) != (ID_BYTES if message.proven else 0):
            return Refused(reason="envelope", text="an id is proven, or there is none")
        try:
            inner = codec.decode(FrameType(message.inner_type), message.inner)
        except (ProtocolError, ValueError) as exc:
            return Refused(reason="envelope", text=str(exc))
        if type(inner) not in relayable(proven=message.proven):
            return Refused(reason="envelope", text=f"{type(inner).__name__} is not relayed")
        self._heard(hub, message)
        answer = await self._answer(hub, message, inner)
        return Relayed(inner_type=answer.FRAME, inner=codec.encode_body(answer))

    async def _answer(self, hub: Channel, envelope: Relay, inner: Message) -> Message:
        match inner:
            case LedgerGet():
                return answer_ledger_get(self._member.trust, inner)
            case NonceGet():
                return self._enrolment.nonce(inner)
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
        await self._registry.adopt([self._client(zone, row) for row in message.clients])
        for ack in message.acks:
            answer = await self._client_ack(zone, ack)
            if isinstance(answer, Refused):
                self._member.log.warning("report.refused", spki=ack.spki, reason=answer.text)
        return Done()

    async def _client_ack(self, zone: bytes, ack: Ack) -> Done | Refused:
        """An acknowledgement of a client of this zone; of others it has nothing to tell."""
        try:
            component = component_id(ack.spki)
        except PKIError as exc:
            return Refused(reason="signature", text=str(exc))
        if self._registry.responder_of(component) != zone:
            return Refused(reason="identity", text="the client does not report to this zone server")
        return await self._ack(ack, Role.CLIENT)

    def _heard(self, hub: Channel, message: Relay) -> None:
        if not message.proven or hub.peer is None:
            return
        issued = self.zones[message.zone].issued if message.zone in self.zones else 0
        clock = self._member.clock
        self.zones[message.zone] = Zone(hub.peer.name.id, clock.monotonic(), clock.now(), issued)

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
