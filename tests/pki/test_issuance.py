"""Issuing: what comes out, and everything that is refused before a signature is made."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from pki import body, certificates, issuance, keys
from pki.certificates import BACKDATE, NEVER, PROFILES, Kind, read
from pki.errors import (
    ExpiredError,
    MalformedError,
    NotYetValidError,
    PKIError,
    RefusedError,
    RoleError,
    SignatureError,
    UnknownKeyError,
    UntrustedError,
)
from pki.issuance import MIN_LIFE, Issuer, Proposal, certify, check_issued, issue
from pki.keys import KeyId
from tests.pki import hierarchy
from tests.pki.hierarchy import DAY, ISSUED, NOW, client_ca, key, leaf, name, request, root

HOUR = timedelta(hours=1)


def _id(label: str) -> KeyId:
    return keys.key_id(key(label).public_key())


class TestIssued:
    @pytest.mark.req("A5", "A12")
    @pytest.mark.parametrize("kind", ISSUED)
    def test_the_certificate_of_each_kind(self, kind: Kind) -> None:
        der = leaf(kind, serial=4711)
        facts = read(der)
        issuer = hierarchy.issuer_of(kind)
        assert facts.kind is kind
        assert facts.name == name(kind)
        assert facts.key_id == _id("leaf")
        assert facts.serial == 4711
        assert (facts.not_before, facts.not_after) == (NOW - BACKDATE, NOW + 7 * DAY)
        parsed = x509.load_der_x509_certificate(der)
        assert parsed.issuer.rfc4514_string() == f"CN={issuer.facts.subject}"
        parsed.verify_directly_issued_by(x509.load_der_x509_certificate(issuer.chain[0]))

    @pytest.mark.parametrize("kind", ISSUED)
    @pytest.mark.parametrize("validity", [7 * DAY, 10_000 * DAY])
    def test_what_certify_says_is_what_a_reader_reads(
        self, kind: Kind, validity: timedelta
    ) -> None:
        made = certify(
            hierarchy.issuer_of(kind),
            request("leaf"),
            kind=kind,
            name=name(kind),
            validity=validity,
            now=NOW.astimezone(timezone(timedelta(hours=9))) + timedelta(microseconds=999_999),
            serial=4711,
        )
        assert made == read(made.der)
        assert made.not_before.utcoffset() == made.not_after.utcoffset() == timedelta(0)

    @pytest.mark.parametrize("kind", ISSUED)
    def test_extensions_are_the_profiles_and_no_other(self, kind: Kind) -> None:
        profile = PROFILES[kind]
        extensions = x509.load_der_x509_certificate(leaf(kind)).extensions
        uri = x509.UniformResourceIdentifier(name(kind).uri)
        issuer = hierarchy.issuer_of(kind).facts.key_id
        assert [(one.critical, one.value) for one in extensions] == [
            (True, profile.constraints),
            (True, profile.key_usage),
            (False, profile.extended),
            (False, x509.SubjectAlternativeName([uri])),
            (False, x509.SubjectKeyIdentifier(_id("leaf"))),
            (False, x509.AuthorityKeyIdentifier(issuer, None, None)),
        ]

    @pytest.mark.req("A7")
    def test_nothing_of_the_request_but_its_key_is_in_it(self) -> None:
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root.example Root 0")])
        builder = x509.CertificateSigningRequestBuilder(subject)
        asked = builder.sign(key("leaf"), hashes.SHA256()).public_bytes(Encoding.DER)
        der = issue(
            client_ca(),
            certificates.parse_request(asked),
            kind=Kind.CLIENT_TLS,
            name=name(Kind.CLIENT_TLS),
            validity=DAY,
            now=NOW,
            serial=1,
        )
        assert read(der).subject == f"client {hierarchy.ID.hex()}"
        assert b"root.example" not in der

    @pytest.mark.req("A13")
    @given(st.integers(2, 400 * 24), st.integers(0, 179 * 24))
    def test_no_leaf_outlives_its_issuer(self, hours: int, age: int) -> None:
        now = NOW + age * HOUR
        end = client_ca().facts.not_after
        facts = read(leaf(Kind.CLIENT_TLS, validity=hours * HOUR, now=now))
        assert facts.not_after == min(now + hours * HOUR, end)

    @given(st.integers(0, 86_400))
    def test_no_certificate_begins_before_its_issuer(self, seconds: int) -> None:
        now = NOW - BACKDATE + timedelta(seconds=seconds)
        facts = read(leaf(Kind.SERVER_TLS, now=now))
        assert facts.not_before == max(now - BACKDATE, root().facts.not_before)

    def test_dates_are_whole_seconds(self) -> None:
        now = NOW + timedelta(microseconds=999_999)
        facts = read(leaf(Kind.SERVER_TLS, now=now, validity=DAY))
        assert (facts.not_before, facts.not_after) == (NOW - BACKDATE, NOW + DAY)

    def test_a_root_has_no_end_to_give(self) -> None:
        assert read(leaf(Kind.SERVER_TLS, validity=3650 * DAY)).not_after == NOW + 3650 * DAY
        assert root().facts.not_after == NEVER

    @pytest.mark.parametrize("serial", [0, -1, 1 << 159])
    def test_a_serial_number_out_of_range(self, serial: int) -> None:
        with pytest.raises(ValueError, match="serial"):
            leaf(Kind.SERVER_TLS, serial=serial)

    def test_the_longest_serial_number(self) -> None:
        assert read(leaf(Kind.SERVER_TLS, serial=(1 << 159) - 1)).serial == (1 << 159) - 1

    @pytest.mark.parametrize("drawn", [bytes(10), b"\xff" * 10], ids=["zeros", "ones"])
    @pytest.mark.parametrize("seconds", [-1, 0, 1_800_000_000, NEVER.timestamp()])
    def test_a_serial_number_is_of_one_length_whatever_is_drawn_and_whenever(
        self, drawn: bytes, seconds: float
    ) -> None:
        asked: list[int] = []

        def random(count: int) -> bytes:
            asked.append(count)
            return drawn

        number = issuance.serial(random, datetime.fromtimestamp(seconds, UTC))
        assert (asked, number.bit_length()) == ([10], 121)
        assert number == int.from_bytes(b"\x01" + max(0, int(seconds)).to_bytes(5) + drawn)

    def test_a_later_serial_number_is_larger_whatever_is_drawn(self) -> None:
        earlier = issuance.serial(lambda count: b"\xff" * count, NOW)
        assert issuance.serial(bytes, NOW + timedelta(seconds=1)) > earlier


class TestRefused:
    @pytest.mark.req("A5")
    @pytest.mark.parametrize("kind", Kind)
    @pytest.mark.parametrize("above", Kind)
    def test_a_kind_stands_under_one_kind_of_issuer(self, kind: Kind, above: Kind) -> None:
        right = PROFILES[kind].issuer
        issuer = {Kind.ROOT: root(), Kind.CLIENT_CA: client_ca()}.get(above)
        if issuer is None:  # a leaf's key, which signs no certificate at all
            chain = (leaf(above), *hierarchy.issuer_of(above).chain)
            issuer = Issuer(key("leaf"), chain)
        named = name(Kind.CLIENT_TLS if kind is Kind.ROOT else kind)
        if above is right and kind is not Kind.ROOT:
            assert read(leaf(kind, issuer=issuer, label="fresh", named=named)).kind is kind
            return
        with pytest.raises(RefusedError, match="is signed by"):
            leaf(kind, issuer=issuer, label="fresh", named=named)

    @pytest.mark.req("A5")
    def test_a_client_ca_makes_no_further_ca(self) -> None:
        with pytest.raises(RefusedError):
            leaf(Kind.CLIENT_CA, issuer=client_ca(), label="fresh")

    def test_openssl_refuses_a_ca_below_a_client_ca(self) -> None:
        # What the constraint stops is stopped by the path length too, if a thief signs it.
        lower = issue(
            client_ca(),
            request("lower"),
            kind=Kind.CLIENT_CA,
            name=name(Kind.CLIENT_CA),
            validity=DAY,
            now=NOW,
            serial=9,
            constraints=(),
        )
        chain = (lower, *client_ca().chain)
        der = issue(
            Issuer(key("lower"), chain),
            request("leaf"),
            kind=Kind.CLIENT_TLS,
            name=name(Kind.CLIENT_TLS),
            validity=DAY,
            now=NOW,
            serial=9,
            constraints=(),
        )
        assert _openssl_accepts([leaf(Kind.CLIENT_TLS), *client_ca().chain])
        assert not _openssl_accepts([der, *chain])

    @pytest.mark.req("A12")
    @pytest.mark.parametrize("kind", ISSUED)
    @pytest.mark.parametrize("other", ISSUED)
    def test_a_name_of_another_role(self, kind: Kind, other: Kind) -> None:
        if kind is other:
            return
        with pytest.raises(RefusedError, match="is for role"):
            leaf(kind, named=name(other))

    def test_a_name_of_another_deployment(self) -> None:
        stranger = name(Kind.CLIENT_TLS, deployment=bytes(16))
        with pytest.raises(RefusedError, match="deployment"):
            leaf(Kind.CLIENT_TLS, named=stranger)

    @pytest.mark.parametrize("label", ["client CA", "root"])
    def test_a_key_of_the_issuers_own_chain(self, label: str) -> None:
        with pytest.raises(RefusedError, match="issuer's chain"):
            leaf(Kind.CLIENT_TLS, label=label)

    @pytest.mark.parametrize(
        ("now", "fits"),
        [
            (NOW - BACKDATE - timedelta(seconds=1), False),
            (NOW - BACKDATE, True),
            (NOW + 180 * DAY - MIN_LIFE, True),
            (NOW + 180 * DAY - MIN_LIFE + timedelta(seconds=1), False),
            (NOW + 180 * DAY, False),
            (NOW + 181 * DAY, False),
        ],
    )
    def test_an_issuer_out_of_date_or_about_to_be(self, now: datetime, fits: bool) -> None:
        if fits:
            assert read(leaf(Kind.CLIENT_TLS, now=now)).kind is Kind.CLIENT_TLS
            return
        with pytest.raises(RefusedError, match="valid"):
            leaf(Kind.CLIENT_TLS, now=now)

    def test_the_callers_own_constraint(self) -> None:
        seen: list[Proposal] = []

        def no_monday(proposal: Proposal) -> None:
            seen.append(proposal)
            raise RefusedError("not on a monday")

        with pytest.raises(RefusedError, match="not on a monday"):
            issue(
                root(),
                request(),
                kind=Kind.HUB_TLS,
                name=name(Kind.HUB_TLS),
                validity=DAY,
                now=NOW,
                serial=3,
                constraints=(*issuance.DEFAULT, no_monday),
            )
        assert seen[0].name == name(Kind.HUB_TLS)
        assert seen[0].above == {root().facts.key_id}

    def test_an_issuer_with_another_keys_chain(self) -> None:
        with pytest.raises(ValueError, match="not its own"):
            Issuer(key("stranger"), root().chain)
        with pytest.raises(ValueError, match="not its own"):
            Issuer(key("root"), ())


class TestCheckIssued:
    """What a component does with an answer before it replaces what works."""

    CHAIN = (leaf(Kind.CLIENT_TLS), *client_ca().chain)

    def check(
        self,
        chain: tuple[bytes, ...] = CHAIN,
        *,
        label: str = "leaf",
        kind: Kind = Kind.CLIENT_TLS,
        now: datetime = NOW,
        deployment: bytes = hierarchy.DEPLOYMENT,
        id: bytes = hierarchy.ID,
        trusted: str = "root",
    ) -> None:
        check_issued(
            chain,
            key_id=_id(label),
            kind=kind,
            name=name(kind, deployment=deployment, id=id),
            roots={_id(trusted)},
            now=now,
        )

    @pytest.mark.req("A8")
    @pytest.mark.parametrize("kind", ISSUED)
    def test_a_good_chain(self, kind: Kind) -> None:
        self.check((leaf(kind), *hierarchy.issuer_of(kind).chain), kind=kind)

    @pytest.mark.req("A8")
    @pytest.mark.parametrize("length", [0, 1, 2])
    def test_a_chain_that_is_not_full(self, length: int) -> None:
        with pytest.raises(MalformedError, match="expected 3"):
            self.check(self.CHAIN[:length])

    def test_a_chain_with_something_behind_the_root(self) -> None:
        with pytest.raises(MalformedError):
            self.check((*self.CHAIN, self.CHAIN[-1]))
        server = (leaf(Kind.SERVER_TLS), *root().chain)
        with pytest.raises(MalformedError):
            self.check((*server, server[-1]), kind=Kind.SERVER_TLS)

    def test_a_root_that_is_not_trusted(self) -> None:
        with pytest.raises(UnknownKeyError):
            self.check(trusted="stranger")

    def test_a_root_that_only_has_the_name(self) -> None:
        # A stranger's whole hierarchy, spelled like ours.
        fake = certificates.make_root(key("fake"), "root.example", 0, NOW, 1)
        issuer = Issuer(key("fake"), (fake,))
        ca = leaf(Kind.CLIENT_CA, issuer=issuer, label="fake CA")
        forged = leaf(Kind.CLIENT_TLS, issuer=Issuer(key("fake CA"), (ca, fake)))
        with pytest.raises(UnknownKeyError):
            self.check((forged, ca, fake))
        with pytest.raises(SignatureError):
            self.check((forged, ca, root().chain[0]))
        with pytest.raises(SignatureError):
            self.check((forged, *client_ca().chain))

    def test_a_root_with_anothers_signature_is_none_although_its_key_is_trusted(self) -> None:
        signed = x509.load_der_x509_certificate(self.CHAIN[-1]).tbs_certificate_bytes

        def signed_by(label: str) -> bytes:
            return body.complete(signed, key(label).sign(signed, ec.ECDSA(hashes.SHA256())))

        self.check((*self.CHAIN[:-1], signed_by("root")))
        with pytest.raises(SignatureError):
            self.check((*self.CHAIN[:-1], signed_by("stranger")))

    @pytest.mark.req("A12")
    def test_another_kind_than_was_asked_for(self) -> None:
        with pytest.raises(RoleError):
            self.check((leaf(Kind.HUB_TLS), *root().chain), kind=Kind.SERVER_TLS)

    @pytest.mark.req("A12")
    def test_a_leaf_that_signs_like_a_ca(self) -> None:
        # Who holds a server's TLS key mints a client's certificate with our own key and name.
        server = (leaf(Kind.SERVER_TLS, label="server"), *root().chain)
        der = issue(
            Issuer(key("server"), server),
            request(),
            kind=Kind.CLIENT_TLS,
            name=name(Kind.CLIENT_TLS),
            validity=DAY,
            now=NOW,
            serial=3,
            constraints=(),
        )
        with pytest.raises(RoleError, match="expected client-ca, got server-tls"):
            self.check((der, *server))

    def test_another_key_than_was_asked_for(self) -> None:
        with pytest.raises(UntrustedError, match="is for key"):
            self.check(label="another")

    def test_another_name_than_ours(self) -> None:
        with pytest.raises(RoleError):
            self.check(id=bytes(16))

    def test_a_ca_of_another_deployment(self) -> None:
        foreign = name(Kind.CLIENT_CA, deployment=bytes(16))
        ca = leaf(Kind.CLIENT_CA, label="client CA", named=foreign)
        issuer = Issuer(key("client CA"), (ca, *root().chain))
        der = issue(
            issuer,
            request(),
            kind=Kind.CLIENT_TLS,
            name=name(Kind.CLIENT_TLS),
            validity=DAY,
            now=NOW,
            serial=3,
            constraints=(),
        )
        with pytest.raises(UntrustedError, match="another deployment"):
            self.check((der, *issuer.chain))

    @pytest.mark.parametrize(
        ("now", "error"),
        [
            (NOW + 7 * DAY, ExpiredError),
            (NOW - BACKDATE - timedelta(seconds=1), NotYetValidError),
        ],
    )
    def test_dates_that_do_not_hold(self, now: datetime, error: type[PKIError]) -> None:
        with pytest.raises(error):
            self.check(now=now)

    @pytest.mark.req("A13")
    def test_a_leaf_that_outlives_its_issuer(self) -> None:
        # Signed by hand with the real CA key: constraints bind the honest issuer, not a thief.
        short = client_ca(days=5)
        builder = x509.load_der_x509_certificate(leaf(Kind.CLIENT_TLS))
        copy = x509.CertificateBuilder(
            issuer_name=builder.issuer,
            subject_name=builder.subject,
            public_key=builder.public_key(),
            serial_number=1,
            not_valid_before=(NOW - BACKDATE).replace(tzinfo=None),
            not_valid_after=(NOW + 6 * DAY).replace(tzinfo=None),
            extensions=list(builder.extensions),
        ).sign(short.key, hashes.SHA256())
        with pytest.raises(UntrustedError, match="outlives"):
            self.check((copy.public_bytes(Encoding.DER), *short.chain))

    def test_every_changed_byte_of_the_leaf_is_refused(self) -> None:
        good = self.CHAIN[0]
        signature = x509.load_der_x509_certificate(good).signature
        # The byte before the signature counts its unused bits, and says nothing where they are 0.
        for place in set(range(len(good))) - {len(good) - len(signature) - 1}:
            changed = bytearray(good)
            changed[place] ^= 0x01
            with pytest.raises(PKIError):
                self.check((bytes(changed), *self.CHAIN[1:]))


def test_a_proposal_is_what_constraints_see() -> None:
    # Each default constraint objects alone: none leans on another.
    good = Proposal(
        issuer=client_ca().facts,
        above=frozenset({client_ca().facts.key_id, root().facts.key_id}),
        kind=Kind.CLIENT_TLS,
        name=name(Kind.CLIENT_TLS),
        key_id=_id("leaf"),
        now=NOW,
        not_before=NOW - BACKDATE,
        not_after=NOW + DAY,
        serial=1,
    )
    bad = {
        issuance.kind_is_the_issuers: good._replace(kind=Kind.HUB_TLS),
        issuance.role_is_the_kinds: good._replace(name=name(Kind.HUB_TLS)),
        issuance.deployment_is_the_issuers: good._replace(
            name=name(Kind.CLIENT_TLS, deployment=bytes(16))
        ),
        issuance.key_is_new_to_the_chain: good._replace(key_id=root().facts.key_id),
        issuance.issuer_is_in_date: good._replace(now=NOW + 180 * DAY),
        issuance.life_is_long_enough: good._replace(not_after=NOW + MIN_LIFE / 2),
    }
    assert set(bad) == set(issuance.DEFAULT)
    for constraint, proposal in bad.items():
        constraint(good)
        with pytest.raises(RefusedError):
            constraint(proposal)


def _openssl_accepts(chain: list[bytes]) -> bool:
    """Whether the X.509 verifier of `cryptography`'s OpenSSL takes the chain, dates aside."""
    from OpenSSL import crypto

    loaded = [crypto.load_certificate(crypto.FILETYPE_ASN1, der) for der in chain]
    store = crypto.X509Store()
    store.set_flags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME
    store.add_cert(loaded[-1])
    try:
        crypto.X509StoreContext(store, loaded[0], loaded[1:-1]).verify_certificate()
    except crypto.X509StoreContextError:
        return False
    return True
