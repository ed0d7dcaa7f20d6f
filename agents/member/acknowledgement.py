"""Telling the responder, signed, how far this component has followed.

The identity key signs slot, n and entry id; the responder relays it unchanged, so the server
counts coverage (B12) from words that nobody on the way can make up. With it goes what this
component holds: coverage says *moved* once every certificate ends at the newest root.

Who hears it keeps what arrives last. Over two links the older word can arrive last, also when
its link was given up meanwhile, so while one has no answer none counts as said: it is due again.
"""

from agents.member.keyring import Keyring
from agents.member.trust import Trust
from agents.runtime.channel import Channel
from pki.acknowledgements import make_ack
from protocol.messages import Ack, Credential, Done, Message

__all__ = ["Acknowledgement"]

State = tuple[object, ...]


class Acknowledgement:
    """Says what is new, once to the responder that we report to now."""

    def __init__(self, keyring: Keyring, trust: Trust) -> None:
        self._keyring = keyring
        self._trust = trust
        self._said: tuple[bytes, State] | None = None
        self._under_way = 0
        self._doubtful = False
        """Whether another one may arrive after the next that is answered, or has."""

    def due(self, responder: bytes) -> bool:
        """Whether this responder has not heard our present state."""
        return self._said != (responder, self._state())

    async def send(self, channel: Channel, responder: bytes) -> Message:
        """Acknowledge every slot over this link: DONE, or the first answer that is another.

        Raises:
            UnavailableError: the link broke.
        """
        state, answered = self._state(), False
        self._under_way += 1
        try:
            for slot in self._trust.slots:
                answer = await channel.request(self._ack(slot))
                if not isinstance(answer, Done):
                    return answer
            answered = True
        finally:
            self._under_way -= 1
            self._doubtful |= not answered
        alone = not self._under_way and not self._doubtful
        self._said, self._doubtful = (responder, state) if alone else None, self._under_way > 0
        return Done()

    def _ack(self, slot: bytes) -> Ack:
        last = self._trust.last(slot)
        spki, signature = make_ack(self._keyring.identity, slot, last.n, last.id)
        return Ack(
            slot=slot,
            n=last.n,
            entry_id=last.id,
            spki=spki,
            signature=signature,
            credentials=[
                Credential(
                    kind=held.kind.value,
                    key_id=held.leaf.key_id,
                    root=held.root,
                    not_after=int(held.leaf.not_after.timestamp()),
                )
                for held in self._keyring.credentials
            ],
        )

    def _state(self) -> State:
        return (
            tuple(self._trust.last(slot) for slot in self._trust.slots),
            tuple(held.chain for held in self._keyring.credentials),
        )
