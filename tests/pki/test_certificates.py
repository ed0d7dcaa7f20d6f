"""Reading certificates and requests that anybody may have written."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from pki import certificates, keys
from pki.certificates import PROFILES, Kind, make_request, make_root, parse_request, read
from pki.errors import MalformedError, PKIError, RefusedError, SignatureError
from tests.pki import hierarchy
from tests.pki.hierarchy import DAY, ISSUED, NOW, key, leaf, name, root

DER = Encoding.DER


def _subject(text: str = "somebody") -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    *,
    subject: x509.Name | None = None,
    issuer: x509.Name | None = None,
    public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | None = None,
) -> bytes:
    """A certificate as a stranger can make one: the root's name, any content."""
    builder = x509.CertificateBuilder(
        issuer_name=_subject("root.example Root 0") if issuer is None else issuer,
        subject_name=_subject() if subject is None else subject,
        public_key=public or key("leaf").public_key(),
        serial_number=5,
        not_valid_before=datetime(2031, 1, 1),  # noqa: DTZ001 - as the constructor takes it
        not_valid_after=datetime(2032, 1, 1),  # noqa: DTZ001
        extensions=[x509.Extension(value.oid, critical, value) for value, critical in extensions],
    )
    return builder.sign(key("stranger"), hashes.SHA256()).public_bytes(DER)


def uris(*texts: str) -> tuple[x509.ExtensionType, bool]:
    return x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(text) for text in texts]
    ), False


def form(kind: Kind) -> dict[str, tuple[x509.ExtensionType, bool]]:
    """The extensions of a kind, by name."""
    profile = PROFILES[kind]
    found: dict[str, tuple[x509.ExtensionType, bool]] = {
        "constraints": (profile.constraints, True),
        "usage": (profile.key_usage, True),
    }
    if profile.extended is not None:
        found["extended"] = (profile.extended, False)
    if profile.role is not None:
        found["name"] = uris(name(kind).uri)
    return found


class TestRoot:
    @pytest.mark.req("A2")
    def test_its_form(self) -> None:
        der = make_root(key("root"), "srv.example.org", 7, NOW, 1234)
        facts = read(der)
        assert facts.subject == "srv.example.org Root 7"
        assert (facts.kind, facts.name, facts.is_ca) == (Kind.ROOT, None, True)
        assert facts.serial == 1234
        assert facts.not_before == NOW - timedelta(hours=1)
        assert facts.key_id == keys.key_id(key("root").public_key())
        parsed = x509.load_der_x509_certificate(der)
        assert parsed.issuer.rfc4514_string() == "CN=srv.example.org Root 7"
        parsed.verify_directly_issued_by(parsed)
        limits = parsed.extensions.get_extension_for_class(x509.BasicConstraints)
        assert (limits.critical, limits.value.path_length) == (True, 1)

    @pytest.mark.req("A2")
    def test_it_never_expires(self) -> None:
        der = make_root(key("root"), "srv", 0, NOW, 1)
        assert read(der).not_after == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
        assert b"99991231235959Z" in der

    def test_a_date_of_another_zone_is_the_same_date(self) -> None:
        elsewhere = NOW.astimezone(tz=__import__("zoneinfo").ZoneInfo("Asia/Tokyo"))
        assert read(make_root(key("root"), "srv", 0, elsewhere, 1)).not_before == NOW - DAY / 24

    @pytest.mark.parametrize(
        ("fqdn", "index", "serial"),
        [("", 0, 1), ("x" * 54, 0, 1), ("srv", -1, 1), ("srv", 0, 0), ("srv", 0, 1 << 159)],
    )
    def test_arguments_out_of_range(self, fqdn: str, index: int, serial: int) -> None:
        with pytest.raises(ValueError, match=r"."):
            make_root(key("root"), fqdn, index, NOW, serial)

    def test_the_longest_name_fits(self) -> None:
        facts = read(make_root(key("root"), "x" * certificates.MAX_FQDN, 99999, NOW, 1))
        assert len(facts.subject) == 64


