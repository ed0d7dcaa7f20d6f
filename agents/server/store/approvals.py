"""Which hubs and zone servers an administrator lets in (I2).

    (asks) ──► pending ──► approved ◄──► revoked
                  │           ▲
                  └► denied ──┘

1. A request is known by its identity key's KeyID; host and address are what the requester
   says and where it came from, and decide nothing.
2. Asking again changes what is shown, never the state: who was denied or revoked stays so
   until an administrator decides otherwise.
3. An identity has one role. Approved as a hub, it cannot come back as a zone server.
4. Strangers can ask. At most `MAX_PENDING` requests wait, and at most `MAX_PENDING_ADDRESS`
   from one address, so that one machine cannot keep others off the list; further ones are told
   to come back. Where room is needed, requests are forgotten that nobody has decided on or
   repeated for a day. The history has one line for the first request and one a decision, so a
   stranger who asks all day adds nothing to it; what is forgotten leaves no line.
5. A decision is also a line in the activity log, in the same transaction.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from agents.runtime.errors import AgentError, UnavailableError
from agents.server.store import audit
from agents.server.store.schema import approval as table
from agents.server.store.schema import approval_event as events
from pki.names import ID_BYTES

__all__ = [
    "FORGOTTEN_AFTER",
    "MAX_PENDING",
    "MAX_PENDING_ADDRESS",
    "MOVES",
    "Approval",
    "DecisionError",
    "Event",
    "OtherRoleError",
    "State",
    "ask",
    "decide",
    "every",
    "get",
    "history",
]

MAX_PENDING: Final = 1000
"""Requests that may wait for a decision at one time."""

MAX_PENDING_ADDRESS: Final = 10
"""Of these, from one address: a hub's address stands for each zone server that it relays for."""

FORGOTTEN_AFTER: Final = timedelta(days=1)
"""After how long without being repeated a request makes room for another."""

RETRY_AFTER: Final = 300.0
"""Seconds after which one asks again who found the list full."""


class State(StrEnum):
    """What is true of a request."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    REVOKED = "revoked"


MOVES: Final = MappingProxyType(
    {
        State.PENDING: frozenset({State.APPROVED, State.DENIED}),
        State.APPROVED: frozenset({State.REVOKED}),
        State.DENIED: frozenset({State.APPROVED}),
        State.REVOKED: frozenset({State.APPROVED}),
    }
)
"""State -> what an administrator may make of it."""


class DecisionError(AgentError):
    """A decision that cannot be made: nobody asked, or it is not possible from here.

    Args:
        identity: KeyID, 32 bytes.
        state: What it is now; None: no such request.
        asked: What was decided.
    """

    def __init__(self, identity: bytes, state: State | None, asked: State) -> None:
        self.identity, self.state, self.asked = identity, state, asked
        if state is None:
            text, allowed = f"no request of {identity.hex()}", ""
        else:
            text = f"{identity.hex()} is {state}, and cannot become {asked}"
            allowed = f"possible now: {', '.join(sorted(MOVES[state]))}"
        super().__init__(text, allowed)


class OtherRoleError(AgentError):
    """An identity that asked for one role asks for another (rule 3).

    Args:
        identity: KeyID, 32 bytes.
        role: The role it asked for first.
        asked: The one it asks for now.
    """

    def __init__(self, identity: bytes, role: str, asked: str) -> None:
        self.identity, self.role, self.asked = identity, role, asked
        super().__init__(
            f"{identity.hex()} is known as {role}, and asks to be {asked}",
            "give the new component a state directory, and so an identity, of its own",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A request, and what became of it."""

    identity: bytes
    """KeyID of the identity key, 32 bytes: the fingerprint to compare."""
    role: str
    host: str
    address: str
    first_seen: datetime
    last_seen: datetime
    state: State
    decided_by: str | None
    decided_at: datetime | None
    reason: str

    @property
    def component(self) -> bytes:
        """Component id of who asked (F1)."""
        return self.identity[:ID_BYTES]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A line of a request's history."""

    seq: int
    identity: bytes
    at: datetime
    actor: str
    """Who decided; empty for the request itself."""
    state: State
    """What was true from then on."""
    host: str
    address: str
    reason: str


