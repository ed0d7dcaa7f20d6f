"""Writing DER: lengths, numbers and dates at their edges."""

from datetime import UTC, datetime

import pytest

from pki import der


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, "0400"),
        (1, "0401"),
        (127, "047f"),
        (128, "048180"),
        (255, "0481ff"),
        (256, "04820100"),
        (65_535, "0482ffff"),
        (65_536, "0483010000"),
    ],
)
def test_a_length_has_its_shortest_form(size: int, head: str) -> None:
    assert der.item(der.OCTET_STRING, bytes(size)) == bytes.fromhex(head) + bytes(size)


def test_content_comes_in_pieces() -> None:
    assert der.item(der.SEQUENCE, b"ab", b"", b"c") == der.item(der.SEQUENCE, b"abc")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "020100"),
        (1, "020101"),
        (127, "02017f"),
        (128, "02020080"),  # the first bit would be a sign
        (255, "020200ff"),
        (256, "02020100"),
        (32_767, "02027fff"),
        (32_768, "0203008000"),
    ],
)
def test_a_number_has_its_shortest_form_and_is_not_negative(number: int, expected: str) -> None:
    assert der.integer(number).hex() == expected


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        (datetime(987, 6, 5, 4, 3, 2, tzinfo=UTC), b"\x18\x0f09870605040302Z"),
        (datetime(1949, 12, 31, 23, 59, 59, tzinfo=UTC), b"\x18\x0f19491231235959Z"),
        (datetime(1950, 1, 1, tzinfo=UTC), b"\x17\x0d500101000000Z"),
        (datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), b"\x17\x0d491231235959Z"),
        (datetime(2050, 1, 1, tzinfo=UTC), b"\x18\x0f20500101000000Z"),
    ],
)
def test_a_date_is_short_from_1950_until_2049(date: datetime, expected: bytes) -> None:
    assert der.time(date) == expected


def test_items_whose_place_says_what_they_are() -> None:
    assert der.context(0, der.integer(2), constructed=True).hex() == "a003020102"
    assert der.context(6, b"a", constructed=False).hex() == "860161"
    assert der.bits(b"\xff").hex() == "030200ff"