class TestRequest:
    @pytest.mark.req("A7")
    @pytest.mark.parametrize("kind", ISSUED)
    def test_it_is_read_as_it_was_made(self, kind: Kind) -> None:
        request = parse_request(make_request(key("leaf"), kind))
        assert request.spki == keys.spki(key("leaf").public_key())
        assert request.key_id == keys.key_id(request.spki)

    @pytest.mark.req("A7")
    def test_every_changed_byte_is_refused(self) -> None:
        good = make_request(key("leaf"), Kind.CLIENT_TLS)
        signature = x509.load_der_x509_csr(good).signature
        # The byte before the signature counts its unused bits, and says nothing where they are 0.
        for place in set(range(len(good))) - {len(good) - len(signature) - 1}:
            changed = bytearray(good)
            changed[place] ^= 0x01
            with pytest.raises(PKIError):
                parse_request(bytes(changed))

    @pytest.mark.req("A7")
    def test_a_key_that_somebody_else_holds_is_refused(self) -> None:
        # The attacker knows the victim's public key, and signs with his own.
        good = make_request(key("thief"), Kind.CLIENT_TLS)
        theirs = keys.spki(key("victim").public_key())
        forged = good.replace(keys.spki(key("thief").public_key()), theirs)
        assert forged != good
        with pytest.raises(SignatureError):
            parse_request(forged)

    @pytest.mark.parametrize(
        "stranger",
        [
            pytest.param(rsa.generate_private_key(public_exponent=65537, key_size=2048), id="RSA"),
            pytest.param(ec.generate_private_key(ec.SECP384R1()), id="P-384"),
            pytest.param(ec.generate_private_key(ec.SECP256K1()), id="secp256k1"),
        ],
    )
    def test_another_sort_of_key_is_malformed(
        self, stranger: CertificateIssuerPrivateKeyTypes
    ) -> None:
        builder = x509.CertificateSigningRequestBuilder(_subject())
        der = builder.sign(stranger, hashes.SHA256()).public_bytes(DER)
        with pytest.raises(MalformedError):
            parse_request(der)

    def test_ed25519_is_malformed(self) -> None:
        builder = x509.CertificateSigningRequestBuilder(_subject())
        der = builder.sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(DER)
        with pytest.raises(MalformedError):
            parse_request(der)

    def test_another_digest_is_malformed(self) -> None:
        builder = x509.CertificateSigningRequestBuilder(_subject())
        der = builder.sign(key("leaf"), hashes.SHA384()).public_bytes(DER)
        with pytest.raises(MalformedError, match="SHA-256"):
            parse_request(der)

    @pytest.mark.parametrize(
        "wanted",
        [
            pytest.param(x509.BasicConstraints(ca=True, path_length=None), id="to be a CA"),
            pytest.param(uris("anchorline://x/server/y")[0], id="a name"),
            pytest.param(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), id="a usage"),
        ],
    )
    def test_extensions_are_refused(self, wanted: x509.ExtensionType) -> None:
        builder = x509.CertificateSigningRequestBuilder(_subject()).add_extension(
            wanted, critical=False
        )
        with pytest.raises(RefusedError, match="attributes"):
            parse_request(builder.sign(key("leaf"), hashes.SHA256()).public_bytes(DER))

    def test_other_attributes_are_refused(self) -> None:
        builder = x509.CertificateSigningRequestBuilder(_subject()).add_attribute(
            x509.oid.AttributeOID.CHALLENGE_PASSWORD, b"let me in"
        )
        with pytest.raises(RefusedError):
            parse_request(builder.sign(key("leaf"), hashes.SHA256()).public_bytes(DER))

    def test_size_is_limited(self) -> None:
        subject = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "x" * 60) for _ in range(20)]
        )
        der = (
            x509.CertificateSigningRequestBuilder(subject)
            .sign(key("leaf"), hashes.SHA256())
            .public_bytes(DER)
        )
        with pytest.raises(MalformedError, match="at most 1024"):
            parse_request(der)

    @given(st.binary(max_size=300))
    def test_any_bytes_are_malformed(self, data: bytes) -> None:
        with pytest.raises(MalformedError):
            parse_request(data)


