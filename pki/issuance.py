"""Signing a certificate, under constraints.

Whoever signs decides alone what stands in a certificate: kind, name, dates, serial number. From
the request comes nothing but a key whose holder is proven.

A certificate begins `BACKDATE` before now, for the sake of slow clocks, but not before its
issuer does. It ends after its validity or with its issuer, whichever is earlier (A13): nothing
outlives what vouches for it.

Constraints are functions that raise `RefusedError`. Each looks at the whole `Proposal`, in the
order given, and the first one that objects ends it; nothing has been signed then. A caller with
more to ask adds to `DEFAULT`; nothing is gained by leaving one out.

This is the hot path of a fleet that re-keys at once: see `pki.body`.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from pki import body, certificates, keys
from pki.certificates import BACKDATE, PROFILES, CertificateRequest, Facts, Kind
from pki.errors import (
    ExpiredError,
    MalformedError,
    NotYetValidError,
    RefusedError,
    RoleError,
    SignatureError,
    UnknownKeyError,
    UntrustedError,
)
from pki.keys import KeyId, PrivateKey
from pki.names import Name
from pki.profiles import LINES

__all__ = [
    "DEFAULT",
    "MIN_LIFE",
    "Constraint",
    "Issuer",
    "Proposal",
    "certify",
    "check_issued",
    "issue",
    "serial",
]

MIN_LIFE: Final = timedelta(hours=1)
"""Nothing is issued for less: no key rotates more than once an hour (B8)."""

_MAX_SERIAL_BITS: Final = 159
"""RFC 5280, 4.1.2.2: twenty octets, positive."""
_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True)
class Issuer:
    """A key that signs certificates, with the chain that says so.

    Raises:
        ValueError: No chain, or one that is another key's.
    """

    key: PrivateKey = field(repr=False)
    chain: tuple[bytes, ...]
    """DER; the issuer's own certificate first, the root last."""
    facts: Facts = field(init=False, repr=False, compare=False)
    """What its own certificate says."""
    above: frozenset[KeyId] = field(init=False, repr=False, compare=False)
    """KeyIDs of the whole chain."""

    def __post_init__(self) -> None:
        line = [certificates.read(der) for der in self.chain]
        if not line or line[0].key_id != keys.key_id(self.key.public_key()):
            raise ValueError("the first certificate of an issuer's chain is not its own")
        object.__setattr__(self, "facts", line[0])
        object.__setattr__(self, "above", frozenset(facts.key_id for facts in line))


class Proposal(NamedTuple):
    """A certificate that is about to be signed."""

    issuer: Facts
    above: frozenset[KeyId]
    """KeyIDs of the issuer's whole chain."""
    kind: Kind
    name: Name
    key_id: KeyId
    now: datetime
    not_before: datetime
    not_after: datetime
    serial: int


Constraint: TypeAlias = Callable[[Proposal], None]
"""Raises `RefusedError`, or agrees."""


def kind_is_the_issuers(proposal: Proposal) -> None:
    """Each kind stands under one kind of issuer: a client CA makes clients and nothing else."""
    expected = PROFILES[proposal.kind].issuer
    if proposal.issuer.kind is not expected or proposal.kind is Kind.ROOT:
        raise RefusedError(
            f"{proposal.kind} is signed by a {expected}, "
            f"not by a {proposal.issuer.kind or 'certificate of no kind'}"
        )


def role_is_the_kinds(proposal: Proposal) -> None:
    """A name's role goes with one kind (A12)."""
    expected = PROFILES[proposal.kind].role
    if proposal.name.role is not expected:
        raise RefusedError(f"{proposal.kind} is for role {expected}, not {proposal.name.role}")


def deployment_is_the_issuers(proposal: Proposal) -> None:
    """A CA that names a deployment signs for no other."""
    name = proposal.issuer.name
    if name is not None and name.deployment != proposal.name.deployment:
        raise RefusedError(
            f"issuer is of deployment {name.deployment.hex()}, not {proposal.name.deployment.hex()}"
        )


