"""An acknowledgement is one component's word for one entry of one slot."""

import pytest

from pki import keys
from pki.acknowledgements import make_ack, verify_ack
from pki.errors import MalformedError, PKIError, SignatureError
from tests.pki import lineage

SLOT, ENTRY = bytes(range(32)), bytes(range(32, 64))


def test_it_names_the_component_by_its_identity_key() -> None:
    identity = keys.generate()
    spki, signature = make_ack(identity, SLOT, 7, ENTRY)
    expected = keys.component_id(keys.spki(identity.public_key()))
    assert verify_ack(spki, signature, SLOT, 7, ENTRY) == expected


def test_the_bytes_that_are_signed() -> None:
    """`slot || n (8 bytes, big-endian) || entry id` under its domain."""
    spki, signature = make_ack(lineage.key(3), SLOT, 7, ENTRY)
    message = SLOT + bytes(7) + b"\7" + ENTRY
    keys.verify(spki, signature, b"anchorline-ack-v1\0", message)


@pytest.mark.parametrize(
    ("slot", "n", "entry"),
    [
        pytest.param(ENTRY, 7, ENTRY, id="another slot"),
        pytest.param(SLOT, 8, ENTRY, id="another number"),
        pytest.param(SLOT, 7, SLOT, id="another entry"),
    ],
)
def test_it_is_good_for_nothing_else(slot: bytes, n: int, entry: bytes) -> None:
    spki, signature = make_ack(lineage.key(3), SLOT, 7, ENTRY)
    with pytest.raises(SignatureError):
        verify_ack(spki, signature, slot, n, entry)


def test_nobody_acknowledges_for_another() -> None:
    _, signature = make_ack(lineage.key(3), SLOT, 7, ENTRY)
    with pytest.raises(SignatureError):
        verify_ack(keys.spki(lineage.key(4).public_key()), signature, SLOT, 7, ENTRY)


def test_every_flipped_bit_of_the_signature_is_refused() -> None:
    spki, signature = make_ack(lineage.key(3), SLOT, 7, ENTRY)
    for place in range(len(signature)):
        for bit in range(8):
            flipped = bytearray(signature)
            flipped[place] ^= 1 << bit
            with pytest.raises(PKIError):
                verify_ack(spki, bytes(flipped), SLOT, 7, ENTRY)


@pytest.mark.parametrize(
    ("slot", "n", "entry"),
    [
        (SLOT[:-1], 7, ENTRY),
        (SLOT, 7, ENTRY[:-1]),
        (SLOT, 7, ENTRY + b"\0"),
        (SLOT[:-1], 7, SLOT[-1:] + ENTRY),
        (SLOT + ENTRY[:1], 7, ENTRY[1:]),
        (SLOT, -1, ENTRY),
        (SLOT, 2**64, ENTRY),
    ],
)
def test_fields_of_another_size_are_malformed(slot: bytes, n: int, entry: bytes) -> None:
    with pytest.raises(MalformedError):
        make_ack(lineage.key(3), slot, n, entry)
