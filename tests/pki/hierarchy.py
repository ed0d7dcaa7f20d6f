"""A small honest hierarchy for tests: a root, a client CA below it, and whatever is asked for.

Keys are made once a test run, certificates at a fixed date.
"""

from datetime import UTC, datetime, timedelta
from functools import cache

from pki import certificates, issuance, keys
from pki.certificates import PROFILES, CertificateRequest, Kind
from pki.issuance import Issuer
from pki.keys import PrivateKey
from pki.names import Name

__all__ = [
    "DAY",
    "DEPLOYMENT",
    "ID",
    "ISSUED",
    "NOW",
    "client_ca",
    "key",
    "leaf",
    "name",
    "request",
    "root",
]

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
DAY = timedelta(days=1)
DEPLOYMENT = bytes(range(16))
ID = bytes(range(16, 32))
OTHER_ID = bytes(range(32, 48))

ISSUED = tuple(kind for kind in Kind if kind is not Kind.ROOT)
"""The kinds that somebody else signs."""


@cache
def key(label: str) -> PrivateKey:
    """The key of this name; the same one throughout a run."""
    return keys.generate()


@cache
def root(label: str = "root") -> Issuer:
    """A root, by default the one of this hierarchy."""
    der = certificates.make_root(key(label), f"{label}.example", 0, NOW, 1)
    return Issuer(key(label), (der,))


@cache
def client_ca(days: int = 180) -> Issuer:
    """A client CA below the root."""
    der = leaf(Kind.CLIENT_CA, issuer=root(), label="client CA", validity=days * DAY)
    return Issuer(key("client CA"), (der, *root().chain))


def name(kind: Kind, *, deployment: bytes = DEPLOYMENT, id: bytes = ID) -> Name:
    """The name that a certificate of a kind carries here."""
    role = PROFILES[kind].role
    assert role is not None
    return Name(deployment, role, id)


def request(label: str = "leaf", kind: Kind = Kind.CLIENT_TLS) -> CertificateRequest:
    """A good request for the key of this name."""
    return certificates.parse_request(certificates.make_request(key(label), kind))


def issuer_of(kind: Kind) -> Issuer:
    """The one who signs this kind here."""
    return client_ca() if PROFILES[kind].issuer is Kind.CLIENT_CA else root()


def leaf(
    kind: Kind,
    *,
    issuer: Issuer | None = None,
    label: str = "leaf",
    validity: timedelta = 7 * DAY,
    now: datetime = NOW,
    named: Name | None = None,
    serial: int = 77,
) -> bytes:
    """A certificate of a kind, as it is issued."""
    return issuance.issue(
        issuer or issuer_of(kind),
        request(label, kind),
        kind=kind,
        name=named or name(kind),
        validity=validity,
        now=now,
        serial=serial,
    )
