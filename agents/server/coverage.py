"""Who has followed to a root, who is on the way, and who is switched off (B12).

A component has *moved* to a root when its identity key has signed that it has the entry which
made it (or a later one), and every certificate it holds ends there or at a newer root. Nothing
that the server has sent counts, only what came back signed.

    moved      acknowledged, and all certificates under it
    moving     present, not yet there
    offline    not present; it will follow when it comes back, from whatever it has (B6)

Pure: what is known goes in, rows come out.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from agents.responder.records import AckRecord
from agents.server import lineage
from pki.keys import KeyId
from pki.ledger import Chain

__all__ = ["Component", "Coverage", "CoverageRow", "State", "cover"]


class State(StrEnum):
    """Where a component stands."""

    MOVED = "moved"
    MOVING = "moving"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class Component:
    """A component that is expected to follow."""

    role: str
    id: bytes
    host: str
    present: bool
    last_seen: datetime | None


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """One component's state, and why."""

    component: Component
    state: State
    why: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """Every component's state for one root."""

    root: KeyId
    name: str
    rows: tuple[CoverageRow, ...]

    @property
    def behind(self) -> tuple[CoverageRow, ...]:
        """Those that have not moved."""
        return tuple(row for row in self.rows if row.state is not State.MOVED)

    def counts(self) -> Mapping[str, Counter[str]]:
        """How many of each role are in each state."""
        counts: dict[str, Counter[str]] = {}
        for row in self.rows:
            counts.setdefault(row.component.role, Counter())[row.state.value] += 1
        return counts


def cover(
    chain: Chain,
    root: KeyId,
    components: Iterable[Component],
    acks: Mapping[bytes, AckRecord],
) -> Coverage:
    """The coverage of one root of `chain`.

    Args:
        chain: the ledger as it is.
        root: one of its roots.
        components: everybody who is expected to follow.
        acks: the last acknowledgement of each component for this slot.
    """
    at = lineage.place(chain, root)
    newer = frozenset(r.key_id for r in chain.roots[at:])
    made_by = lineage.made_by(chain, root)
    rows = [_row(chain, made_by, newer, one, acks.get(one.id)) for one in components]
    order: Sequence[State] = (State.MOVING, State.OFFLINE, State.MOVED)
    rows.sort(key=lambda r: (order.index(r.state), r.component.role, r.component.host))
    return Coverage(root, chain.roots[at].name, tuple(rows))


def _row(
    chain: Chain,
    made_by: int,
    newer: frozenset[KeyId],
    component: Component,
    ack: AckRecord | None,
) -> CoverageRow:
    missing = _missing(chain, made_by, newer, ack)
    if missing is None:
        return CoverageRow(component, State.MOVED, "acknowledged; every key is under it")
    if component.present:
        return CoverageRow(component, State.MOVING, missing)
    return CoverageRow(component, State.OFFLINE, f"offline, will follow: {missing}")


def _missing(
    chain: Chain, made_by: int, newer: frozenset[KeyId], ack: AckRecord | None
) -> str | None:
    """What keeps a component from having moved, or None."""
    if ack is None:
        return "never acknowledged"
    if ack.n < made_by or not chain.has(ack.n, ack.entry_id):
        return f"acknowledged entry {ack.n}, this root is entry {made_by}"
    old = sorted({c.kind for c in ack.credentials if c.root not in newer})
    if old:
        return f"{', '.join(old)} still under an older root"
    return None if ack.credentials else "no certificate yet"
