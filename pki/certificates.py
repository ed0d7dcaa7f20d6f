"""Certificates and requests for them: making a root, asking for a certificate, reading either.

Which kinds there are is in `pki.profiles`; signing one for somebody else in `pki.issuance`.
`read` says which kind a certificate is: that whose role it names, if usage, CA flag and path
length are exactly that profile's. A certificate with any other mixture is of no kind, whoever
has signed it.

The subject key identifier is the KeyID (RFC 7093, method 4), so that any tool shows it.
`read` never looks there: a KeyID is always computed, over the 91 bytes of the key.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from pki import keys
from pki.errors import MalformedError, RefusedError, SignatureError
from pki.keys import KeyId, PrivateKey, PublicKey
from pki.names import Name
from pki.profiles import KIND_OF_ROLE, PROFILES, Kind, Profile

__all__ = [
    "BACKDATE",
    "MAX_CERTIFICATE",
    "MAX_FQDN",
    "MAX_REQUEST",
    "NEVER",
    "PROFILES",
    "UNREADABLE",
    "CertificateRequest",
    "Facts",
    "Kind",
    "Profile",
    "created",
    "make_request",
    "make_root",
    "name_of",
    "parse_request",
    "read",
]

BACKDATE: Final = timedelta(hours=1)
"""How far before its making a certificate begins: room for the clocks of its readers."""

NEVER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""RFC 5280, 4.1.2.5: the date of what has no end. Roots never expire (A2)."""

MAX_CERTIFICATE: Final = 4096
"""Bytes of a certificate that is read; ours have about 600."""
MAX_REQUEST: Final = 1024
"""Bytes of a request that is read; ours have about 230."""
MAX_FQDN: Final = 53
"""Characters of a server's name: X.509 gives a common name 64, ` Root 99999` needs eleven."""

_KEY_PLACE: Final = 6
"""RFC 5280, 4.1: the key is the seventh field of what is signed, version included."""
_REQUEST_KEY_PLACE: Final = 2
"""RFC 2986, 4.1."""
_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)
_Extensions = Mapping[type[x509.ExtensionType], x509.ExtensionType]

