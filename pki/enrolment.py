r"""The signed request for a certificate, without which none is issued, renewals included.

    sig over "anchorline-enrol-v1\0" || deployment (16) || issuer KeyID (32) || nonce (32)
             || SHA-256(request) || binding (32)

The identity key signs it, and its hash is the id that the certificate will name. The nonce is
the issuer's, for one request. Where the issuer itself ends the TLS link, its KeyID is that of
the TLS key it showed, and the binding is `BINDING_BYTES` of the link's exporter: so a request
that was captured is good on no other link. Where a hub relays it, the KeyID is that of the
current root, and the binding is `NO_BINDING`.
"""

import hashlib
from typing import Final

from pki import keys
from pki.errors import MalformedError
from pki.keys import KEY_ID_BYTES, KeyId, PrivateKey
from pki.names import DEPLOYMENT_BYTES

__all__ = [
    "BINDING_BYTES",
    "NONCE_BYTES",
    "NO_BINDING",
    "sign_request",
    "statement",
    "verify_request",
]

NONCE_BYTES: Final = 32
BINDING_BYTES: Final = 32
NO_BINDING: Final = bytes(BINDING_BYTES)
"""What stands for the binding where a hub relays, and there is no common link."""

DOMAIN: Final = b"anchorline-enrol-v1\0"


def statement(
    deployment: bytes, issuer: KeyId, nonce: bytes, request: bytes, binding: bytes
) -> bytes:
    """What the identity key signs, after the domain.

    Args:
        deployment: 16 bytes.
        issuer: KeyID of the issuer's TLS key, or of the current root where a hub relays.
        nonce: 32 bytes from the issuer.
        request: The PKCS#10 request, DER.
        binding: 32 bytes of exporter, or `NO_BINDING`.

    Raises:
        MalformedError: A field of another length.
    """
    lengths = (len(deployment), len(issuer), len(nonce), len(binding))
    expected = (DEPLOYMENT_BYTES, KEY_ID_BYTES, NONCE_BYTES, BINDING_BYTES)
    if lengths != expected:
        raise MalformedError(f"request for a certificate with fields of {lengths} bytes")
    return deployment + issuer + nonce + hashlib.sha256(request).digest() + binding


def sign_request(
    identity: PrivateKey,
    deployment: bytes,
    issuer: KeyId,
    nonce: bytes,
    request: bytes,
    binding: bytes,
) -> bytes:
    """Sign a request with the identity key; arguments as of `statement`."""
    return keys.sign(identity, DOMAIN, statement(deployment, issuer, nonce, request, binding))


def verify_request(
    spki: bytes,
    signature: bytes,
    deployment: bytes,
    issuer: KeyId,
    nonce: bytes,
    request: bytes,
    binding: bytes,
) -> bytes:
    """Verify a request; gives the id of the component that asks, 16 bytes.

    Raises:
        MalformedError: A field of another length.
        SignatureError: Not signed by that key for this issuer, nonce, request and link.
    """
    message = statement(deployment, issuer, nonce, request, binding)
    keys.verify(spki, signature, DOMAIN, message)
    return keys.component_id(spki)