def key_is_new_to_the_chain(proposal: Proposal) -> None:
    """A key never stands under itself: denying the lower one would deny the upper."""
    if proposal.key_id in proposal.above:
        raise RefusedError(f"key {proposal.key_id.hex()} is one of its issuer's chain")


def issuer_is_in_date(proposal: Proposal) -> None:
    """An expired CA signs nothing, nor one that our clock says has not begun."""
    issuer = proposal.issuer
    if not issuer.not_before <= proposal.now < issuer.not_after:
        raise RefusedError(
            f"issuer is valid from {issuer.not_before.isoformat()} "
            f"to {issuer.not_after.isoformat()}, not at {proposal.now.isoformat()}"
        )


def life_is_long_enough(proposal: Proposal) -> None:
    """What would end within the hour is not worth signing: its issuer has to be renewed first."""
    left = proposal.not_after - proposal.now
    if left < MIN_LIFE:
        raise RefusedError(f"would be valid for {left}, at least {MIN_LIFE}")


DEFAULT: Final[tuple[Constraint, ...]] = (
    kind_is_the_issuers,
    role_is_the_kinds,
    deployment_is_the_issuers,
    key_is_new_to_the_chain,
    issuer_is_in_date,
    life_is_long_enough,
)
"""What every certificate has to satisfy."""


def serial(random: Callable[[int], bytes], now: datetime) -> int:
    """A serial number: when, and 80 bits that nobody can foresee.

    Those of an issuer grow with time, so whoever keeps them in order adds at the end, where a
    random one touches a page of its own (RFC 9562, 6.11, has the same for its UUIDs). The topmost
    of its 121 bits is set, so that its length never varies.

    Args:
        random: Gives as many random bytes as it is asked for; it is asked for 10.
        now: Policy time; no less unique if it has been before.
    """
    seconds = max(0, int(now.timestamp()))
    return 1 << 120 | seconds << 80 | int.from_bytes(random(10))


def certify(
    issuer: Issuer,
    request: CertificateRequest,
    *,
    kind: Kind,
    name: Name,
    validity: timedelta,
    now: datetime,
    serial: int,
    constraints: Sequence[Constraint] = DEFAULT,
) -> Facts:
    """Sign a certificate.

    Returns what `certificates.read` would say of it: who has just made it need not read it.

    Args:
        issuer: Who signs.
        request: The key, from `certificates.parse_request`.
        kind: What it will be for.
        name: Whom it will name; its role has to be the kind's.
        validity: How long it is good from `now`, unless its issuer ends earlier.
        now: Policy time.
        serial: Positive, below 2^159, never used before by this issuer.
        constraints: What is checked before anything is signed.

    Raises:
        RefusedError: A constraint objects.
        ValueError: A serial number out of range.
    """
    if serial <= 0 or serial.bit_length() > _MAX_SERIAL_BITS:
        raise ValueError(f"serial number of {serial.bit_length()} bits")
    facts = issuer.facts
    proposal = Proposal(
        issuer=facts,
        above=issuer.above,
        kind=kind,
        name=name,
        key_id=request.key_id,
        now=now,
        not_before=max(now - BACKDATE, facts.not_before),
        not_after=min(now + validity, facts.not_after),
        serial=serial,
    )
    for constraint in constraints:
        constraint(proposal)
    return _sign(issuer, request, proposal)


def issue(
    issuer: Issuer,
    request: CertificateRequest,
    *,
    kind: Kind,
    name: Name,
    validity: timedelta,
    now: datetime,
    serial: int,
    constraints: Sequence[Constraint] = DEFAULT,
) -> bytes:
    """`certify`, for whoever wants nothing but the certificate, DER."""
    facts = certify(
        issuer,
        request,
        kind=kind,
        name=name,
        validity=validity,
        now=now,
        serial=serial,
        constraints=constraints,
    )
    return facts.der


