"""The signed request: good for one deployment, issuer, nonce, key and link, and for no other."""

import hashlib
from typing import TypedDict

import pytest

from pki import certificates, enrolment, keys
from pki.certificates import Kind
from pki.enrolment import NO_BINDING, sign_request, statement, verify_request
from pki.errors import MalformedError, SignatureError
from pki.keys import KeyId
from tests.pki.hierarchy import DEPLOYMENT, key


class Parts(TypedDict):
    deployment: bytes
    issuer: KeyId
    nonce: bytes
    csr: bytes
    binding: bytes


IDENTITY = key("identity")
SPKI = keys.spki(IDENTITY.public_key())
CSR = certificates.make_request(key("tls"), Kind.CLIENT_TLS)
PARTS = Parts(
    deployment=DEPLOYMENT,
    issuer=keys.key_id(key("issuer").public_key()),
    nonce=bytes(range(32)),
    csr=CSR,
    binding=bytes(range(32, 64)),
)
SIGNATURE = sign_request(IDENTITY, **PARTS)


def parts(**changed: bytes) -> Parts:
    return Parts(**{**PARTS, **changed})  # type: ignore[typeddict-item]


def test_the_bytes_that_are_signed() -> None:
    signed = statement(**PARTS)
    assert signed == (
        PARTS["deployment"]
        + PARTS["issuer"]
        + PARTS["nonce"]
        + hashlib.sha256(CSR).digest()
        + PARTS["binding"]
    )
    keys.verify(SPKI, SIGNATURE, b"anchorline-enrol-v1\0", signed)


def test_who_has_signed_is_the_component_that_the_key_names() -> None:
    assert verify_request(SPKI, SIGNATURE, **PARTS) == keys.key_id(SPKI)[:16]


@pytest.mark.parametrize("part", ["deployment", "issuer", "nonce", "csr", "binding"])
def test_a_request_for_anything_else_is_refused(part: str) -> None:
    # The thief has the whole request, and the verifier's own value is another one.
    value: bytes = PARTS[part]  # type: ignore[literal-required]
    for place in (0, len(value) - 1):
        changed = bytearray(value)
        changed[place] ^= 0x01
        with pytest.raises(SignatureError):
            verify_request(SPKI, SIGNATURE, **parts(**{part: bytes(changed)}))


def test_a_relayed_request_is_good_on_no_link() -> None:
    relayed = sign_request(IDENTITY, **parts(binding=NO_BINDING))
    verify_request(SPKI, relayed, **parts(binding=NO_BINDING))
    with pytest.raises(SignatureError):
        verify_request(SPKI, relayed, **PARTS)
    with pytest.raises(SignatureError):
        verify_request(SPKI, SIGNATURE, **parts(binding=NO_BINDING))


def test_another_keys_request_is_refused() -> None:
    other = keys.spki(key("another identity").public_key())
    with pytest.raises(SignatureError):
        verify_request(other, SIGNATURE, **PARTS)


def test_the_certified_key_does_not_stand_for_the_identity() -> None:
    # A stolen certificate with its key cannot prolong itself.
    forged = sign_request(key("tls"), **PARTS)
    with pytest.raises(SignatureError):
        verify_request(SPKI, forged, **PARTS)


@pytest.mark.parametrize("label", ["ack", "ledger-sig", "head-sig", "enrol"])
def test_a_signature_made_for_another_purpose_is_refused(label: str) -> None:
    domain = f"anchorline-{label}-v{2 if label == 'enrol' else 1}\0".encode()
    other = keys.sign(IDENTITY, domain, statement(**PARTS))
    with pytest.raises(SignatureError):
        verify_request(SPKI, other, **PARTS)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"nonce": b""}, id="no nonce"),
        pytest.param({"nonce": bytes(33)}, id="long nonce"),
        pytest.param({"csr": bytes(certificates.MAX_REQUEST + 1)}, id="long request"),
    ],
)
def test_impossible_lengths_from_the_peer_are_malformed(changed: dict[str, bytes]) -> None:
    with pytest.raises(MalformedError):
        verify_request(SPKI, SIGNATURE, **parts(**changed))


@pytest.mark.parametrize("part", ["deployment", "issuer", "nonce", "binding"])
def test_our_own_parts_have_one_length(part: str) -> None:
    # Else a byte could move from one part to the next, and nothing would notice.
    with pytest.raises(ValueError, match=part):
        statement(**parts(**{part: bytes(31)}))


def test_lengths() -> None:
    assert enrolment.NO_BINDING == bytes(enrolment.BINDING_BYTES) == bytes(32)
    assert len(statement(**PARTS)) == 144
