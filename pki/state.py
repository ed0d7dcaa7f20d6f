r"""What a component believes, as a value: one slot a server.

For each slot it keeps the chain as it was received, from its GENESIS, the last head that
counted, and the first pieces of fork evidence. Only `pki.trust` makes a new state from bytes
that came from outside.

`encode_state` is the ledger file:

    file  = "anchorline-trust-v1\0" || SHA-256(body) || body
    body  = [[[entries], head or nil, time or nil, [[n, ours, theirs], ...]] per slot]

The digest finds a file that was cut or altered before anything in it is looked at. It is no
protection against whoever can write the file, and none is needed: what is read is verified
again, entry by entry.
"""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Final

from pki import encoding
from pki.bundle import MAX_SLOTS, deployment_fingerprint
from pki.entries import natural
from pki.errors import MalformedError, PKIError
from pki.heads import SignedHead, parse_head
from pki.keys import KeyId
from pki.ledger import MAX_CHAIN, Chain, read_chain

__all__ = [
    "MAX_EVIDENCE",
    "MAX_STATE",
    "Effect",
    "Fork",
    "Slot",
    "TrustState",
    "decode_state",
    "denied",
    "effect",
    "encode_state",
    "newest_root",
    "revoked",
    "tls_roots",
    "trusted",
]

MAGIC: Final = b"anchorline-trust-v1\0"
DIGEST_BYTES: Final = 32

MAX_EVIDENCE: Final = 16
"""Pieces of fork evidence kept a slot: the first ones, so that later noise hides nothing."""

MAX_STATE: Final = MAX_SLOTS * (MAX_CHAIN + 1024 * 1024)
"""Bytes of a ledger file: eight full slots, each with its evidence."""


@dataclass(frozen=True, slots=True)
class Fork:
    """Two signed statements of one slot's keys that cannot both be true."""

    n: int
    """The place at which they differ."""
    ours: bytes = field(repr=False)
    """Our entry at that place."""
    theirs: bytes = field(repr=False)
    """The other entry at that place, or a head that names another one."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One server's lineage, as far as this component has heard of it."""

    chain: Chain
    head: SignedHead | None = None
    """The last counted head. Its denied keys hold until the next one counts."""
    time: int | None = None
    """What the next head's time must exceed; `None` where no head counts, or at a new root."""
    forks: tuple[Fork, ...] = field(default=(), repr=False)

    def with_evidence(self, fork: Fork) -> "Slot":
        """The slot with one more piece of evidence, if it is new and there is room."""
        if len(self.forks) >= MAX_EVIDENCE or any(f.theirs == fork.theirs for f in self.forks):
            return self
        return replace(self, forks=(*self.forks, fork))

    @property
    def denied(self) -> frozenset[KeyId]:
        """Keys that must not be in a certificate chain under this slot's roots."""
        return frozenset(self.head.head.denied if self.head else ())

    @property
    def latest_head(self) -> bytes | None:
        """The counted head, if it names the last entry: what another component can use."""
        head = self.head
        if head is None or (head.head.n, head.head.entry_id) != (
            self.chain.last.n,
            self.chain.last.id,
        ):
            return None
        return head.encoded


@dataclass(frozen=True, slots=True)
class TrustState:
    """Everything that is believed: one chain a slot, own server's slot first."""

    slots: tuple[Slot, ...]

    @property
    def deployment(self) -> bytes:
        """The deployment of all slots, 16 bytes."""
        return self.slots[0].chain.deployment

    @property
    def fingerprint(self) -> str:
        """The deployment fingerprint, hexadecimal."""
        return deployment_fingerprint(self.deployment, [slot.chain.slot for slot in self.slots])

    @property
    def first(self) -> Slot:
        """The slot that the bundle named first."""
        return self.slots[0]

    @property
    def chains(self) -> tuple[Chain, ...]:
        """The chain of each slot."""
        return tuple(slot.chain for slot in self.slots)

    @property
    def heads(self) -> tuple[bytes, ...]:
        """The counted heads that name the last entry of their slot."""
        return tuple(head for slot in self.slots if (head := slot.latest_head) is not None)

    def find(self, slot: bytes) -> Slot | None:
        """The slot of that id, if it is known."""
        return next((known for known in self.slots if known.chain.slot == slot), None)

    def replacing(self, changed: Slot) -> "TrustState":
        """The state with another content of one of its slots."""
        slots = (changed if s.chain.slot == changed.chain.slot else s for s in self.slots)
        return TrustState(tuple(slots))