# All that `cryptography` was seen to raise for hostile bytes: three are no ValueError, and
# warnings (of attributes too long, say) are errors where an interpreter is told so.
UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    Warning,
)
"""What reading a certificate, or any part of one, may raise."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a certificate says. Nothing here is verified: not its signature, nor its dates."""

    der: bytes = field(repr=False)
    serial: int
    name: Name | None
    """Its one URI, if that is a name of a component."""
    kind: Kind | None
    """The kind whose profile it has, to the letter; `None` for any other mixture."""
    subject: str
    """Common name."""
    key_id: KeyId
    spki: bytes = field(repr=False)
    not_before: datetime
    not_after: datetime
    is_ca: bool

    @property
    def fingerprint(self) -> str:
        """The KeyID as text: the one fingerprint of a key (A11)."""
        return self.key_id.hex()


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A request whose sender has proven that it holds the private key. It has no name."""

    spki: bytes
    public_key: PublicKey = field(repr=False, compare=False)

    @property
    def key_id(self) -> KeyId:
        """Name of the key."""
        return keys.key_id(self.spki)


def created(der: bytes) -> datetime:
    """When a certificate was made: certificates are backdated. For people; decides nothing."""
    not_before = read(der).not_before
    return not_before if not_before > NEVER - BACKDATE else not_before + BACKDATE


def name_of(deployment: bytes, kind: Kind, id: bytes) -> Name:
    """The name that a certificate of this kind carries for this component.

    Raises:
        ValueError: a root, which names nobody.
    """
    role = PROFILES[kind].role
    if role is None:
        raise ValueError(f"a {kind} certificate names no component")
    return Name(deployment, role, id)


def common_name(text: str) -> x509.Name:
    """Return the X.509 name that has this common name and nothing else."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def make_root(key: PrivateKey, fqdn: str, index: int, now: datetime, serial: int) -> bytes:
    """Make the certificate of a root: `<fqdn> Root <index>`, self-signed, without an end.

    Args:
        key: The root's key, which signs it.
        fqdn: Name of the server, at most `MAX_FQDN` characters.
        index: Place in the server's chain, from 0 (A2).
        now: Policy time; it begins `BACKDATE` before.
        serial: Positive, below 2^159.

    Raises:
        ValueError: Arguments out of range.
    """
    if not 0 < len(fqdn) <= MAX_FQDN or index < 0:
        raise ValueError(f"no root {index} of a name of {len(fqdn)} characters")
    name = common_name(f"{fqdn} Root {index}")
    profile = PROFILES[Kind.ROOT]
    public = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before((now - BACKDATE).astimezone(UTC).replace(microsecond=0))
        .not_valid_after(NEVER)
        .add_extension(profile.constraints, critical=True)
        .add_extension(profile.key_usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier(keys.key_id(public)), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def make_request(key: PrivateKey, kind: Kind) -> bytes:
    """Make a request for a certificate of this key, PKCS#10 DER.

    Its subject is the kind, for people who look at one. Nothing reads it: who asks, and for
    what, is stated and proven outside (`pki.enrolment`).
    """
    builder = x509.CertificateSigningRequestBuilder(common_name(kind))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def parse_request(der: bytes) -> CertificateRequest:
    """Read a request and verify its proof of possession (A7).

    Raises:
        MalformedError: Too large, not PKCS#10, or a key that is not of P-256.
        SignatureError: Not signed by the key in it.
        RefusedError: It asks for extensions or has other attributes: we decide those.
    """
    if len(der) > MAX_REQUEST:
        raise MalformedError(f"request of {len(der)} bytes, at most {MAX_REQUEST}")
    try:
        request = x509.load_der_x509_csr(der)
        algorithm = request.signature_algorithm_oid
        signed, signature = request.tbs_certrequest_bytes, request.signature
        spki = _item(signed, _REQUEST_KEY_PLACE)
        attributes = len(request.attributes)
    except UNREADABLE as exc:
        raise MalformedError("not a certificate request") from exc
    public = keys.load_spki(spki)
    if algorithm != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise MalformedError("request is not signed by ECDSA with SHA-256")
    try:
        # `is_signature_valid` would read the key, and find its point on the curve, once more.
        public.verify(signature, signed, _ALGORITHM)
    except InvalidSignature as exc:
        raise SignatureError("request is not signed by its own key") from exc
    if attributes:
        raise RefusedError("request has attributes, expected none")
    return CertificateRequest(spki, public)


# Everybody reads the same few CAs over and over, and a responder the same thousands of leaves: a
# client comes by every minute. One takes 1.5 KiB, and only what TLS has verified is read often.
@lru_cache(maxsize=8192)
def read(der: bytes) -> Facts:
    """Read a certificate.

    Extensions are read leniently, for they only decide `kind`, `name` and `is_ca`; the key is
    read strictly, for it decides who this is.

    Raises:
        MalformedError: Too large, not one certificate in DER, or a key in another form.
    """
    if len(der) > MAX_CERTIFICATE:
        raise MalformedError(f"certificate of {len(der)} bytes, at most {MAX_CERTIFICATE}")
    try:
        certificate = x509.load_der_x509_certificate(der)
        spki = _item(certificate.tbs_certificate_bytes, _KEY_PLACE)
        not_before = certificate.not_valid_before_utc
        not_after = certificate.not_valid_after_utc
        subject = _cn(certificate.subject)
        _cn(certificate.issuer)  # the name of whoever signed has the same form
        serial = certificate.serial_number
    except UNREADABLE as exc:
        raise MalformedError("not a certificate") from exc
    keys.check_spki(spki)
    # RFC 5280, 4.1.2.1 and 4.1.2.2.
    if certificate.version is not x509.Version.v3 or serial <= 0:
        raise MalformedError("certificate without extensions or with no positive serial number")
    extensions = _extensions(certificate)
    name = _name(extensions)
    return Facts(
        der=der,
        serial=serial,
        name=name,
        kind=_kind(extensions, name),
        subject=subject,
        key_id=keys.key_id(spki),
        spki=spki,
        not_before=not_before,
        not_after=not_after,
        is_ca=_is_ca(extensions),
    )


def _item(data: bytes, place: int) -> bytes:
    """Return the DER item at a place of a SEQUENCE that `cryptography` has already parsed.

    It gives a key only as an object, which has forgotten how its point was written.

    Raises:
        ValueError: There is none.
    """
    start = _content(data, 0)[0]
    for _ in range(place):
        start = _content(data, start)[1]
    return data[start : _content(data, start)[1]]


def _content(data: bytes, start: int) -> tuple[int, int]:
    """Where the content of the DER item at `start` begins and ends (X.690, 8.1.3)."""
    if start >= len(data):
        raise ValueError("no further item")
    length = data[start + 1]
    begin = start + 2
    if length >= 0x80:
        begin += length & 0x7F
        length = int.from_bytes(data[start + 2 : begin])
    return begin, begin + length


def _cn(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(found) != 1 or not isinstance(found[0].value, str):
        raise ValueError("no single common name")
    return found[0].value


def _extensions(certificate: x509.Certificate) -> _Extensions:
    """Return the values of the extensions by their type; none where they cannot be read."""
    try:
        return {type(one.value): one.value for one in certificate.extensions}
    except UNREADABLE:
        return {}


def _name(extensions: _Extensions) -> Name | None:
    names = _value(extensions, x509.SubjectAlternativeName)
    if names is None or len(names) != 1:
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    try:
        return Name.parse(uris[0]) if uris else None
    except MalformedError:
        return None


def _kind(extensions: _Extensions, name: Name | None) -> Kind | None:
    kind = KIND_OF_ROLE[name.role if name else None]
    profile = PROFILES[kind]
    fits = (
        _value(extensions, x509.BasicConstraints) == profile.constraints
        and _value(extensions, x509.KeyUsage) == profile.key_usage
        and _value(extensions, x509.ExtendedKeyUsage) == profile.extended
    )
    # A name that is not ours is not the same as none: a root has none.
    nameless = name is None and _value(extensions, x509.SubjectAlternativeName) is None
    return kind if fits and (name or nameless) else None


def _is_ca(extensions: _Extensions) -> bool:
    constraints = _value(extensions, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def _value(extensions: _Extensions, sort: type[_Extension]) -> _Extension | None:
    found = extensions.get(sort)
    return found if isinstance(found, sort) else None
