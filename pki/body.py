"""The body of a certificate: the bytes that its issuer signs (RFC 5280, 4.1).

    SEQUENCE {
        body  SEQUENCE { version, serial, algorithm, issuer, dates, subject, key, extensions }
        algorithm
        signature over the body
    }

What depends on the issuer or the kind alone is made once; the rest is written here. The builder of
`cryptography` writes the same bytes, and a test compares them; but it makes objects of every part
first and reads what it has signed afterwards, which costs a fleet that re-keys at once as much
again as the signatures.
"""

from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509

from pki import certificates, der
from pki.keys import KeyId
from pki.profiles import PROFILES, Kind

__all__ = ["complete", "write"]


def _identifier(content: str) -> bytes:
    return der.item(der.OBJECT_IDENTIFIER, bytes.fromhex(content))


_VERSION_3: Final = der.context(0, der.integer(2), constructed=True)
_ECDSA_WITH_SHA256: Final = der.item(der.SEQUENCE, _identifier("2a8648ce3d040302"))  # RFC 5758, 3.2
_COMMON_NAME: Final = _identifier("550403")
# RFC 5280, 4.2.1: these are under 2.5.29.
_SUBJECT_KEY: Final = _identifier("551d0e")
_KEY_USAGE: Final = _identifier("551d0f")
_ALTERNATIVE_NAME: Final = _identifier("551d11")
_BASIC_CONSTRAINTS: Final = _identifier("551d13")
_AUTHORITY_KEY: Final = _identifier("551d23")
_EXTENDED_KEY_USAGE: Final = _identifier("551d25")


def write(
    kind: Kind,
    *,
    issuer: bytes,
    serial: int,
    not_before: datetime,
    not_after: datetime,
    subject: str,
    spki: bytes,
    uri: str,
    key_id: KeyId,
) -> bytes:
    """Return the body of a certificate of any kind but a root.

    Args:
        kind: Whose profile it has.
        issuer: Certificate of the key that will sign, DER.
        serial: Not negative.
        not_before: In UTC, in whole seconds, as the other date.
        not_after: Its last second.
        subject: Common name.
        spki: The key.
        uri: Name of its holder.
        key_id: Name of the key.
    """
    issuer_name, issuer_key = _of_issuer(issuer)
    extensions = (
        _of_kind(kind),
        _extension(_ALTERNATIVE_NAME, der.item(der.SEQUENCE, _uri(uri))),
        _extension(_SUBJECT_KEY, der.item(der.OCTET_STRING, key_id)),
        issuer_key,
    )
    return der.item(
        der.SEQUENCE,
        _VERSION_3,
        der.integer(serial),
        _ECDSA_WITH_SHA256,
        issuer_name,
        der.item(der.SEQUENCE, der.time(not_before), der.time(not_after)),
        _common_name(subject),
        spki,
        der.context(3, der.item(der.SEQUENCE, *extensions), constructed=True),
    )


def complete(body: bytes, signature: bytes) -> bytes:
    """Return the certificate: a body and its ECDSA signature, with SHA-256."""
    return der.item(der.SEQUENCE, body, _ECDSA_WITH_SHA256, der.bits(signature))


def _common_name(text: str) -> bytes:
    attribute = der.item(der.SEQUENCE, _COMMON_NAME, der.item(der.UTF8_STRING, text.encode()))
    return der.item(der.SEQUENCE, der.item(der.SET, attribute))


def _uri(text: str) -> bytes:
    return der.context(6, text.encode("ascii"), constructed=False)


def _extension(identifier: bytes, value: bytes, *, critical: bool = False) -> bytes:
    flag = der.TRUE if critical else b""
    return der.item(der.SEQUENCE, identifier, flag, der.item(der.OCTET_STRING, value))


@lru_cache(maxsize=len(Kind))
def _of_kind(kind: Kind) -> bytes:
    """The extensions that are the same for all of a kind."""
    profile = PROFILES[kind]
    if profile.extended is None:
        raise ValueError(f"a {kind} is issued by nobody")
    return (
        _extension(_BASIC_CONSTRAINTS, profile.constraints.public_bytes(), critical=True)
        + _extension(_KEY_USAGE, profile.key_usage.public_bytes(), critical=True)
        + _extension(_EXTENDED_KEY_USAGE, profile.extended.public_bytes())
    )


@lru_cache(maxsize=64)
def _of_issuer(certificate: bytes) -> tuple[bytes, bytes]:
    """The issuer's name as it wrote it, and the extension that points at its key."""
    name = x509.load_der_x509_certificate(certificate).subject.public_bytes()
    identifier = x509.AuthorityKeyIdentifier(certificates.read(certificate).key_id, None, None)
    return name, _extension(_AUTHORITY_KEY, identifier.public_bytes())
