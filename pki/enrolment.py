r"""The signed request: what a component's identity key says when it asks for a certificate.

    message = deployment (16) || issuer KeyID (32) || nonce (32) || SHA-256(CSR) || binding (32)
    sig     = ECDSA-SHA256, DER, over "anchorline-enrol-v1\0" || message

Every issue needs it, renewals too: the identity key's hash *is* the component's id, so no
stolen certificate and no stolen CA can prolong itself. What each part keeps from being used:

    deployment   the same request at another deployment
    issuer       a request to a thief who poses as the issuer, passed on to the real one
    nonce        the same request a second time; it is the issuer's, for one request, 60 s
    CSR          another key with the same request
    binding      the same request over another connection

Where the issuer ends the link itself, `issuer` is the KeyID of the TLS key it showed and
`binding` 32 bytes of exporter. Where a hub relays, `issuer` is the current root's KeyID and
`binding` is `NO_BINDING`: there the approved identity key decides.
"""

import hashlib
from typing import Final

from pki import keys
from pki.certificates import MAX_REQUEST
from pki.errors import MalformedError
from pki.keys import KeyId, PrivateKey
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
"""The binding of a request that a hub relays."""

_DOMAIN: Final = b"anchorline-enrol-v1\0"


def statement(
    *, deployment: bytes, issuer: KeyId, nonce: bytes, csr: bytes, binding: bytes
) -> bytes:
    """Return what is signed, without its domain: 144 bytes.

    Args:
        deployment: Id of the deployment, 16 bytes.
        issuer: KeyID of whom the request is for.
        nonce: From that issuer, 32 bytes.
        csr: The certificate request, PKCS#10 DER.
        binding: Of the link, 32 bytes.

    Raises:
        ValueError: A part of another length. Without this, two splits of the same bytes would
            be one statement.
    """
    parts = (
        ("deployment", deployment, DEPLOYMENT_BYTES),
        ("issuer", issuer, keys.KEY_ID_BYTES),
        ("nonce", nonce, NONCE_BYTES),
        ("binding", binding, BINDING_BYTES),
    )
    for what, value, length in parts:
        if len(value) != length:
            raise ValueError(f"{what} of {len(value)} bytes, expected {length}")
    return b"".join((deployment, issuer, nonce, hashlib.sha256(csr).digest(), binding))


def sign_request(
    identity: PrivateKey,
    *,
    deployment: bytes,
    issuer: KeyId,
    nonce: bytes,
    csr: bytes,
    binding: bytes,
) -> bytes:
    """Sign a request with the identity key; arguments and errors as of `statement`."""
    message = statement(deployment=deployment, issuer=issuer, nonce=nonce, csr=csr, binding=binding)
    return keys.sign(identity, _DOMAIN, message)


def verify_request(
    spki: bytes,
    signature: bytes,
    *,
    deployment: bytes,
    issuer: KeyId,
    nonce: bytes,
    csr: bytes,
    binding: bytes,
) -> bytes:
    """Check a request against what *we* know of deployment, issuer, nonce and link.

    Args:
        spki: SubjectPublicKeyInfo of the identity key.
        signature: What came with it.
        deployment: Ours.
        issuer: The KeyID that we showed on this link, or the current root's.
        nonce: The one that we gave, still unspent.
        csr: The certificate request as it came.
        binding: Of our end of the link, or `NO_BINDING`.

    Returns:
        The id of the component that has signed, 16 bytes.

    Raises:
        MalformedError: A nonce or certificate request of impossible length.
        SignatureError: The identity key has not signed exactly this.
        ValueError: One of our own parts has another length.
    """
    if len(nonce) != NONCE_BYTES:
        raise MalformedError(f"nonce of {len(nonce)} bytes, expected {NONCE_BYTES}")
    if len(csr) > MAX_REQUEST:
        raise MalformedError(f"request of {len(csr)} bytes, at most {MAX_REQUEST}")
    message = statement(deployment=deployment, issuer=issuer, nonce=nonce, csr=csr, binding=binding)
    keys.verify(spki, signature, _DOMAIN, message)
    return keys.component_id(spki)
