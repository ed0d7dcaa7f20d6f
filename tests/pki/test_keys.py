"""Keys: one accepted form, one name, and signatures that serve one purpose."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from pki import keys
from pki.errors import MalformedError, PKIError, SignatureError
from tests.pki.hierarchy import key

DOMAIN = b"anchorline-test-v1\0"
SPKI = keys.spki(key("signer").public_key())

# The point of the private key 1, RFC 5903's generator: an independent vector.
GENERATOR = bytes.fromhex(
    "3059301306072a8648ce3d020106082a8648ce3d03010703420004"
    "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)

STRANGERS: dict[str, PrivateKeyTypes] = {
    "RSA": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "secp256k1": ec.generate_private_key(ec.SECP256K1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
}


def _compressed() -> bytes:
    point = key("signer").public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    return bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point


def _hybrid() -> bytes:
    """The same point in X9.62's third form, which also says whether y is odd: 91 bytes too."""
    place = keys.SPKI_BYTES - 65
    return SPKI[:place] + bytes([6 | SPKI[-1] & 1]) + SPKI[place + 1 :]


def _off_curve() -> bytes:
    return SPKI[:-1] + bytes([SPKI[-1] ^ 1])


@pytest.mark.req("A11")
def test_the_name_of_a_key_is_the_hash_of_its_91_bytes() -> None:
    public = ec.derive_private_key(1, ec.SECP256R1()).public_key()
    assert keys.spki(public) == GENERATOR
    assert len(GENERATOR) == keys.SPKI_BYTES
    assert keys.key_id(public) == keys.key_id(GENERATOR) == hashlib.sha256(GENERATOR).digest()


def test_a_components_id_is_the_beginning_of_its_identity_keys_name() -> None:
    assert keys.component_id(SPKI) == keys.key_id(SPKI)[:16]


def test_a_key_is_read_as_it_was_written() -> None:
    made = keys.generate()
    again = keys.load_private(keys.private_bytes(made))
    assert keys.spki(again.public_key()) == keys.spki(made.public_key())
    assert keys.spki(keys.load_spki(SPKI)) == SPKI


def test_a_key_that_is_only_checked_is_not_kept() -> None:
    encoded = keys.spki(keys.generate().public_key())
    before = keys.load_spki.cache_info().currsize
    keys.check_spki(encoded)
    assert keys.load_spki.cache_info().currsize == before


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
def test_a_private_key_of_another_sort_is_refused(stranger: PrivateKeyTypes) -> None:
    data = stranger.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(MalformedError):
        keys.load_private(data)


@pytest.mark.parametrize("data", [b"", b"x" * 10, b"x" * 4096], ids=len)
def test_what_is_no_private_key_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        keys.load_private(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(SPKI + b"\0", id="a byte more"),
        pytest.param(SPKI[:-1], id="a byte less"),
        pytest.param(_compressed(), id="compressed point"),
        pytest.param(_hybrid(), id="hybrid point"),
        pytest.param(_off_curve(), id="point off the curve"),
        *(
            pytest.param(
                stranger.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
                id=name,
            )
            for name, stranger in STRANGERS.items()
        ),
    ],
)
def test_a_public_key_in_another_form_is_refused(data: bytes) -> None:
    for read in (keys.load_spki, keys.check_spki):
        with pytest.raises(MalformedError):
            read(data)


@pytest.mark.req("A11")
@pytest.mark.parametrize(
    "form", [_compressed(), _hybrid(), bytes(keys.SPKI_BYTES)], ids=["short", "hybrid", "junk"]
)
def test_another_form_gives_no_second_name(form: bytes) -> None:
    with pytest.raises(MalformedError):
        keys.key_id(form)
    with pytest.raises(MalformedError):
        keys.component_id(form)


@pytest.mark.req("A11")
def test_a_key_with_something_after_it_has_no_name() -> None:
    for name in (keys.key_id, keys.component_id):
        with pytest.raises(MalformedError):
            name(SPKI + b"\0")


def test_what_is_no_elliptic_key_has_no_name() -> None:
    stranger = STRANGERS["RSA"].public_key()
    with pytest.raises(MalformedError, match="expected P-256"):
        keys.key_id(stranger)  # type: ignore[arg-type]


def test_a_public_key_object_of_another_curve_has_no_name() -> None:
    with pytest.raises(MalformedError):
        keys.key_id(ec.generate_private_key(ec.SECP384R1()).public_key())


@given(st.binary(max_size=200))
def test_a_signature_is_good_for_its_message(message: bytes) -> None:
    signature = keys.sign(key("signer"), DOMAIN, message)
    assert len(signature) <= keys.MAX_SIGNATURE
    keys.verify(SPKI, signature, DOMAIN, message)


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        pytest.param(DOMAIN, b"messagf", id="another message"),
        pytest.param(b"anchorline-other-v1\0", b"message", id="another purpose"),
        pytest.param(b"", b"message", id="no purpose"),
    ],
)
def test_a_signature_is_good_for_nothing_else(domain: bytes, message: bytes) -> None:
    signature = keys.sign(key("signer"), DOMAIN, b"message")
    with pytest.raises(SignatureError):
        keys.verify(SPKI, signature, domain, message)


def test_a_signature_of_another_key_is_refused() -> None:
    signature = keys.sign(key("another"), DOMAIN, b"message")
    with pytest.raises(SignatureError, match=keys.key_id(SPKI).hex()):
        keys.verify(SPKI, signature, DOMAIN, b"message")


def test_every_changed_bit_of_a_signature_is_refused() -> None:
    signature = keys.sign(key("signer"), DOMAIN, b"message")
    for place in range(len(signature) * 8):
        changed = bytearray(signature)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(SignatureError):
            keys.verify(SPKI, bytes(changed), DOMAIN, b"message")


@given(st.binary(max_size=200), st.binary(max_size=80))
def test_hostile_signers_and_signatures_are_refused(spki: bytes, signature: bytes) -> None:
    with pytest.raises(SignatureError):
        keys.verify(spki, signature, DOMAIN, b"message")


@given(st.binary(max_size=600))
def test_hostile_keys_are_a_documented_error(data: bytes) -> None:
    for read in (keys.load_private, keys.load_spki, keys.check_spki, keys.key_id):
        with pytest.raises(PKIError):
            read(data)
