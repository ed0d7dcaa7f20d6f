"""Whose key a refused peer has shown: any bytes may stand where its certificate should."""

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from agents.runtime.opening import shown_fingerprint
from tests.support.links import credentials

VERSION_3 = bytes.fromhex("a003020102")


def test_a_certificate_is_named_by_its_key() -> None:
    leaf = credentials("client").chain[0]
    key = x509.load_der_x509_certificate(leaf).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert shown_fingerprint([leaf]) == hashlib.sha256(spki).hexdigest()


@pytest.mark.req("E5")
@pytest.mark.parametrize("version", [b"\x42", b"\x03", b"\xff"])
def test_a_certificate_of_no_known_version_is_nobodys(version: bytes) -> None:
    leaf = credentials("client").chain[0]
    assert leaf.count(VERSION_3) == 1
    assert shown_fingerprint([leaf.replace(VERSION_3, VERSION_3[:-1] + version)]) == "-"


@pytest.mark.req("E5")
@given(st.integers(0, 1 << 16), st.integers(1, 255))
def test_a_certificate_that_is_harmed_anywhere_is_some_key_or_nobodys(
    place: int, mask: int
) -> None:
    leaf = bytearray(credentials("client").chain[0])
    leaf[place % len(leaf)] ^= mask
    assert len(shown_fingerprint([bytes(leaf)])) in (1, 64)


def test_nothing_shown_is_nobodys() -> None:
    assert shown_fingerprint([]) == "-"
    assert shown_fingerprint([b""]) == "-"
