"""A chain of entries: one slot's lineage of roots, and what it adds up to.

A chain is valid if each entry is, in the state that the entries before it have made. The state
is a function of the chain alone: roots in order, revoked roots, the next `DEPTH` KeyIDs.

    GENESIS                ROTATE                 ROTATE                REVOKE
    root 0, next[16]  -->  root 1 = next[0]  -->  root 2 = next[0]  --> root 0
                           next' = next[1:] + 1   next' = next[1:] + 1

What each kind must satisfy is a table, `CHECKS`, of named checks. In order, for every entry:

1. form       canonical, of a known version and kind, at most 16 KiB (`pki.entries`).
2. order      n counts from 0, and `previous` is the id of entry n - 1.
3. ROTATE     commit: the root is next[0]. place: it is a root certificate named for its place.
              carry: the one more is neither a root of the chain nor in next.
4. REVOKE     names roots of the chain, older than the current one, unrevoked, ascending.
   signers    GENESIS: its root. ROTATE: the current root and the new one. REVOKE: the current
              root. One good signature each; all others are dropped.

A chain ends before its first entry that is invalid or unknown. Which of two valid chains is to
be believed is in `pki.succession`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from pki import encoding
from pki.entries import (
    DEPLOYMENT_BYTES,
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
    UnknownEntryError,
    decode_entry,
    sign_entry,
)
from pki.errors import MalformedError, PKIError, RefusedError, UntrustedError
from pki.keys import KeyId, PrivateKey, key_id

__all__ = [
    "CHECKS",
    "MAX_CHAIN",
    "MAX_ENTRIES",
    "Chain",
    "Last",
    "Problem",
    "State",
    "extend",
    "make_genesis",
    "make_revoke",
    "make_rotate",
    "read_chain",
]

MAX_ENTRIES: Final = 1024
MAX_CHAIN: Final = 4 * 1024 * 1024
"""Bytes of all entries of a slot, each as it is kept."""


@dataclass(frozen=True, slots=True)
class Last:
    """Where a chain ends."""

    n: int
    id: bytes


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a chain ends before the entry of this number."""

    n: int
    text: str
    unknown: bool = False
    """Of a later version or kind: this program is too old to read on."""

    def __str__(self) -> str:
        return f"entry {self.n}: {self.text}"


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


def _first(step: Step) -> None:
    if (step.body.kind is Kind.GENESIS) != (step.state is None):
        raise UntrustedError(f"{step.body.kind.name} at place {step.body.n}")


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
    Kind.GENESIS: (_first, _order, _fresh),
    Kind.ROTATE: (_first, _order, _commit, _carry),
    Kind.REVOKE: (_first, _order, _revocable),
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


def _follow(state: State | None, entry: Entry) -> tuple[State, Entry]:
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
    return _apply(step, kept.id), kept


def _root_of(payload: Payload) -> bytes:
    return b"" if isinstance(payload, Revoke) else payload.root


def _apply(step: Step, entry_id: bytes) -> State:
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


@dataclass(frozen=True, slots=True)
class Chain:
    """A valid chain: made by `read_chain`, `extend` and the writers only."""

    entries: tuple[Entry, ...] = field(repr=False)
    state: State
    size: int
    """Bytes of all entries."""

    @property
    def slot(self) -> bytes:
        """The id of the GENESIS, 32 bytes, which names the slot."""
        return self.entries[0].id

    @property
    def deployment(self) -> bytes:
        """The deployment that the slot belongs to, 16 bytes."""
        return self.state.deployment

    @property
    def last(self) -> Last:
        """Number and id of the last entry."""
        return self.state.last

    @property
    def current_root(self) -> Root:
        """The newest root."""
        return self.state.current

    @property
    def roots(self) -> tuple[Root, ...]:
        """All roots in order, revoked ones too."""
        return self.state.roots

    @property
    def revoked(self) -> frozenset[KeyId]:
        """KeyIDs of revoked roots."""
        return self.state.revoked

    @property
    def trusted_roots(self) -> tuple[Root, ...]:
        """The roots that are not revoked, oldest first."""
        return tuple(root for root in self.state.roots if root.key_id not in self.state.revoked)

    @property
    def encoded(self) -> tuple[bytes, ...]:
        """Each entry as it travels."""
        return tuple(entry.encode() for entry in self.entries)

    def has(self, n: int, entry_id: bytes) -> bool:
        """Whether entry n of this chain is the one with that id."""
        return 0 <= n < len(self.entries) and self.entries[n].id == entry_id

    def begins_with(self, other: "Chain") -> bool:
        """Whether the other chain is this one or a beginning of it, by entry ids."""
        return self.has(other.last.n, other.last.id)

    def common(self, other: "Chain") -> int:
        """How many entries the two chains begin with alike."""
        for n, (mine, theirs) in enumerate(zip(self.entries, other.entries, strict=False)):
            if mine.id != theirs.id:
                return n
        return min(len(self.entries), len(other.entries))

    def cut(self, length: int) -> "Chain":
        """The first `length` entries, at least 1; their signatures are not verified again."""
        if length >= len(self.entries):
            return self
        state: State | None = None
        for entry in self.entries[:length]:
            body = entry.parse()
            state = _apply(Step(state, body, self._root_at(state, body)), entry.id)
        if state is None:
            raise ValueError(f"chain cut to {length} entries")
        kept = self.entries[:length]
        return Chain(kept, state, sum(len(entry.encode()) for entry in kept))

    def _root_at(self, state: State | None, body: Body) -> Root | None:
        if isinstance(body.payload, Revoke):
            return None
        return self.state.roots[0 if state is None else len(state.roots)]

    def encode(self) -> bytes:
        """Bytes that `Chain.decode` reads back to an equal chain."""
        return encoding.pack(list(self.encoded))

    @classmethod
    def decode(cls, data: bytes) -> "Chain":
        """Read and verify a whole chain.

        Raises:
            MalformedError: Cut, altered, or not valid to its end.
        """
        items = encoding.as_list(
            encoding.unpack(data, max_bytes=MAX_CHAIN + 5 * MAX_ENTRIES), what="chain"
        )
        chain, problem = read_chain([encoding.as_bytes(item, what="entry") for item in items])
        if chain is None or problem is not None:
            raise MalformedError(f"chain is not valid: {problem}")
        return chain


