"""Certificate requests, each wrong in one way."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from pki import certificates, keys
from pki.certificates import Kind
from pki.keys import PrivateKey

__all__ = ["REQUESTS"]

KIND: Final = Kind.CLIENT_TLS


def csr(key: Any, **options: Any) -> bytes:  # noqa: ANN401 - of any sort
    builder = x509.CertificateSigningRequestBuilder(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, options.get("name", "x"))])
    )
    for extension in options.get("extensions", []):
        builder = builder.add_extension(extension, critical=True)
    signed = builder.sign(key, options.get("digest", hashes.SHA256()))
    return signed.public_bytes(Encoding.DER)


def _flipped(key: PrivateKey) -> bytes:
    data = bytearray(certificates.make_request(key, KIND))
    data[-3] ^= 1
    return bytes(data)


def _of_somebody_else(key: PrivateKey) -> bytes:
    theirs, ours = (keys.spki(one.public_key()) for one in (keys.generate(), key))
    return certificates.make_request(key, KIND).replace(ours, theirs)


REQUESTS: Final[Mapping[str, Callable[[PrivateKey], bytes]]] = {
    "a bad signature": _flipped,
    "the key of somebody else": _of_somebody_else,
    "an RSA key": lambda key: csr(rsa.generate_private_key(65537, 2048)),
    "another curve": lambda key: csr(ec.generate_private_key(ec.SECP384R1())),
    "another digest": lambda key: csr(key, digest=hashes.SHA512()),
    "a name of a CA": lambda key: csr(
        key, extensions=[x509.BasicConstraints(ca=True, path_length=None)]
    ),
    "somebody else's name": lambda key: csr(
        key,
        extensions=[
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(f"anchorline://{'0' * 32}/server/{'0' * 32}")]
            )
        ],
    ),
    "a long subject": lambda key: csr(key, name="x" * 64) + bytes(900),
    "nothing": lambda key: b"",
    "noise": lambda key: bytes(range(256)) * 4,
}
"""Each makes the request for this key."""