@dataclass(frozen=True, slots=True)
class Effect:
    """What TLS contexts are built from. Equal effects need no new ones (*Effect* 2)."""

    roots: tuple[bytes, ...] = field(repr=False)
    denied: frozenset[KeyId]


def tls_roots(state: TrustState) -> tuple[bytes, ...]:
    """The unrevoked roots of all slots, DER: what TLS verifies against (*Effect* 1)."""
    return tuple(root.der for chain in state.chains for root in chain.trusted_roots)


def trusted(state: TrustState) -> frozenset[KeyId]:
    """The KeyIDs of `tls_roots`."""
    return frozenset(root.key_id for chain in state.chains for root in chain.trusted_roots)


def newest_root(state: TrustState) -> KeyId:
    """The current root of the first slot."""
    return state.first.chain.current_root.key_id


def denied(state: TrustState) -> frozenset[KeyId]:
    """Keys that the last counted heads deny."""
    return frozenset().union(*(slot.denied for slot in state.slots))


def revoked(state: TrustState) -> frozenset[KeyId]:
    """Revoked roots of all slots."""
    return frozenset().union(*(chain.revoked for chain in state.chains))


def effect(state: TrustState) -> Effect:
    """What of the state TLS can see."""
    return Effect(tls_roots(state), denied(state))


def encode_state(state: TrustState) -> bytes:
    """The bytes of the ledger file."""
    body = encoding.pack(
        [
            [
                list(slot.chain.encoded),
                None if slot.head is None else slot.head.encoded,
                slot.time,
                [[fork.n, fork.ours, fork.theirs] for fork in slot.forks],
            ]
            for slot in state.slots
        ]
    )
    return MAGIC + hashlib.sha256(body).digest() + body


def decode_state(data: bytes) -> TrustState:
    """Read a ledger file, and verify what is in it again.

    Raises:
        MalformedError: Cut, altered, of another version, or not valid.
    """
    if not data.startswith(MAGIC):
        raise MalformedError("not a ledger file of version 1")
    digest, body = data[len(MAGIC) :][:DIGEST_BYTES], data[len(MAGIC) + DIGEST_BYTES :]
    if hashlib.sha256(body).digest() != digest:
        raise MalformedError("ledger file is cut or altered")
    items = encoding.as_list(encoding.unpack(body, max_bytes=MAX_STATE), what="slots")
    try:
        slots = tuple(_read_slot(item) for item in items)
    except PKIError as exc:
        raise MalformedError(f"ledger file is not valid: {exc}") from exc
    if not 1 <= len({slot.chain.slot for slot in slots}) == len(slots) <= MAX_SLOTS:
        raise MalformedError(f"ledger file with {len(slots)} slots, or one of them twice")
    if len({slot.chain.deployment for slot in slots}) != 1:
        raise MalformedError("ledger file with slots of two deployments")
    return TrustState(slots)


def _read_slot(value: object) -> Slot:
    items = encoding.as_list(value, length=4, what="slot")
    entries = encoding.as_list(items[0], what="entries")
    chain, problem = read_chain([encoding.as_bytes(item, what="entry") for item in entries])
    if chain is None or problem is not None:
        raise MalformedError(f"chain ends early: {problem}")
    head = None if items[1] is None else parse_head(encoding.as_bytes(items[1], what="head"))
    if head is not None:
        _check_head(chain, head)
    time = None if items[2] is None else natural(items[2], "time")
    forks = encoding.as_list(items[3], what="evidence")
    if len(forks) > MAX_EVIDENCE:
        raise MalformedError(f"{len(forks)} pieces of evidence, at most {MAX_EVIDENCE}")
    return Slot(chain, head, time, tuple(_read_fork(fork) for fork in forks))


def _check_head(chain: Chain, signed: SignedHead) -> None:
    counted = chain.has(signed.head.n, signed.head.entry_id) and signed.head.slot == chain.slot
    if not counted or signed.key_id not in chain.state.key_ids:
        raise MalformedError("head is none of this chain")


def _read_fork(value: object) -> Fork:
    n, ours, theirs = encoding.as_list(value, length=3, what="evidence")
    return Fork(
        natural(n, "n"),
        encoding.as_bytes(ours, what="evidence"),
        encoding.as_bytes(theirs, what="evidence"),
    )