def _sign(issuer: Issuer, request: CertificateRequest, proposal: Proposal) -> Facts:
    name = proposal.name
    subject = f"{name.role} {name.id.hex()}"
    not_before, not_after = _written(proposal.not_before), _written(proposal.not_after)
    signed = body.write(
        proposal.kind,
        issuer=issuer.chain[0],
        serial=proposal.serial,
        not_before=not_before,
        not_after=not_after,
        subject=subject,
        spki=request.spki,
        uri=name.uri,
        key_id=proposal.key_id,
    )
    signature = issuer.key.sign(signed, _ALGORITHM)
    return Facts(
        der=body.complete(signed, signature),
        serial=proposal.serial,
        name=name,
        kind=proposal.kind,
        subject=subject,
        key_id=proposal.key_id,
        spki=request.spki,
        not_before=not_before,
        not_after=not_after,
        is_ca=PROFILES[proposal.kind].is_ca,
    )


def _written(date: datetime) -> datetime:
    """A date as a certificate has it: UTC, in whole seconds."""
    utc = date if date.tzinfo is UTC else date.astimezone(UTC)
    return utc.replace(microsecond=0)


def check_issued(
    chain: Sequence[bytes],
    *,
    key_id: KeyId,
    kind: Kind,
    name: Name,
    roots: Collection[KeyId],
    now: datetime,
) -> None:
    """Check what an issuer has sent, before it replaces what works.

    1. length   as many certificates as the kind needs, leaf first, root last.
    2. root     the last one is a root that is trusted here.
    3. kinds    each certificate is of the kind that the one below it stands under.
    4. linked   each is signed by the next.
    5. dates    all hold now, and none ends after its issuer (A13).
    6. leaf     our key, the kind that was asked for, our name, our deployment's CA.

    Args:
        chain: DER, leaf first.
        key_id: The key that the request was for.
        kind: The kind that was asked for.
        name: Our own.
        roots: KeyIDs of the trusted roots.
        now: Policy time.

    Raises:
        MalformedError: Something is no certificate, or the chain has another length.
        UntrustedError: Any of the others; a subclass says which.
    """
    line = LINES[kind]
    if len(chain) != len(line):
        raise MalformedError(f"chain of {len(chain)} certificates, expected {len(line)}")
    facts = [certificates.read(der) for der in chain]
    if facts[-1].key_id not in roots:
        raise UnknownKeyError(facts[-1].key_id, "root")
    for expected, lower, upper in zip(line, facts, [*facts[1:], facts[-1]], strict=True):
        if lower.kind is not expected:
            raise RoleError(expected, lower.kind or "certificate of no kind")
        _check_signed(lower, upper)
        _check_dates(lower, upper, now)
    if facts[0].key_id != key_id:
        raise UntrustedError(f"certificate is for key {facts[0].fingerprint}, not {key_id.hex()}")
    if facts[0].name != name:
        raise RoleError(name.uri, facts[0].name.uri if facts[0].name else "no name")
    for upper in facts[1:-1]:
        if upper.name is None or upper.name.deployment != name.deployment:
            raise UntrustedError("certificate is from a CA of another deployment")


def _check_signed(lower: Facts, upper: Facts) -> None:
    try:
        x509.load_der_x509_certificate(lower.der).verify_directly_issued_by(
            x509.load_der_x509_certificate(upper.der)
        )
    except (*certificates.UNREADABLE, InvalidSignature) as exc:
        raise SignatureError(
            f"certificate of key {lower.fingerprint} is not signed by {upper.fingerprint}"
        ) from exc


def _check_dates(lower: Facts, upper: Facts, now: datetime) -> None:
    if now >= lower.not_after:
        raise ExpiredError(lower.key_id, lower.not_after, now)
    if now < lower.not_before:
        raise NotYetValidError(lower.key_id, lower.not_before, now)
    if lower.not_after > upper.not_after:
        raise UntrustedError(f"certificate of key {lower.fingerprint} outlives its issuer")
