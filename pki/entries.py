r"""Entries of the trust ledger: their bytes, and what one of them says.

    body      = [version = 1, kind, n, previous (32; empty in GENESIS), time, audit (32), payload]
    entry id  = SHA-256("anchorline-ledger-v1\0" || body)
    entry     = [body as bin, [[spki, sig], ...]]
    sig       = ECDSA-SHA256, DER, over "anchorline-ledger-sig-v1\0" || entry id

    GENESIS 0   [deployment (16), root, [16 next KeyIDs], k, [recovery KeyIDs]]
    ROTATE  1   [root, one more KeyID]
    REVOKE  2   [root KeyIDs]

Signatures stand outside the id: an ECDSA signature has a valid twin, so whoever relays an
entry could otherwise change its id. For the same reason two chains are compared by the ids of
their entries, and by nothing else.

This module knows form (*Entry*). Whether an entry may follow others is `pki.steps`'s question.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from pki import certificates, encoding, keys, statements
from pki.errors import MalformedError, SignatureError
from pki.keys import KeyId, PrivateKey

__all__ = [
    "DEPTH",
    "MAX_ENTRY",
    "NO_PREVIOUS",
    "Body",
    "Entry",
    "Genesis",
    "Kind",
    "Payload",
    "Revoke",
    "Root",
    "Rotate",
    "Signature",
    "UnknownEntryError",
    "decode_entry",
    "entry_id",
    "parse_body",
    "sign_entry",
]

VERSION: Final = 1
DEPTH = 16
"""D: how many next roots are committed to at any time. Tests of the theorem use a smaller one."""

MAX_ENTRY: Final = 16 * 1024
"""Bytes of an entry as it is kept, with the signatures that its kind asks for (*Chain* 1)."""

MAX_RECEIVED: Final = 64 * 1024
"""Bytes of an entry as it arrives: signatures that nobody asked for are dropped afterwards."""

MAX_INT: Final = 2**63 - 1
MAX_RECOVERY: Final = 16
ID_BYTES: Final = 32
DEPLOYMENT_BYTES: Final = 16
NO_PREVIOUS: Final = b""

DOMAIN: Final = statements.Domain(b"anchorline-ledger-v1\0", b"anchorline-ledger-sig-v1\0")


class Kind(IntEnum):
    """What an entry does. Any other number is unknown, and ends a chain."""

    GENESIS = 0
    ROTATE = 1
    REVOKE = 2


class UnknownEntryError(MalformedError):
    """An entry of a later version or of a kind that this program does not know."""


@dataclass(frozen=True, slots=True)
class Root:
    """A root certificate, of which only this decides whether an entry is valid.

    It is DER, its key is P-256 in the one accepted form, its self-signature is good, and its
    common name ends in ` Root <index>`. Its dates and extensions decide nothing here.
    """

    der: bytes = field(repr=False)
    spki: bytes = field(repr=False)
    key_id: KeyId
    index: int
    name: str

    @classmethod
    def parse(cls, der: bytes, index: int) -> "Root":
        """Read a root that stands at place `index`, from 0, of its chain.

        Raises:
            MalformedError: Not a root certificate of that place.
            SignatureError: Its self-signature is not good.
        """
        facts = certificates.read(der)
        if not facts.subject.endswith(f" Root {index}"):
            raise MalformedError(f"root named {facts.subject[:80]!r} at place {index}")
        _check_self_signature(der, facts.spki)
        return cls(der, facts.spki, facts.key_id, index, facts.subject)


def _check_self_signature(der: bytes, spki: bytes) -> None:
    try:
        certificate = x509.load_der_x509_certificate(der)
        canonical = certificate.public_bytes(Encoding.DER) == der
        algorithm = certificate.signature_hash_algorithm
        signed = certificate.tbs_certificate_bytes
        signature = certificate.signature
    except certificates.UNREADABLE as exc:
        raise MalformedError("root is not a DER certificate") from exc
    if not canonical or not isinstance(algorithm, hashes.SHA256):
        raise MalformedError("root is not a DER certificate signed with SHA-256")
    keys.verify(spki, signature, b"", signed)


@dataclass(frozen=True, slots=True)
class Genesis:
    """The first root of a slot, and the commitment to its first `DEPTH` successors."""

    deployment: bytes
    root: bytes = field(repr=False)
    next: tuple[KeyId, ...] = field(repr=False)
    quorum: int = 0
    recovery: tuple[KeyId, ...] = ()


@dataclass(frozen=True, slots=True)
class Rotate:
    """The next root, and one more key for the end of the commitment."""

    root: bytes = field(repr=False)
    more: KeyId


@dataclass(frozen=True, slots=True)
class Revoke:
    """Roots that are trusted no longer."""

    roots: tuple[KeyId, ...]


Payload: TypeAlias = Genesis | Rotate | Revoke


@dataclass(frozen=True, slots=True)
class Body:
    """What is signed: an entry without its signatures."""

    n: int
    previous: bytes
    time: int
    """Seconds since 1970, for people; decides nothing."""
    audit: bytes
    """Salted hash of the audit record: names and reasons stay on the server."""
    payload: Payload

    @property
    def kind(self) -> Kind:
        """The number that the payload has on the wire."""
        match self.payload:
            case Genesis():
                return Kind.GENESIS
            case Rotate():
                return Kind.ROTATE
            case Revoke():
                return Kind.REVOKE

    def encode(self) -> bytes:
        """Canonical bytes, which `parse_body` reads back to an equal value."""
        head: list[object] = [VERSION, int(self.kind), self.n, self.previous, self.time, self.audit]
        return encoding.pack([*head, _payload_list(self.payload)])


def _payload_list(payload: Payload) -> list[object]:
    match payload:
        case Genesis(deployment, root, following, quorum, recovery):
            return [deployment, root, list(following), quorum, list(recovery)]
        case Rotate(root, more):
            return [root, more]
        case Revoke(roots):
            return list(roots)


def entry_id(body: bytes) -> bytes:
    """The id of the entry that has this body, 32 bytes."""
    return statements.digest(DOMAIN.body, body)


def parse_body(data: bytes) -> Body:
    """Read the body of an entry.

    Raises:
        UnknownEntryError: Of another version, or of a kind that is not known here.
        MalformedError: Not canonical, or a payload that its kind does not have.
    """
    items = encoding.as_list(encoding.unpack(data, max_bytes=MAX_ENTRY), length=7, what="entry")
    version = encoding.as_int(items[0], what="version")
    if version != VERSION:
        raise UnknownEntryError(f"entry of version {version}")
    number = encoding.as_int(items[1], what="kind")
    try:
        kind = Kind(number)
    except ValueError as exc:
        raise UnknownEntryError(f"entry of kind {number}") from exc
    n = natural(items[2], "n")
    previous = encoding.as_bytes(
        items[3], length=0 if kind is Kind.GENESIS else ID_BYTES, what="previous"
    )
    time = natural(items[4], "time")
    audit = encoding.as_bytes(items[5], length=ID_BYTES, what="audit")
    return Body(n, previous, time, audit, _parse_payload(kind, items[6]))


def natural(value: object, what: str) -> int:
    """Read an integer that is not negative and fits 63 bits; MalformedError otherwise."""
    number = encoding.as_int(value, what=what)
    if not 0 <= number <= MAX_INT:
        raise MalformedError(f"{what} of {number} is out of range")
    return number


def _parse_payload(kind: Kind, value: object) -> Payload:
    match kind:
        case Kind.GENESIS:
            return _parse_genesis(encoding.as_list(value, length=5, what="GENESIS"))
        case Kind.ROTATE:
            root, more = encoding.as_list(value, length=2, what="ROTATE")
            return Rotate(
                encoding.as_bytes(root, what="root"),
                KeyId(encoding.as_bytes(more, length=ID_BYTES, what="one more key id")),
            )
        case Kind.REVOKE:
            roots = key_ids(value, "revoked root")
            if not roots:
                raise MalformedError("REVOKE of no root")
            return Revoke(roots)


def _parse_genesis(items: Sequence[object]) -> Genesis:
    following = key_ids(items[2], "next key id")
    if len(following) != DEPTH:
        raise MalformedError(f"{len(following)} next key ids, expected {DEPTH}")
    quorum = encoding.as_int(items[3], what="quorum")
    recovery = key_ids(items[4], "recovery key id")
    fits = 1 <= quorum <= len(recovery) <= MAX_RECOVERY if recovery else quorum == 0
    if not fits:
        raise MalformedError(f"quorum of {quorum} with {len(recovery)} recovery keys")
    return Genesis(
        encoding.as_bytes(items[0], length=DEPLOYMENT_BYTES, what="deployment"),
        encoding.as_bytes(items[1], what="root"),
        following,
        quorum,
        recovery,
    )


def key_ids(value: object, what: str) -> tuple[KeyId, ...]:
    """Read a list of KeyIDs, of which none may be there twice.

    Raises:
        MalformedError: Another type or length, or a repeat.
    """
    found = tuple(
        KeyId(encoding.as_bytes(item, length=ID_BYTES, what=what))
        for item in encoding.as_list(value, what=f"{what} list")
    )
    if len(set(found)) != len(found):
        raise MalformedError(f"{what} twice")
    return found


@dataclass(frozen=True, slots=True)
class Signature:
    """One key's signature of an entry."""

    spki: bytes = field(repr=False)
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """A body as it was signed, with signatures. `id` is computed from the body."""

    body: bytes = field(repr=False)
    signatures: tuple[Signature, ...] = field(repr=False)
    id: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", entry_id(self.body))

    def encode(self) -> bytes:
        """The bytes that travel."""
        return encoding.pack([self.body, [[s.spki, s.value] for s in self.signatures]])

    def parse(self) -> Body:
        """What the entry says; errors as of `parse_body`."""
        return parse_body(self.body)

    @property
    def time(self) -> datetime | None:
        """The writer's date, to be shown; `None` where no calendar has it."""
        try:
            return datetime.fromtimestamp(self.parse().time, UTC)
        except (OverflowError, ValueError, OSError):
            return None

    def keep(self, signers: Collection[bytes]) -> "Entry":
        """The same entry with one good signature of each signer, in their order, and no other.

        Signatures of other keys are dropped unread, and so is what is no signature of its key:
        a relay can add such things, and may not make an entry larger or worse by it.

        Args:
            signers: SubjectPublicKeyInfos that must have signed.

        Raises:
            SignatureError: One of them has not.
        """
        return Entry(self.body, tuple(self._signature_of(spki) for spki in signers))

    def _signature_of(self, spki: bytes) -> Signature:
        for signature in self.signatures:
            if signature.spki == spki and self._is_good(signature):
                return signature
        raise SignatureError(f"no good signature of key {keys.key_id(spki).hex()}")

    def _is_good(self, signature: Signature) -> bool:
        try:
            keys.verify(signature.spki, signature.value, DOMAIN.signature, self.id)
        except SignatureError:
            return False
        return True


def decode_entry(data: bytes) -> Entry:
    """Split an entry as it arrived into its body and signatures.

    The body is not read: of an unknown kind it passes here, and ends the chain in the ledger.

    Raises:
        MalformedError: Not canonical, or too large to be looked at.
    """
    outer = encoding.as_list(encoding.unpack(data, max_bytes=MAX_RECEIVED), length=2, what="entry")
    signatures = []
    for item in encoding.as_list(outer[1], what="signatures"):
        spki, value = encoding.as_list(item, length=2, what="signature")
        signatures.append(
            Signature(
                encoding.as_bytes(spki, what="signer"),
                encoding.as_bytes(value, what="signature"),
            )
        )
    return Entry(encoding.as_bytes(outer[0], what="entry body"), tuple(signatures))


def sign_entry(body: Body, signers: Sequence[PrivateKey]) -> Entry:
    """Sign a body with each of the keys, in that order."""
    encoded = body.encode()
    message = entry_id(encoded)
    return Entry(
        encoded,
        tuple(
            Signature(keys.spki(key.public_key()), keys.sign(key, DOMAIN.signature, message))
            for key in signers
        ),
    )