def read_chain(
    entries: Sequence[bytes], *, known: Chain | None = None
) -> tuple[Chain | None, Problem | None]:
    """Read a chain from its GENESIS on, up to its first entry that is invalid or unknown.

    Args:
        entries: As they arrived.
        known: A chain whose entries, where they are the same bytes, need no second check.

    Returns:
        The valid beginning, `None` where the GENESIS is not valid, and why it ends early.
    """
    same = 0
    if known is not None:
        for entry, ours in zip(entries, known.encoded, strict=False):
            if entry != ours:
                break
            same += 1
    return _read_on(known.cut(same) if known and same else None, entries[same:])


def extend(chain: Chain, entries: Sequence[bytes]) -> tuple[Chain, Problem | None]:
    """Append entries, up to the first that is invalid or unknown.

    Returns:
        The chain as far as it is valid, and why it ends before the last of the entries.
    """
    extended, problem = _read_on(chain, entries)
    return extended or chain, problem


def _read_on(chain: Chain | None, received: Sequence[bytes]) -> tuple[Chain | None, Problem | None]:
    entries = list(chain.entries) if chain else []
    state = chain.state if chain else None
    size = chain.size if chain else 0
    problem = None if chain or received else Problem(0, "no GENESIS")
    for data in received:
        try:
            after, kept = _follow(state, decode_entry(data))
            _check_limits(len(entries), size + len(kept.encode()))
        except PKIError as exc:
            problem = Problem(len(entries), str(exc), isinstance(exc, UnknownEntryError))
            break
        entries.append(kept)
        state = after
        size += len(kept.encode())
    return (None if state is None else Chain(tuple(entries), state, size)), problem


def _check_limits(count: int, size: int) -> None:
    if count >= MAX_ENTRIES:
        raise MalformedError(f"more than {MAX_ENTRIES} entries")
    if size > MAX_CHAIN:
        raise MalformedError(f"more than {MAX_CHAIN} bytes of entries")


def make_genesis(
    root: bytes,
    root_key: PrivateKey,
    standby: Sequence[KeyId],
    deployment: bytes,
    time: int,
    audit: bytes,
) -> Chain:
    """Begin a slot.

    Args:
        root: The first root certificate, DER.
        root_key: Its key.
        standby: KeyIDs of the next `DEPTH` roots, in their order.
        deployment: 16 random bytes, or those of the deployment that the slot joins.
        time: Seconds since 1970, shown only.
        audit: Salted hash of the audit record, 32 bytes.

    Raises:
        MalformedError, UntrustedError: These do not make a valid GENESIS.
    """
    if len(deployment) != DEPLOYMENT_BYTES:
        raise MalformedError(f"deployment of {len(deployment)} bytes")
    body = Body(0, NO_PREVIOUS, time, audit, Genesis(deployment, root, tuple(standby)))
    state, entry = _follow(None, sign_entry(body, [root_key]))
    return Chain((entry,), state, len(entry.encode()))


def make_rotate(
    chain: Chain,
    root: bytes,
    current_key: PrivateKey,
    new_key: PrivateKey,
    one_more: KeyId,
    time: int,
    audit: bytes,
) -> Chain:
    """Append the next root, which must be the first standby key.

    Args:
        chain: The chain as it is.
        root: Certificate of the new root, DER.
        current_key: Key of the current root.
        new_key: Key of the new root.
        one_more: KeyID of a fresh standby key, for the end of the commitment.
        time: Seconds since 1970, shown only.
        audit: Salted hash of the audit record, 32 bytes.

    Raises:
        RefusedError: `current_key` is not the current root's: sign nothing (rule 18).
        MalformedError, UntrustedError: These do not make a valid ROTATE.
    """
    return _append(chain, Rotate(root, one_more), [current_key, new_key], time, audit)


def make_revoke(
    chain: Chain,
    roots: Sequence[KeyId],
    current_key: PrivateKey,
    time: int,
    audit: bytes,
) -> Chain:
    """Append the revocation of older roots, given in any order; errors as of `make_rotate`."""
    places = {key: place for place, key in enumerate(chain.state.key_ids)}
    ordered = sorted(roots, key=lambda key: places.get(key, len(places)))
    return _append(chain, Revoke(tuple(ordered)), [current_key], time, audit)


def _append(
    chain: Chain, payload: Payload, signers: Sequence[PrivateKey], time: int, audit: bytes
) -> Chain:
    held = key_id(signers[0].public_key())
    if held != chain.current_root.key_id:
        raise RefusedError(f"key {held.hex()} is not the current root's")
    body = Body(chain.last.n + 1, chain.last.id, time, audit, payload)
    state, entry = _follow(chain.state, sign_entry(body, signers))
    size = chain.size + len(entry.encode())
    _check_limits(len(chain.entries), size)
    return Chain((*chain.entries, entry), state, size)
