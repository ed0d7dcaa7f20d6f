"""What an attacker shows at the door of a real deployment: keys that are stolen, or made up.

A `Part` is whom a link expects; each attack forges credentials for it that are wrong in one
way and right in all others. Nothing here goes through the constraints of `pki.issuance`: who
has stolen a CA's key signs what he likes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from agents.member.keyring import Credential, Keyring
from agents.runtime.clock import SystemClock
from agents.runtime.files import DISK
from pki import certificates, issuance, keys
from pki.certificates import Kind
from pki.issuance import Issuer
from protocol.tls import Credentials
from tests.support.daemons import Daemon

__all__ = ["ATTACKS", "Attack", "Loot", "Part", "keyring_of", "leaf_id", "mint", "stolen"]

ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Order of P-256's group."""


def now() -> datetime:
    """The machine's time, as the daemons see it."""
    return SystemClock().now()


def keyring_of(daemon: Daemon) -> Keyring:
    """The keys of a component, from its files."""
    return Keyring(daemon.state / ("pki.db" if daemon.role == "server" else "keys.db"), DISK)


def stolen(daemon: Daemon, kind: Kind) -> Credential:
    """A copy of a component's key and chain."""
    held = keyring_of(daemon).credential(kind)
    assert held is not None
    return held


def issuer_of(credential: Credential) -> Issuer:
    """Somebody who signs with it, whether it may or not."""
    return Issuer(credential.key, credential.chain)


@dataclass(frozen=True)
class Loot:
    """What the attacker has."""

    deployment: bytes
    root: Issuer
    """The current root: for forging what only it could have signed, yet is wrong."""
    revoked_root: Issuer
    revoked_cas: Mapping[bytes, Issuer]
    """Client CAs under the revoked root, by responder."""
    denied: Credential
    """TLS key of a zone server that was approved and is no longer."""
    denied_ca: Issuer
    """Its client CA."""
    client: Credential
    """Of an honest client, with its key."""
    other_ca: Mapping[bytes, Issuer]
    """For each responder, the client CA of the other one."""


@dataclass(frozen=True)
class Part:
    """Whom a link expects."""

    kind: Kind
    id: bytes
    issuer: Issuer
    responder: bytes = b""
    """Of a client: whose."""


def mint(
    issuer: Issuer,
    kind: Kind,
    id: bytes,
    *,
    deployment: bytes,
    at: datetime | None = None,
    validity: timedelta = timedelta(days=5),
) -> Credentials:
    """A fresh key, certified by whoever."""
    key = keys.generate()
    der = issuance.issue(
        issuer,
        certificates.parse_request(certificates.make_request(key, kind)),
        kind=kind,
        name=certificates.name_of(deployment, kind, id),
        validity=validity,
        now=at or now(),
        serial=int.from_bytes(id) | 1 << 130,
        constraints=(),
    )
    return Credentials((der, *issuer.chain), key)


def leaf_id(credentials: Credentials) -> str:
    """Fingerprint of the key that is shown."""
    return keys.key_id(credentials.key.public_key()).hex()


def expired(loot: Loot, part: Part) -> Credentials:
    return mint(
        part.issuer,
        part.kind,
        part.id,
        deployment=loot.deployment,
        at=now() - timedelta(minutes=50),
        validity=timedelta(minutes=10),
    )


def not_yet_valid(loot: Loot, part: Part) -> Credentials:
    later = now() + timedelta(days=3)
    return mint(part.issuer, part.kind, part.id, deployment=loot.deployment, at=later)


def another_role(loot: Loot, part: Part) -> Credentials:
    """In order in every way, and nobody whom this link is for."""
    role = {
        Kind.CLIENT_TLS: Kind.ZONE_SERVER_TLS,
        Kind.HUB_TLS: Kind.SERVER_TLS,
        Kind.ZONE_SERVER_TLS: Kind.HUB_TLS,
        Kind.SERVER_TLS: Kind.HUB_TLS,
    }[part.kind]
    return mint(loot.root, role, part.id, deployment=loot.deployment)


def another_deployment(loot: Loot, part: Part) -> Credentials:
    """Of an honest deployment that is not this one."""
    deployment = bytes(16)
    return mint(
        foreign(part, "elsewhere.test", deployment), part.kind, part.id, deployment=deployment
    )


def lookalike(loot: Loot, part: Part) -> Credentials:
    """Every name right, root and CA included; every key another."""
    name = certificates.read(loot.root.chain[0]).subject
    fqdn, _, index = name.rpartition(" Root ")
    issuer = foreign(part, fqdn, loot.deployment, int(index))
    return mint(issuer, part.kind, part.id, deployment=loot.deployment)


