"""One entry after another: what each must satisfy, and what it changes.

The state of a chain is a function of its entries alone: roots in order, revoked roots, the next
`DEPTH` KeyIDs. `follow` takes one entry further.

    GENESIS                ROTATE                 ROTATE                REVOKE
    root 0, next[16]  -->  root 1 = next[0]  -->  root 2 = next[0]  --> root 0
                           next' = next[1:] + 1   next' = next[1:] + 1

What each kind must satisfy is a table, `CHECKS`, of named checks. In order, for every entry:

1. form       canonical, of a known version and kind, at most 16 KiB (`pki.entries`).
2. order      n counts from 0, and `previous` is the id of entry n - 1: so a GENESIS, which alone
              has none, is the first entry and no other is.
3. ROTATE     commit: the root is next[0]. place: it is a root certificate named for its place.
              carry: the one more is neither a root of the chain nor in next.
4. REVOKE     names roots of the chain, older than the current one, unrevoked, ascending.
   signers    GENESIS: its root. ROTATE: the current root and the new one. REVOKE: the current
              root. One good signature each; all others are dropped.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from pki.entries import (
    MAX_ENTRY,
    NO_PREVIOUS,
    Body,
    Entry,
    Genesis,
    Kind,
    Payload,
    Revoke,
    Root,
    Rotate,
)
from pki.errors import MalformedError, UntrustedError
from pki.keys import KeyId

__all__ = ["CHECKS", "SIGNERS", "Last", "State", "Step", "apply", "follow"]


@dataclass(frozen=True, slots=True)
class Last:
    """Where a chain ends."""

    n: int
    id: bytes


@dataclass(frozen=True, slots=True)
class State:
    """What a chain adds up to."""

    last: Last
    deployment: bytes
    roots: tuple[Root, ...]
    next: tuple[KeyId, ...] = field(repr=False)
    revoked: frozenset[KeyId] = frozenset()
    quorum: int = 0
    recovery: tuple[KeyId, ...] = ()

    @property
    def current(self) -> Root:
        """The newest root, which alone can sign what comes next."""
        return self.roots[-1]

    @property
    def key_ids(self) -> tuple[KeyId, ...]:
        """The KeyIDs of all roots in order, revoked ones too."""
        return tuple(root.key_id for root in self.roots)


@dataclass(frozen=True, slots=True)
class Step:
    """An entry about to be checked, beside the state that it would change."""

    state: State | None
    body: Body
    root: Root | None
    """The root that it brings, if its kind brings one."""


Check: TypeAlias = Callable[[Step], None]
Signers: TypeAlias = Callable[[Step], tuple[bytes, ...]]


def _order(step: Step) -> None:
    expected = 0 if step.state is None else step.state.last.n + 1
    previous = NO_PREVIOUS if step.state is None else step.state.last.id
    if step.body.n != expected:
        raise UntrustedError(f"number {step.body.n}, expected {expected}")
    if step.body.previous != previous:
        raise UntrustedError("does not follow the entry before it")


def _fresh(step: Step) -> None:
    payload = step.body.payload
    if isinstance(payload, Genesis) and step.root and step.root.key_id in payload.next:
        raise MalformedError("the first root is its own successor")


def _commit(step: Step) -> None:
    if step.state and step.root and step.root.key_id != step.state.next[0]:
        raise UntrustedError(f"root {step.root.key_id.hex()} is not the one committed to")


def _carry(step: Step) -> None:
    payload = step.body.payload
    if step.state is None or not isinstance(payload, Rotate):
        return
    if payload.more in step.state.next or payload.more in step.state.key_ids:
        raise UntrustedError("one more key id is not a new one")


def _revocable(step: Step) -> None:
    payload = step.body.payload
    if step.state is None or not isinstance(payload, Revoke):
        return
    older = [root.key_id for root in step.state.roots[:-1]]
    for key in payload.roots:
        if key not in older:
            raise UntrustedError(f"revokes {key.hex()}, which is no older root of the chain")
        if key in step.state.revoked:
            raise UntrustedError(f"revokes {key.hex()} a second time")
    if sorted(payload.roots, key=older.index) != list(payload.roots):
        raise MalformedError("revoked roots are not in the order of the chain")


CHECKS: Final[Mapping[Kind, tuple[Check, ...]]] = {
    Kind.GENESIS: (_order, _fresh),
    Kind.ROTATE: (_order, _commit, _carry),
    Kind.REVOKE: (_order, _revocable),
}
"""What an entry of each kind must satisfy beside its form and its signatures."""


def _current(step: Step) -> tuple[bytes, ...]:
    return () if step.state is None else (step.state.current.spki,)


def _new(step: Step) -> tuple[bytes, ...]:
    return () if step.root is None else (step.root.spki,)


SIGNERS: Final[Mapping[Kind, tuple[Signers, ...]]] = {
    Kind.GENESIS: (_new,),
    Kind.ROTATE: (_current, _new),
    Kind.REVOKE: (_current,),
}
"""Who must have signed an entry of each kind, in the order in which signatures are kept."""


def follow(state: State | None, entry: Entry) -> tuple[State, Entry]:
    """Check an entry in the state before it; give the state after it, and the entry as kept.

    Raises:
        MalformedError, UntrustedError: It is invalid here.
    """
    body = entry.parse()
    place = 0 if state is None else len(state.roots)
    brings = not isinstance(body.payload, Revoke)
    step = Step(state, body, Root.parse(_root_of(body.payload), place) if brings else None)
    for check in CHECKS[body.kind]:
        check(step)
    kept = entry.keep([spki for signers in SIGNERS[body.kind] for spki in signers(step)])
    if len(kept.encode()) > MAX_ENTRY:
        raise MalformedError(f"entry larger than {MAX_ENTRY} bytes")
    return apply(step, kept.id), kept


def _root_of(payload: Payload) -> bytes:
    return b"" if isinstance(payload, Revoke) else payload.root


def apply(step: Step, entry_id: bytes) -> State:
    """The state after an entry that has been checked."""
    last = Last(step.body.n, entry_id)
    match step.body.payload, step.state, step.root:
        case Genesis() as genesis, None, Root() as root:
            return State(
                last,
                genesis.deployment,
                (root,),
                genesis.next,
                quorum=genesis.quorum,
                recovery=genesis.recovery,
            )
        case Rotate(more=more), State() as state, Root() as root:
            following = (*state.next[1:], more)
            return replace(state, last=last, roots=(*state.roots, root), next=following)
        case Revoke(roots=gone), State() as state, None:
            return replace(state, last=last, revoked=state.revoked.union(gone))
        case _:
            raise AssertionError("an entry was applied that the checks do not let through")
