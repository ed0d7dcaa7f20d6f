"""The seven kinds of certificate, and the form of each.

    root                 itself      CA, path length 1
      server-tls         root        TLS at both ends
      hub-tls            root        TLS at both ends
      zone-server-tls    root        TLS at both ends
      message-signing    root        signatures of messages; TLS refuses it
      client-ca          root        CA, path length 0
        client-tls       client CA   TLS at both ends

Every kind but the root names role and id of its holder in one URI (`pki.names`), and each role
has one kind: so a certificate states its kind, and can be held to the form of that kind.

A TLS certificate serves at both ends of a link because each of its holders does: a client
listens for its neighbour, a hub is the TLS server of its zone servers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from pki.names import Role

__all__ = ["KIND_OF_ROLE", "LINES", "PROFILES", "Kind", "Profile"]


class Kind(StrEnum):
    """What a certificate is for. The text is that of settings, logs and messages."""

    # Enum's own is written in Python, and these are looked up at every link.
    __hash__ = str.__hash__

    ROOT = "root"
    SERVER_TLS = "server-tls"
    MESSAGE_SIGNING = "message-signing"
    HUB_TLS = "hub-tls"
    ZONE_SERVER_TLS = "zone-server-tls"
    CLIENT_CA = "client-ca"
    CLIENT_TLS = "client-tls"


@dataclass(frozen=True, slots=True)
class Profile:
    """The form of one kind. The extension objects are made once and used for every certificate."""

    issuer: Kind
    """Kind of the certificate above it."""
    role: Role | None
    """Role that its name states; a root has no name."""
    path_length: int | None
    """How many CAs may stand below; `None` for what is no CA."""
    key_usage: x509.KeyUsage
    extended: x509.ExtendedKeyUsage | None

    @property
    def is_ca(self) -> bool:
        """Whether it signs certificates."""
        return self.path_length is not None

    @property
    def constraints(self) -> x509.BasicConstraints:
        """The extension that says so."""
        return x509.BasicConstraints(ca=self.is_ca, path_length=self.path_length)


def _usage(*, signs_certificates: bool, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


_LEAF: Final = _usage(signs_certificates=False, signs=True)
_TLS: Final = x509.ExtendedKeyUsage(
    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
)


def _tls(issuer: Kind, role: Role) -> Profile:
    return Profile(issuer, role, None, _LEAF, _TLS)


PROFILES: Final[Mapping[Kind, Profile]] = MappingProxyType(
    {
        # A root signs the ledger and its heads as well.
        Kind.ROOT: Profile(Kind.ROOT, None, 1, _usage(signs_certificates=True, signs=True), None),
        Kind.SERVER_TLS: _tls(Kind.ROOT, Role.SERVER),
        Kind.HUB_TLS: _tls(Kind.ROOT, Role.HUB),
        Kind.ZONE_SERVER_TLS: _tls(Kind.ROOT, Role.ZONE_SERVER),
        Kind.CLIENT_TLS: _tls(Kind.CLIENT_CA, Role.CLIENT),
        # Any usage but those of TLS keeps it from passing as a TLS certificate.
        Kind.MESSAGE_SIGNING: Profile(
            Kind.ROOT,
            Role.MESSAGE_SIGNING,
            None,
            _LEAF,
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]),
        ),
        # OpenSSL takes the usages of a CA as a bound on what stands below it.
        Kind.CLIENT_CA: Profile(
            Kind.ROOT,
            Role.CLIENT_CA,
            0,
            _usage(signs_certificates=True, signs=False),
            _TLS,
        ),
    }
)
"""The profile of each kind."""

KIND_OF_ROLE: Final[Mapping[Role | None, Kind]] = MappingProxyType(
    {profile.role: kind for kind, profile in PROFILES.items()}
)
"""A role has one kind; a root has no role."""


def _line(kind: Kind) -> tuple[Kind, ...]:
    return (kind,) if kind is Kind.ROOT else (kind, *_line(PROFILES[kind].issuer))


LINES: Final[Mapping[Kind, tuple[Kind, ...]]] = MappingProxyType(
    {kind: _line(kind) for kind in PROFILES}
)
"""The kinds of a whole chain, from a leaf up to its root."""
