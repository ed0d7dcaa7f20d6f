"""A chain of entries: one slot's lineage of roots.

A chain is valid if each entry is, in the state that the entries before it have made
(`pki.steps`). It ends before its first entry that is invalid or unknown. Which of two valid
chains is to be believed is in `pki.succession`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pki import encoding
from pki.entries import (
    NO_PREVIOUS,
    Body,
    Entry,
    Genesis,
    Payload,
    Revoke,
    Root,
    Rotate,
    UnknownEntryError,
    decode_entry,
    sign_entry,
)
from pki.errors import MalformedError, PKIError, RefusedError
from pki.keys import KeyId, PrivateKey, key_id
from pki.steps import Last, State, Step, apply, follow

__all__ = [
    "MAX_CHAIN",
    "MAX_ENTRIES",
    "Chain",
    "Problem",
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
class Problem:
    """Why a chain ends before the entry of this number."""

    n: int
    text: str
    unknown: bool = False
    """Of a later version or kind: this program is too old to read on."""

    def __str__(self) -> str:
        return f"entry {self.n}: {self.text}"


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
            state = apply(Step(state, body, self._root_at(state, body)), entry.id)
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
            after, kept = follow(state, decode_entry(data))
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
    body = Body(0, NO_PREVIOUS, time, audit, Genesis(deployment, root, tuple(standby)))
    state, entry = follow(None, sign_entry(body, [root_key]))
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
        RefusedError: `current_key` is not the current root's: sign nothing (*Effect* 3).
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
    state, entry = follow(chain.state, sign_entry(body, signers))
    size = chain.size + len(entry.encode())
    _check_limits(len(chain.entries), size)
    return Chain((*chain.entries, entry), state, size)
