"""Small certificates for tests of links, made by `cryptography` alone.

They look like ours where TLS looks (P-256, SHA-256, key usage, extended key usage, path
length) and can be wrong on request: the wrong root, expired, without the usage.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from cryptography.x509.oid import NameOID

from protocol.tls import Credentials

__all__ = ["EPOCH", "Authority", "uri_of"]

EPOCH: Final = datetime.datetime(2031, 1, 1, tzinfo=datetime.UTC)
"""A date in the future of any machine: OpenSSL must not look at it."""

_DAY: Final = datetime.timedelta(days=1)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def uri_of(certificate: bytes) -> str:
    """Return the URI that a leaf of ours names its holder with."""
    parsed = x509.load_der_x509_certificate(certificate)
    names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)[0]


@dataclass
class Authority:
    """A certificate authority: a root, or below another one."""

    name: str = "server.test Root 0"
    parent: "Authority | None" = None
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    certificate: x509.Certificate = field(init=False)
    serial: int = 1

    def __post_init__(self) -> None:
        issuer = self.parent or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(self.name))
            .issuer_name(_name(issuer.name))
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(EPOCH - _DAY)
            .not_valid_after(EPOCH + 3650 * _DAY)
            .add_extension(
                x509.BasicConstraints(ca=True, path_length=0 if self.parent else 1), critical=True
            )
            .add_extension(_key_usage(ca=True), critical=True)
        )
        self.certificate = builder.sign(issuer.key, SHA256())

    @property
    def der(self) -> bytes:
        """The authority's own certificate."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def chain(self) -> tuple[bytes, ...]:
        """Its certificate and those above it, root last."""
        return (self.der, *(self.parent.chain if self.parent else ()))

    def below(self, name: str = "client CA") -> "Authority":
        """Return an authority that this one has signed."""
        return Authority(name, self)

    def issue(
        self,
        role: str,
        *,
        usages: Sequence[x509.ObjectIdentifier] = (Usage.SERVER_AUTH, Usage.CLIENT_AUTH),
        not_before: datetime.datetime = EPOCH - _DAY,
        not_after: datetime.datetime = EPOCH + 7 * _DAY,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Credentials:
        """Return credentials whose URI ends in the role."""
        self.serial += 1
        key = key or ec.generate_private_key(ec.SECP256R1())
        uri = x509.UniformResourceIdentifier(f"test://{role}")
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(role))
            .issuer_name(_name(self.name))
            .public_key(key.public_key())
            .serial_number(self.serial)
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        )
        leaf = builder.sign(self.key, SHA256())
        return Credentials((leaf.public_bytes(Encoding.DER), *self.chain), key)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
