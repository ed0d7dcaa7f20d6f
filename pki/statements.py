"""A signed statement that travels by itself: a head or an init bundle.

    statement = [body as bin, [spki, sig]]
    digest    = SHA-256(domain || body)
    sig       = ECDSA-SHA256, DER, over signature domain || digest

The body is bytes to this module: it is verified as it arrived, and parsed only afterwards.
A good signature says that the holder of that key said this. Whether that key may say it is
the caller's question.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from pki import encoding, keys
from pki.keys import KeyId, PrivateKey

__all__ = ["DIGEST_BYTES", "Domain", "Statement", "digest", "make_statement", "open_statement"]

DIGEST_BYTES: Final = 32

OVERHEAD: Final = 256
"""Bytes of a statement beside its body: the key, the signature, and the encoding."""


@dataclass(frozen=True, slots=True)
class Domain:
    """The two prefixes that keep statements of one sort from passing for another."""

    body: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Statement:
    """A body, and the key that has signed it."""

    body: bytes
    spki: bytes
    key_id: KeyId


def digest(domain: bytes, body: bytes) -> bytes:
    """SHA-256 of the domain and the body, 32 bytes."""
    return hashlib.sha256(domain + body).digest()


def make_statement(key: PrivateKey, domain: Domain, body: bytes) -> bytes:
    """Sign a body and encode both."""
    spki = keys.spki(key.public_key())
    signature = keys.sign(key, domain.signature, digest(domain.body, body))
    return encoding.pack([body, [spki, signature]])


def open_statement(data: bytes, domain: Domain, *, max_body: int, what: str) -> Statement:
    """Read a statement and verify its signature.

    Args:
        data: The statement as it arrived.
        domain: What it must have been signed as.
        max_body: Largest body that is read, in bytes.
        what: The noun that errors name.

    Raises:
        MalformedError: Not a statement of canonical form, or too large.
        SignatureError: The key in it has not signed this body.
    """
    outer = encoding.as_list(
        encoding.unpack(data, max_bytes=max_body + OVERHEAD), length=2, what=what
    )
    body = encoding.as_bytes(outer[0], what=f"{what} body")
    signed = encoding.as_list(outer[1], length=2, what=f"{what} signature")
    spki = encoding.as_bytes(signed[0], length=keys.SPKI_BYTES, what=f"{what} key")
    signature = encoding.as_bytes(signed[1], what=f"{what} signature")
    keys.verify(spki, signature, domain.signature, digest(domain.body, body))
    return Statement(body, spki, keys.key_id(spki))
