r"""A head: the current root's word for where its ledger ends now, and which keys it denies.

    head  = [body as bin, [spki, sig]]
    body  = [version = 1, slot, n, entry id, time, [denied KeyIDs <= 256]]

The digest of the body is under `anchorline-head-v1\0`, the signature under
`anchorline-head-sig-v1\0`. A head is no entry: it is signed on every change and once an hour,
and only the newest is kept. `parse_head` proves who signed it; whether that key may, and
whether the head counts (*Head* 3), is `pki.trust`'s question.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pki import encoding, statements
from pki.entries import ID_BYTES, key_ids, natural
from pki.errors import MalformedError
from pki.keys import KeyId, PrivateKey

__all__ = ["MAX_DENIED", "MAX_HEAD", "Head", "SignedHead", "make_head", "next_time", "parse_head"]

VERSION: Final = 1
MAX_DENIED: Final = 256
"""Single keys that a head can deny. Where more would be needed, their CA is denied."""
MAX_BODY: Final = 9 * 1024
MAX_HEAD: Final = MAX_BODY + statements.OVERHEAD
"""Bytes of a head: 256 denied KeyIDs, the other fields, and a signature."""

DOMAIN: Final = statements.Domain(b"anchorline-head-v1\0", b"anchorline-head-sig-v1\0")


@dataclass(frozen=True, slots=True)
class Head:
    """Where a ledger ends. `denied` is kept in ascending order, each KeyID once."""

    slot: bytes
    n: int
    entry_id: bytes
    time: int
    """Seconds since 1970 by the writer's clock; above that of each head before it."""
    denied: tuple[KeyId, ...] = ()

    def encode(self) -> bytes:
        """Canonical bytes of the body."""
        return encoding.pack(
            [VERSION, self.slot, self.n, self.entry_id, self.time, list(self.denied)]
        )


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A head, and the key that is proven to have signed it."""

    head: Head
    key_id: KeyId
    body: bytes
    encoded: bytes


def next_time(now: int, last: int | None) -> int:
    """The time that a writer puts into its next head: never at or below its last one."""
    return now if last is None else max(now, last + 1)


def make_head(
    key: PrivateKey,
    *,
    slot: bytes,
    n: int,
    entry_id: bytes,
    time: int,
    denied: Iterable[KeyId] = (),
) -> bytes:
    """Sign a head with the current root's key.

    Args:
        key: The current root.
        slot: Id of the ledger's GENESIS.
        n: Number of its last entry.
        entry_id: Id of its last entry.
        time: From `next_time`.
        denied: KeyIDs of certificates that must not be used any more, in any order.

    Raises:
        MalformedError: A field of another size, or more than 256 denied keys.
    """
    head = Head(slot, n, entry_id, time, tuple(sorted(set(denied))))
    body = head.encode()
    _parse_body(body)
    return statements.make_statement(key, DOMAIN, body)


def parse_head(data: bytes) -> SignedHead:
    """Verify a head's signature, then read it.

    Raises:
        MalformedError: Not a head.
        SignatureError: The key in it has not signed it.
    """
    statement = statements.open_statement(data, DOMAIN, max_body=MAX_BODY, what="head")
    return SignedHead(_parse_body(statement.body), statement.key_id, statement.body, data)


def _parse_body(body: bytes) -> Head:
    items = encoding.as_list(encoding.unpack(body, max_bytes=MAX_BODY), length=6, what="head")
    version = encoding.as_int(items[0], what="version")
    if version != VERSION:
        raise MalformedError(f"head of version {version}")
    denied = key_ids(items[5], "denied key id")
    if len(denied) > MAX_DENIED:
        raise MalformedError(f"{len(denied)} denied key ids, at most {MAX_DENIED}")
    if list(denied) != sorted(denied):
        raise MalformedError("denied key ids out of order")
    return Head(
        encoding.as_bytes(items[1], length=ID_BYTES, what="slot"),
        natural(items[2], "n"),
        encoding.as_bytes(items[3], length=ID_BYTES, what="entry id"),
        natural(items[4], "time"),
        denied,
    )