def ask(
    connection: Connection,
    *,
    identity: bytes,
    role: str,
    host: str,
    address: str,
    at: datetime,
    max_pending: int = MAX_PENDING,
    max_address: int = MAX_PENDING_ADDRESS,
) -> Approval:
    """Note that a component asks; returns its request as it stands.

    Raises:
        OtherRoleError: this identity asked for another role before.
        UnavailableError: too many requests wait; with when to come back.
        ValueError: an identity that is no KeyID.
    """
    if len(identity) != 32:
        raise ValueError(f"identity of {len(identity)} bytes is no key id")
    known = get(connection, identity)
    if known is None:
        if _crowd(connection, address, max_pending, max_address):
            _forget(connection, before=at - FORGOTTEN_AFTER)
        crowd = _crowd(connection, address, max_pending, max_address)
        if crowd:
            hint = "deny those that are not yours: anchorline approvals list"
            raise UnavailableError(crowd, RETRY_AFTER, hint)
        return _first(connection, identity, role, host, address, at)
    if known.role != role:
        raise OtherRoleError(identity, known.role, role)
    connection.execute(
        update(table)
        .where(table.c.identity == identity)
        .values(host=host, address=address, last_seen=at)
    )
    return _known(connection, identity)


def decide(
    connection: Connection,
    *,
    identity: bytes,
    state: State,
    actor: str,
    at: datetime,
    reason: str = "",
) -> Approval:
    """Make a decision, in the request, its history and the activity log.

    Raises:
        DecisionError: there is no such request, or its state does not allow it.
    """
    known = get(connection, identity)
    if known is None or state not in MOVES[known.state]:
        raise DecisionError(identity, known.state if known else None, state)
    connection.execute(
        update(table)
        .where(table.c.identity == identity)
        .values(state=state.value, decided_by=actor, decided_at=at, reason=reason)
    )
    decided = _known(connection, identity)
    _note(connection, decided, actor=actor, at=at)
    act = audit.Act(
        at=at,
        actor=actor,
        action=f"approval.{state}",
        subject=identity.hex(),
        reason=reason,
        details={"role": known.role, "host": known.host, "from": known.state.value},
    )
    audit.append(connection, act)
    return decided


def get(connection: Connection, identity: bytes) -> Approval | None:
    """The request of an identity, or None."""
    query = select(table).where(table.c.identity == identity)
    row = connection.execute(query).mappings().first()
    return None if row is None else _approval(row)


def every(connection: Connection, *, state: State | None = None) -> list[Approval]:
    """Every request, or those in one state, in the order in which they were first seen."""
    query = select(table).order_by(table.c.first_seen, table.c.identity)
    if state is not None:
        query = query.where(table.c.state == state.value)
    return [_approval(row) for row in connection.execute(query).mappings()]


def history(connection: Connection, *, identity: bytes | None = None) -> list[Event]:
    """The history of one request, or of all, oldest first."""
    query = select(events).order_by(events.c.seq)
    if identity is not None:
        query = query.where(events.c.identity == identity)
    rows = connection.execute(query).mappings()
    return [Event(**{**row, "state": State(row["state"])}) for row in rows]


def _crowd(connection: Connection, address: str, max_pending: int, max_address: int) -> str | None:
    """Why there is no room for one more request, or None (rule 4)."""
    waiting = select(func.count()).select_from(table).where(table.c.state == State.PENDING.value)
    if connection.execute(waiting).scalar_one() >= max_pending:
        return f"{max_pending} requests wait for a decision already"
    here = waiting.where(table.c.address == address)
    if connection.execute(here).scalar_one() >= max_address:
        return f"{max_address} requests from {address} wait for a decision already"
    return None


def _forget(connection: Connection, *, before: datetime) -> None:
    """Drop requests that nobody decided on and nobody repeated (rule 4)."""
    stale = (table.c.state == State.PENDING.value) & (table.c.last_seen < before)
    identities = select(table.c.identity).where(stale)
    connection.execute(delete(events).where(events.c.identity.in_(identities)))
    connection.execute(delete(table).where(stale))


def _first(
    connection: Connection, identity: bytes, role: str, host: str, address: str, at: datetime
) -> Approval:
    connection.execute(
        insert(table).values(
            identity=identity,
            role=role,
            host=host,
            address=address,
            first_seen=at,
            last_seen=at,
            state=State.PENDING.value,
            reason="",
        )
    )
    asked = _known(connection, identity)
    _note(connection, asked, actor="", at=at)
    return asked


def _note(connection: Connection, approval: Approval, *, actor: str, at: datetime) -> None:
    connection.execute(
        insert(events).values(
            identity=approval.identity,
            at=at,
            actor=actor,
            state=approval.state.value,
            host=approval.host,
            address=approval.address,
            reason=approval.reason,
        )
    )


def _known(connection: Connection, identity: bytes) -> Approval:
    row = connection.execute(select(table).where(table.c.identity == identity)).mappings().one()
    return _approval(row)


def _approval(row: RowMapping) -> Approval:
    return Approval(**{**row, "state": State(row["state"])})
