"""What components have acknowledged, in memory and in the store (B12).

Kept is the last one of a component that names an entry of our own ledger. A smaller number
than the one before is only believed when that one is no longer in the ledger.
"""

from collections.abc import Mapping

from agents.member.trust import Trust
from agents.responder.records import AckRecord, AckStore

__all__ = ["Acknowledgements"]


class Acknowledgements:
    """The last acknowledgement of each component, a slot."""

    def __init__(self, store: AckStore) -> None:
        self._store = store
        self._held: dict[tuple[bytes, bytes], AckRecord] = {}

    async def load(self) -> None:
        """Read what the last run kept."""
        self._held = {(ack.slot, ack.component): ack for ack in await self._store.load_acks()}

    async def take(self, ack: AckRecord, trust: Trust) -> None:
        """Keep an acknowledgement whose signature was verified; durable on return.

        One that names no entry of ours says nothing here, and whoever sends many fills nothing.
        """
        if not trust.has(ack.slot, ack.n, ack.entry_id):
            return
        held = self._held.get((ack.slot, ack.component))
        if held is not None and held.n > ack.n and trust.has(ack.slot, held.n, held.entry_id):
            return
        if held is not None and _said(held) == _said(ack):
            return
        await self._store.save_ack(ack)
        self._held[ack.slot, ack.component] = ack

    def of(self, slot: bytes) -> Mapping[bytes, AckRecord]:
        """Those for one slot, by component."""
        return {component: ack for (s, component), ack in self._held.items() if s == slot}


def _said(ack: AckRecord) -> tuple[object, ...]:
    return ack.entry_id, ack.credentials