def other_name_under_our_root(loot: Loot, part: Part) -> Credentials:
    return mint(part.issuer, part.kind, part.id, deployment=bytes(16))


def self_signed(loot: Loot, part: Part) -> Credentials:
    model = mint(part.issuer, part.kind, part.id, deployment=loot.deployment)
    like = x509.load_der_x509_certificate(model.chain[0])
    builder = x509.CertificateBuilder(
        issuer_name=like.subject,
        subject_name=like.subject,
        public_key=model.key.public_key(),
        serial_number=like.serial_number,
        not_valid_before=like.not_valid_before_utc.replace(tzinfo=None),
        not_valid_after=like.not_valid_after_utc.replace(tzinfo=None),
        extensions=list(like.extensions),
    )
    return Credentials((builder.sign(model.key, SHA256()).public_bytes(Encoding.DER),), model.key)


def under_a_revoked_root(loot: Loot, part: Part) -> Credentials:
    """Fresh and in date; the thief has the real old root and the real old client CAs."""
    issuer = loot.revoked_cas.get(part.responder, loot.revoked_root)
    return mint(issuer, part.kind, part.id, deployment=loot.deployment)


def denied_key(loot: Loot, part: Part) -> Credentials:
    """Below a client CA that is denied; where no CA is between, a denied key itself."""
    if part.kind is Kind.CLIENT_TLS:
        return mint(loot.denied_ca, part.kind, part.id, deployment=loot.deployment)
    return Credentials(loot.denied.chain, loot.denied.key)


def denied_twin(loot: Loot, part: Part) -> Credentials:
    """The same with the root's signature (r, s) altered to its valid twin (r, n-s)."""
    if part.kind is Kind.CLIENT_TLS:
        ca = Issuer(loot.denied_ca.key, (twin(loot.denied_ca.chain[0]), *loot.denied_ca.chain[1:]))
        return mint(ca, part.kind, part.id, deployment=loot.deployment)
    leaf, *rest = loot.denied.chain
    return Credentials((twin(leaf), *rest), loot.denied.key)


def client_as_ca(loot: Loot, part: Part) -> Credentials:
    """Signed by an honest client's key, which may sign nothing."""
    return mint(issuer_of(loot.client), part.kind, part.id, deployment=loot.deployment)


def foreign(part: Part, fqdn: str, deployment: bytes, index: int = 0) -> Issuer:
    """A root of somebody's own, and a client CA below it if the part needs one."""
    key = keys.generate()
    root = Issuer(key, (certificates.make_root(key, fqdn, index, now(), 1),))
    if part.kind is not Kind.CLIENT_TLS:
        return root
    ca = mint(root, Kind.CLIENT_CA, part.responder, deployment=deployment)
    return Issuer(ca.key, ca.chain)


def twin(der: bytes) -> bytes:
    """The certificate with the other valid form of its ECDSA signature."""
    whole = x509.load_der_x509_certificate(der)
    r, s = decode_dss_signature(whole.signature)
    other = encode_dss_signature(r, ORDER - s)
    assert other != whole.signature
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    bits = b"\x03" + bytes([len(other) + 1]) + b"\0" + other
    body = whole.tbs_certificate_bytes + algorithm + bits
    assert len(body) < 1 << 16
    return b"\x30\x82" + len(body).to_bytes(2) + body


@dataclass(frozen=True)
class Attack:
    """A way to be wrong, and what it is to be refused for."""

    forge: Callable[[Loot, Part], Credentials]
    reason: str


ATTACKS: Final[Mapping[str, Attack]] = MappingProxyType(
    {
        "expired": Attack(expired, "expired"),
        "not yet valid": Attack(not_yet_valid, "clock"),
        "another role": Attack(another_role, "wrong_role"),
        "another deployment": Attack(another_deployment, "untrusted"),
        "another deployment's name under our root": Attack(other_name_under_our_root, "wrong_role"),
        "self-signed": Attack(self_signed, "untrusted"),
        "under a revoked root": Attack(under_a_revoked_root, "untrusted"),
        "denied key": Attack(denied_key, "revoked"),
        "denied key, signature's twin": Attack(denied_twin, "revoked"),
        "signed by a client": Attack(client_as_ca, "untrusted"),
        "right names, other keys": Attack(lookalike, "untrusted"),
    }
)
"""The name of each attack."""
