"""The one handler of a responder.

Each message that the access table lets through is answered here.
Who the sender is comes from its link, never from the message: a registration, a ping or a
request for a certificate that names somebody else is refused.
"""

from collections.abc import Awaitable, Callable, Collection
from datetime import datetime

import msgspec

from agents.member.answering import NOT_YOURS, pong, proven
from agents.member.following import answer_ledger_get
from agents.member.member import Member
from agents.responder.enrolment import Binding, Enrolment
from agents.responder.records import AckRecord, Credential
from agents.responder.registry import Registry
from agents.runtime.channel import Channel
from agents.runtime.inbox import say_refused
from agents.runtime.network import Answer
from pki.acknowledgements import verify_ack
from pki.errors import PKIError
from pki.keys import KeyId
from protocol.access import LinkClass
from protocol.messages import (
    Ack,
    Done,
    Enrol,
    LedgerGet,
    Message,
    NonceGet,
    Ping,
    Refused,
    Register,
    Registered,
)

__all__ = ["Service", "ack_record"]


class Service:
    """Answers clients.

    Args:
        shown: KeyIDs of the TLS keys that this responder may have shown on a link, the likeliest
            first.
        acknowledged: takes an acknowledgement that verified; returns when it is kept.
        head: the HEAD that clients may hear of: of a root that our client CA is under.
        spread: seconds over which renewals after its rotation are spread (B13).
    """

    def __init__(
        self,
        member: Member,
        *,
        enrolment: Enrolment,
        registry: Registry,
        shown: Callable[[], Collection[KeyId]],
        acknowledged: Callable[[AckRecord], Awaitable[None]],
        head: Callable[[], bytes | None],
        spread: Callable[[], float],
    ) -> None:
        self._member = member
        self._enrolment = enrolment
        self._registry = registry
        self._shown = shown
        self._acknowledged = acknowledged
        self._head = head
        self._spread = spread
        self._turns = member.endpoint.turns

    def handle(self, channel: Channel, message: Message) -> Answer | Awaitable[Answer]:
        """Answer one message; `agents.runtime.network.Handler`."""
        match message:
            case LedgerGet():
                return answer_ledger_get(self._member.trust, message)
            case Ping():
                return pong(channel, message)
            case NonceGet():
                return self._enrolment.nonce(message, channel.id)
            case Enrol():
                return self._enrolment.enrol(message, self._binding(channel), self._turns.wait)
            case Register():
                return self._register(channel, message)
            case Ack():
                return self._ack(channel, message)
            case _:
                return Refused(reason="unknown", text=f"{type(message).__name__} is not for us")

    # What takes signatures or the registry stands in line: see `agents.runtime.turns`.

    async def _register(self, channel: Channel, message: Register) -> Message:
        await self._turns.wait()
        if channel.is_closed:
            # Nobody hears the answer, and a newer registration may have come by another link.
            return Refused(reason="closed", text="the link has ended")
        answer = await self._registry.register(proven(channel), channel.remote[0], message)
        if isinstance(answer, Registered):
            return msgspec.structs.replace(answer, head=self._head(), spread=self._spread())
        if answer.reason == "address":
            expected = "an address and a port that a neighbour can dial"
            say_refused(self._member.log, channel, message, answer, expected=expected)
        return answer

    def _binding(self, channel: Channel) -> Binding:
        member = channel.link_class is LinkClass.MEMBER
        return Binding(
            issuers=self._shown(),
            exporter=channel.binding(),
            peer=proven(channel).name if member else None,
            address=channel.remote[0],
            link=channel.id,
        )

    async def _ack(self, channel: Channel, message: Ack) -> Done | Refused:
        await self._turns.wait()
        try:
            record = ack_record(
                message, role=proven(channel).name.role.value, now=self._member.clock.now()
            )
        except PKIError as exc:
            return Refused(reason="signature", text=str(exc))
        if record.component != proven(channel).name.id:
            return NOT_YOURS
        await self._acknowledged(record)
        return Done()


def ack_record(message: Ack, *, role: str, now: datetime) -> AckRecord:
    """An acknowledgement as it is kept; its signature is verified here.

    Raises:
        SignatureError: the identity key did not sign it.
    """
    component = verify_ack(
        message.spki, message.signature, slot=message.slot, n=message.n, entry_id=message.entry_id
    )
    return AckRecord(
        component=component,
        slot=message.slot,
        n=message.n,
        entry_id=message.entry_id,
        spki=message.spki,
        signature=message.signature,
        role=role,
        credentials=tuple(
            Credential(c.kind, c.key_id, c.root, c.not_after) for c in message.credentials
        ),
        at=now,
    )
