"""Keys: ECDSA P-256 with SHA-256, and how a key is named.

A key's name, everywhere, is its KeyID: SHA-256 of its SubjectPublicKeyInfo (A11). There is one
accepted form of that: DER, P-256 by name, uncompressed point, which is always 91 bytes. A
compressed point or explicit parameters would give one key a second name, so they are refused.
Never is a KeyID taken over a certificate.

Signatures carry a domain: what one statement was signed for, another cannot use.

A private key is anything with the interface of `EllipticCurvePrivateKey`. A key in an HSM is a
subclass of ours, so nothing here looks at more than that interface offers.
"""

import hashlib
from functools import lru_cache
from typing import Final, NewType, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from pki.errors import MalformedError, SignatureError

__all__ = [
    "COMPONENT_ID_BYTES",
    "KEY_ID_BYTES",
    "SPKI_BYTES",
    "KeyId",
    "PrivateKey",
    "PublicKey",
    "check_spki",
    "component_id",
    "generate",
    "key_id",
    "load_private",
    "load_spki",
    "private_bytes",
    "sign",
    "spki",
    "verify",
]

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey
PublicKey: TypeAlias = ec.EllipticCurvePublicKey

KeyId = NewType("KeyId", bytes)
"""SHA-256 of a SubjectPublicKeyInfo, 32 bytes; as text, lower-case hex."""

KEY_ID_BYTES: Final = 32
COMPONENT_ID_BYTES: Final = 16
SPKI_BYTES: Final = 91

MAX_PRIVATE: Final = 512
"""Bytes of a private key as PKCS#8; ours have 138."""
MAX_SIGNATURE: Final = 72
"""Bytes of a DER signature of P-256."""

# RFC 5480: id-ecPublicKey with the named curve secp256r1, then 0x04 for an uncompressed point.
SPKI_PREFIX: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")

_SHA256: Final = ec.ECDSA(hashes.SHA256())


def generate() -> PrivateKey:
    """Make a new key, with OpenSSL's randomness."""
    return ec.generate_private_key(ec.SECP256R1())


def private_bytes(key: PrivateKey) -> bytes:
    """Return a software key as PKCS#8 DER, to be sealed and never to travel."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def load_private(data: bytes) -> PrivateKey:
    """Read what `private_bytes` wrote.

    Raises:
        MalformedError: Not a P-256 private key.
    """
    if len(data) > MAX_PRIVATE:
        raise MalformedError(f"private key of {len(data)} bytes, at most {MAX_PRIVATE}")
    try:
        key = load_der_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise MalformedError("not a private key") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MalformedError("private key is not of P-256")
    return key


def spki(public: PublicKey) -> bytes:
    """Return a public key's SubjectPublicKeyInfo in the one accepted form, 91 bytes.

    Raises:
        MalformedError: Not a key of P-256.
    """
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise MalformedError(f"key is {type(public).__name__}, expected P-256")
    encoded = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    _check_form(encoded)
    return encoded


def _check_form(encoded: bytes) -> None:
    if len(encoded) != SPKI_BYTES or not encoded.startswith(SPKI_PREFIX):
        raise MalformedError(f"public key of {len(encoded)} bytes is not of P-256, uncompressed")


# A component meets the same few keys over and over: its roots, issuers and neighbours.
@lru_cache(maxsize=1024)
def load_spki(encoded: bytes) -> PublicKey:
    """Read a SubjectPublicKeyInfo in the one accepted form.

    Raises:
        MalformedError: Another form, curve or algorithm, or a point that is not on the curve.
    """
    return _load(encoded)


def check_spki(encoded: bytes) -> None:
    """Check that `load_spki` would read this, and keep nothing.

    OpenSSL takes 2 KiB for a key, and with that of most certificates nothing is verified here.

    Raises:
        MalformedError: As `load_spki`.
    """
    _load(encoded)


def _load(encoded: bytes) -> PublicKey:
    _check_form(encoded)
    try:
        public = load_der_public_key(encoded)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise MalformedError("public key is no point of P-256") from exc
    assert isinstance(public, ec.EllipticCurvePublicKey)  # its prefix says so
    return public


def key_id(public: PublicKey | bytes) -> KeyId:
    """Return the name of a public key, given as an object or as its SubjectPublicKeyInfo.

    Raises:
        MalformedError: Not in the one accepted form.
    """
    if isinstance(public, bytes):
        _check_form(public)
        return KeyId(hashlib.sha256(public).digest())
    return KeyId(hashlib.sha256(spki(public)).digest())


def component_id(identity: bytes) -> bytes:
    """Return the id of the component with this identity key, 16 bytes (F1).

    Args:
        identity: SubjectPublicKeyInfo of the identity key.

    Raises:
        MalformedError: Not in the one accepted form.
    """
    return key_id(identity)[:COMPONENT_ID_BYTES]


def sign(key: PrivateKey, domain: bytes, message: bytes) -> bytes:
    """Sign a message for one purpose; DER, at most 72 bytes."""
    return key.sign(domain + message, _SHA256)


def verify(encoded: bytes, signature: bytes, domain: bytes, message: bytes) -> None:
    """Check that the key has signed this message for this purpose.

    Args:
        encoded: SubjectPublicKeyInfo of the key.
        signature: What `sign` returned.
        domain: Purpose, as it was given to `sign`.
        message: The message, as it was given to `sign`.

    Raises:
        SignatureError: It has not; or these bytes are no key in the one accepted form.
    """
    try:
        load_spki(encoded).verify(signature, domain + message, _SHA256)
    except MalformedError as exc:
        raise SignatureError(f"signer is no key: {exc}") from exc
    except InvalidSignature as exc:
        raise SignatureError(f"not signed by key {key_id(encoded).hex()}") from exc