class TestRead:
    @pytest.mark.parametrize("kind", ISSUED)
    def test_what_was_issued_is_of_its_kind(self, kind: Kind) -> None:
        facts = read(leaf(kind))
        assert facts.kind is kind
        assert facts.name == name(kind)
        assert facts.is_ca == (kind is Kind.CLIENT_CA)
        assert facts.fingerprint == facts.key_id.hex()
        assert certificates.name_of(hierarchy.DEPLOYMENT, kind, hierarchy.ID) == name(kind)

    @pytest.mark.parametrize("kind", ISSUED)
    def test_a_strangers_copy_of_the_form_is_of_that_kind(self, kind: Kind) -> None:
        # The control for what follows: the kind is the form, never a proof.
        assert read(certificate(list(form(kind).values()))).kind is kind

    @pytest.mark.parametrize("kind", ISSUED)
    @pytest.mark.parametrize("part", ["constraints", "usage", "extended", "name"])
    def test_without_one_part_it_is_of_no_kind(self, kind: Kind, part: str) -> None:
        left = [value for label, value in form(kind).items() if label != part]
        assert read(certificate(left)).kind is None

    @pytest.mark.req("A12")
    @pytest.mark.parametrize("kind", ISSUED)
    @pytest.mark.parametrize("other", ISSUED)
    def test_the_name_of_another_role_does_not_make_another_kind(
        self, kind: Kind, other: Kind
    ) -> None:
        mixed = {**form(kind), "name": uris(name(other).uri)}
        same_form = {label: form(kind)[label] for label in ("constraints", "usage", "extended")}
        facts = read(certificate(list(mixed.values())))
        fits = same_form == {label: form(other)[label] for label in same_form}
        assert facts.name == name(other)
        assert facts.kind is (other if fits else None)

    @pytest.mark.parametrize(
        "names",
        [
            pytest.param(uris(name(Kind.SERVER_TLS).uri, name(Kind.CLIENT_TLS).uri), id="two"),
            pytest.param(uris("https://srv.example.org/"), id="a foreign URI"),
            pytest.param((x509.SubjectAlternativeName([x509.DNSName("srv")]), False), id="DNS"),
            pytest.param(
                (
                    x509.SubjectAlternativeName(
                        [
                            x509.UniformResourceIdentifier(name(Kind.SERVER_TLS).uri),
                            x509.DNSName("srv"),
                        ]
                    ),
                    False,
                ),
                id="ours and another",
            ),
        ],
    )
    def test_anything_but_one_name_of_ours_is_none(
        self, names: tuple[x509.ExtensionType, bool]
    ) -> None:
        facts = read(certificate([*({**form(Kind.SERVER_TLS), "name": names}.values())]))
        assert (facts.name, facts.kind) == (None, None)
        assert read(certificate([*form(Kind.ROOT).values(), names])).kind is None

    @pytest.mark.parametrize("length", [None, 1, 2])
    def test_a_client_ca_with_room_below_it_is_of_no_kind(self, length: int | None) -> None:
        wider = (x509.BasicConstraints(ca=True, path_length=length), True)
        facts = read(certificate([*({**form(Kind.CLIENT_CA), "constraints": wider}.values())]))
        assert (facts.kind, facts.is_ca) == (None, True)

    def test_a_leaf_that_may_sign_is_of_no_kind(self) -> None:
        ca = (PROFILES[Kind.CLIENT_CA].constraints, True)
        facts = read(certificate([*({**form(Kind.CLIENT_TLS), "constraints": ca}.values())]))
        assert facts.kind is None

    def test_a_compressed_key_is_malformed(self) -> None:
        # Only a DER editor writes this: the key is the same, its bytes are not.
        der = certificate()
        point = key("leaf").public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        short = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point
        spki = keys.spki(key("leaf").public_key())
        tbs = x509.load_der_x509_certificate(der).tbs_certificate_bytes
        changed = _sequence(_body(tbs).replace(spki, short))
        forged = _sequence(_body(der).replace(tbs, changed))
        public = x509.load_der_x509_certificate(forged).public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert keys.spki(public) == spki
        with pytest.raises(MalformedError):
            read(forged)

    def test_a_certificate_of_a_point_beside_the_curve_is_malformed(self) -> None:
        der, spki = certificate(), keys.spki(key("leaf").public_key())
        beside = der.replace(spki, spki[:-1] + bytes([spki[-1] ^ 1]))
        assert beside != der
        with pytest.raises(MalformedError):
            read(beside)

    def test_the_oldest_version_is_malformed(self) -> None:
        # Version 1 has no version field, and no extensions: each field stands one place earlier.
        der = certificate()
        tbs = x509.load_der_x509_certificate(der).tbs_certificate_bytes
        fields = _body(tbs).removeprefix(bytes.fromhex("a003020102"))
        first = _sequence(_body(der).replace(tbs, _sequence(fields)))
        assert x509.load_der_x509_certificate(first).version is x509.Version.v1
        with pytest.raises(MalformedError):
            read(first)

    @pytest.mark.filterwarnings("ignore:Parsed a serial number")
    @pytest.mark.parametrize("serial", ["00", "fb"], ids=["zero", "negative"])
    def test_a_serial_number_that_is_not_positive_is_malformed(self, serial: str) -> None:
        good = certificate()
        forged = good.replace(
            bytes.fromhex("a003020102020105"), bytes.fromhex("a0030201020201" + serial)
        )
        assert x509.load_der_x509_certificate(forged).serial_number <= 0
        with pytest.raises(MalformedError, match="serial"):
            read(forged)

    def test_a_name_of_a_sort_that_parsers_give_up_on_is_none(self) -> None:
        uri = name(Kind.SERVER_TLS).uri.encode()
        address = bytes([0xA3, len(uri)]) + uri  # x400Address, RFC 5280, 4.2.1.6
        forged = leaf(Kind.SERVER_TLS).replace(bytes([0x86, len(uri)]) + uri, address)
        facts = read(forged)
        assert (facts.name, facts.kind) == (None, None)

    def test_a_key_of_another_sort_is_malformed(self) -> None:
        stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        with pytest.raises(MalformedError):
            read(certificate(public=stranger.public_key()))
        with pytest.raises(MalformedError):
            read(certificate(public=ec.generate_private_key(ec.SECP384R1()).public_key()))

    @pytest.mark.parametrize(
        "found",
        [
            pytest.param(x509.Name([]), id="none"),
            pytest.param(
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text) for text in "ab"]),
                id="two",
            ),
        ],
    )
    def test_no_single_common_name_is_malformed(self, found: x509.Name) -> None:
        with pytest.raises(MalformedError):
            read(certificate(subject=found))
        with pytest.raises(MalformedError):
            read(certificate(issuer=found))

    def test_size_is_limited(self) -> None:
        bulky = uris(*(f"https://{number}.example.org/{'x' * 200}" for number in range(30)))
        with pytest.raises(MalformedError, match="at most 4096"):
            read(certificate([bulky]))

    @pytest.mark.parametrize("kind", [Kind.SERVER_TLS, Kind.ROOT])
    def test_every_changed_bit_is_read_or_malformed(self, kind: Kind) -> None:
        # Versions, serial numbers, duplicate extensions: parsers raise for each in their own way.
        good = root().chain[0] if kind is Kind.ROOT else leaf(kind)
        for place in range(len(good) * 8):
            changed = bytearray(good)
            changed[place // 8] ^= 1 << place % 8
            try:
                facts = read(bytes(changed))
            except MalformedError:
                continue
            assert facts.key_id == keys.key_id(facts.spki)

    @given(st.binary(max_size=300))
    def test_any_bytes_are_malformed(self, data: bytes) -> None:
        with pytest.raises(MalformedError):
            read(data)

    def test_when_it_was_made(self) -> None:
        assert certificates.created(root().chain[0]) == NOW

    def test_a_root_names_nobody(self) -> None:
        with pytest.raises(ValueError, match="root"):
            certificates.name_of(hierarchy.DEPLOYMENT, Kind.ROOT, hierarchy.ID)


def _body(der: bytes) -> bytes:
    header = 2 if der[1] < 0x80 else 2 + (der[1] & 0x7F)
    return der[header:]


def _sequence(content: bytes) -> bytes:
    size = (len(content).bit_length() + 7) // 8
    assert len(content) >= 0x80
    return bytes([0x30, 0x80 | size]) + len(content).to_bytes(size) + content
