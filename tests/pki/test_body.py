"""The body of a certificate, against the builder of `cryptography`: two who write the same."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from pki import body, certificates, keys
from pki.certificates import PROFILES, Kind
from pki.names import Name
from tests.pki.hierarchy import ISSUED

ISSUER_KEY, KEY = keys.generate(), keys.generate()
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ISSUER = certificates.make_root(ISSUER_KEY, "server.example", 7, NOW, 1)
SPKI = keys.spki(KEY.public_key())

ids = st.binary(min_size=16, max_size=16)
dates = st.datetimes(
    min_value=datetime(1950, 1, 1),  # noqa: DTZ001 - made aware below
    max_value=datetime(9990, 1, 1),  # noqa: DTZ001
).map(lambda date: date.replace(microsecond=0, tzinfo=UTC))


def built(
    kind: Kind, name: Name, serial: int, not_before: datetime, not_after: datetime
) -> x509.Certificate:
    """The same certificate, by the library."""
    profile = PROFILES[kind]
    assert profile.extended is not None
    issuer_key = x509.AuthorityKeyIdentifier(certificates.read(ISSUER).key_id, None, None)
    return (
        x509.CertificateBuilder()
        .issuer_name(x509.load_der_x509_certificate(ISSUER).subject)
        .subject_name(certificates.common_name(f"{name.role} {name.id.hex()}"))
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(profile.constraints, critical=True)
        .add_extension(profile.key_usage, critical=True)
        .add_extension(profile.extended, critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name.uri)]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier(keys.key_id(SPKI)), critical=False)
        .add_extension(issuer_key, critical=False)
        .sign(ISSUER_KEY, hashes.SHA256())
    )


def written(
    kind: Kind, name: Name, serial: int, not_before: datetime, not_after: datetime
) -> bytes:
    return body.write(
        kind,
        issuer=ISSUER,
        serial=serial,
        not_before=not_before,
        not_after=not_after,
        subject=f"{name.role} {name.id.hex()}",
        spki=SPKI,
        uri=name.uri,
        key_id=keys.key_id(SPKI),
    )


@given(
    kind=st.sampled_from(ISSUED),
    deployment=ids,
    id=ids,
    serial=st.integers(min_value=1, max_value=2**159 - 1),
    not_before=dates,
    life=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650)),
)
def test_it_is_what_the_library_would_sign(
    kind: Kind,
    deployment: bytes,
    id: bytes,
    serial: int,
    not_before: datetime,
    life: timedelta,
) -> None:
    name = certificates.name_of(deployment, kind, id)
    not_after = min(not_before + life, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    not_after = not_after.replace(microsecond=0)
    ours = written(kind, name, serial, not_before, not_after)
    theirs = built(kind, name, serial, not_before, not_after)
    assert ours.hex() == theirs.tbs_certificate_bytes.hex()
    signature = ISSUER_KEY.sign(ours, ec.ECDSA(hashes.SHA256()))
    certificate = x509.load_der_x509_certificate(body.complete(ours, signature))
    assert certificate.signature_algorithm_oid == theirs.signature_algorithm_oid
    certificate.verify_directly_issued_by(x509.load_der_x509_certificate(ISSUER))
    whole = body.complete(theirs.tbs_certificate_bytes, theirs.signature)
    assert whole == theirs.public_bytes(Encoding.DER)


def test_a_root_is_written_by_nobody() -> None:
    name = certificates.name_of(bytes(16), Kind.CLIENT_TLS, bytes(16))
    with pytest.raises(ValueError, match="a root is issued by nobody"):
        written(Kind.ROOT, name, 1, NOW, NOW)
