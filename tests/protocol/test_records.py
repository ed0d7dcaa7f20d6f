from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import TLSError
from protocol.records import GCM_OVERHEAD, RecordScanner

ALERT, HANDSHAKE, APPLICATION, CHANGE = 21, 22, 23, 20


def record(kind: int, payload: bytes, version: int = 3) -> bytes:
    return bytes([kind, version, 3]) + len(payload).to_bytes(2) + payload


def certificate_message(*certificates: bytes) -> bytes:
    listed = b"".join(len(der).to_bytes(3) + der for der in certificates)
    body = len(listed).to_bytes(3) + listed
    return b"\x0b" + len(body).to_bytes(3) + body


def scan(*pieces: bytes) -> RecordScanner:
    scanner = RecordScanner()
    for piece in pieces:
        scanner.feed(piece)
    return scanner


WHOLE = record(APPLICATION, bytes(GCM_OVERHEAD + 7))


@given(st.lists(st.integers(1, 16384), max_size=6), st.lists(st.integers(1, 30_000), max_size=6))
def test_the_balance_is_exact_however_records_arrive(sizes: list[int], marks: list[int]) -> None:
    stream = b"".join(record(APPLICATION, bytes(size + GCM_OVERHEAD)) for size in sizes)
    scanner, position = RecordScanner(), 0
    for mark in [*marks, len(stream)]:
        scanner.feed(stream[position : position + mark])
        position += mark
        whole, end = 0, 0
        for size in sizes:
            end += 5 + GCM_OVERHEAD + size
            whole += size if end <= position else 0
        assert scanner.plaintext == whole
    assert not scanner.probe


@given(st.integers(1, 16384), st.sampled_from([bytes, bytearray, memoryview]))
def test_one_whole_record_is_told_as_feeding_it_would(
    size: int, lent: Callable[[bytes], bytes | bytearray | memoryview]
) -> None:
    data = record(APPLICATION, bytes(size + GCM_OVERHEAD))
    scanner = RecordScanner()
    assert scanner.sole(lent(data)) == size
    assert scanner.plaintext == 0
    scanner.feed(data)
    assert (scanner.plaintext, scanner.probe) == (size, False)


@pytest.mark.parametrize(
    ("before", "data"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"", WHOLE[:4], id="a piece of a header"),
        pytest.param(b"", WHOLE[:-1], id="a piece"),
        pytest.param(b"", WHOLE + b"\x17", id="a record and a piece"),
        pytest.param(b"", WHOLE + WHOLE, id="two records"),
        pytest.param(b"", record(APPLICATION, bytes(GCM_OVERHEAD)), id="an empty record"),
        pytest.param(b"", record(ALERT, bytes(40)), id="an alert"),
        pytest.param(b"", record(HANDSHAKE, bytes(40)), id="a renegotiation"),
        pytest.param(b"", record(APPLICATION, bytes(40), version=2), id="another version"),
        pytest.param(b"", record(APPLICATION, bytes(2**14 + 2049)), id="too large"),
        pytest.param(b"\x17", WHOLE, id="behind a piece of a header"),
        pytest.param(record(APPLICATION, bytes(99))[:50], WHOLE, id="behind a piece"),
        pytest.param(WHOLE, WHOLE, id="where plaintext is due"),
    ],
)
def test_what_is_not_one_whole_record_is_left_to_be_fed(before: bytes, data: bytes) -> None:
    assert scan(before).sole(data) == 0


@pytest.mark.parametrize("mark", range(1, 6))
def test_what_follows_a_piece_of_a_header_is_no_header_whatever_it_looks_like(mark: int) -> None:
    # The rest of the header and the body read as a whole application record of 8 bytes.
    data = record(APPLICATION, b"\x03\x00\x08" + bytes(0x1703 - 3))
    scanner = scan(data[:mark], data[mark:])
    assert (scanner.plaintext, scanner.probe) == (0x1703 - GCM_OVERHEAD, False)


@pytest.mark.parametrize("size", [0, 1, GCM_OVERHEAD - 1, GCM_OVERHEAD])
def test_a_record_without_plaintext_is_for_openssl_to_judge(size: int) -> None:
    # Else a flood of them would lie unread in the BIO.
    scanner = scan(record(APPLICATION, bytes(size)))
    assert scanner.plaintext == 0
    assert scanner.probe


@pytest.mark.parametrize("before", [b"", record(CHANGE, b"\x01"), record(APPLICATION, bytes(99))])
def test_an_alert_is_for_openssl_to_judge_when_it_is_whole(before: bytes) -> None:
    data = before + record(ALERT, b"\x01\x00")
    assert not scan(data[:-1]).probe
    assert scan(data).probe


def test_the_handshake_is_openssl_s_anyhow_and_what_repeats_it_is_not() -> None:
    handshake = record(HANDSHAKE, b"\x01") + record(CHANGE, b"\x01") + record(HANDSHAKE, b"\x01")
    assert not scan(handshake).probe
    assert scan(handshake + record(CHANGE, b"\x01")).probe


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x", b"\x00\x00\x00\x01\x03\x80", b"\x80\x2e\x01"]
)
def test_plain_text_is_told_by_its_first_byte(data: bytes) -> None:
    for pieces in ([data], [data[:1], data[1:]]):
        with pytest.raises(TLSError, match="no TLS but plain text or noise") as caught:
            scan(*pieces)
        assert repr(data[:1]) in str(caught.value)


@pytest.mark.parametrize("kind", [0, 19, 24, 255])
def test_an_unknown_kind_of_record_is_refused_where_it_is_whole_too(kind: int) -> None:
    with pytest.raises(TLSError, match="no TLS but plain text or noise"):
        scan(record(kind, b"x"))


def test_another_version_is_no_record() -> None:
    with pytest.raises(TLSError, match="version 2"):
        scan(record(HANDSHAKE, b"x", version=2))


def test_an_oversize_record_is_refused_by_its_header() -> None:
    with pytest.raises(TLSError, match="TLS record of 65535 bytes"):
        scan(bytes([APPLICATION, 3, 3, 0xFF, 0xFF]))


@pytest.mark.parametrize("size", [2**14 + 2049, 65535])
def test_an_oversize_record_is_refused_where_it_is_whole_too(size: int) -> None:
    with pytest.raises(TLSError, match=f"TLS record of {size} bytes"):
        scan(record(APPLICATION, bytes(size)))


def test_a_second_handshake_record_under_encryption_is_a_renegotiation() -> None:
    finished = record(CHANGE, b"\x01") + record(HANDSHAKE, bytes(40))
    scan(finished)
    with pytest.raises(TLSError, match="renegotiation"):
        scan(finished, record(HANDSHAKE, bytes(40)))


@given(st.integers(1, 400))
def test_the_shown_chain_is_read_across_records(size: int) -> None:
    hello = b"\x02" + (5).to_bytes(3) + b"hello"
    messages = hello + certificate_message(b"leaf" * 20, b"issuer" * 10) + b"\x0e\x00\x00\x00"
    records = [record(HANDSHAKE, messages[i : i + size]) for i in range(0, len(messages), size)]
    scanner = scan(*records)
    assert scanner.shown_chain() == (b"leaf" * 20, b"issuer" * 10)
    scanner.forget()
    assert scanner.shown_chain() == ()


@given(st.lists(st.integers(0, 400), max_size=8))
def test_the_shown_chain_is_read_however_it_arrives_and_up_to_where_it_is_encrypted(
    places: list[int],
) -> None:
    shown, hidden = certificate_message(b"leaf" * 20), certificate_message(b"other")
    change = record(CHANGE, b"\x01")
    for stream, found in (
        (record(ALERT, b"\x01\x00") + record(HANDSHAKE, shown) + change, (b"leaf" * 20,)),
        (record(HANDSHAKE, b"") + change + record(HANDSHAKE, hidden), ()),
        (record(HANDSHAKE, b"\x02\x00\x00\x00") + change + record(APPLICATION, hidden), ()),
    ):
        marks = sorted({0, len(stream), *(min(place, len(stream)) for place in places)})
        assert scan(*(stream[a:b] for a, b in pairwise(marks))).shown_chain() == found


@pytest.mark.parametrize(
    "broken",
    [b"no TLS", record(HANDSHAKE, b"", version=2), bytes([HANDSHAKE, 3, 3, 0xFF, 0xFF])],
    ids=["noise", "another version", "too large"],
)
def test_what_follows_no_record_is_not_read(broken: bytes) -> None:
    shown = certificate_message(b"leaf")
    scanner = RecordScanner()
    with pytest.raises(TLSError):
        scanner.feed(record(HANDSHAKE, shown[:5]) + broken + record(HANDSHAKE, shown[5:]) + shown)
    assert scanner.shown_chain() == ()


@given(st.binary(max_size=60))
def test_noise_in_a_certificate_message_shows_something_or_nothing(noise: bytes) -> None:
    # Fuzz: a tuple of bytes, never anything else; nobody believes it.
    message = b"\x0b" + len(noise).to_bytes(3) + noise
    assert all(isinstance(der, bytes) for der in scan(record(HANDSHAKE, message)).shown_chain())


def test_only_some_certificates_are_remembered() -> None:
    many = certificate_message(*(bytes([n]) for n in range(50)))
    assert len(scan(record(HANDSHAKE, many)).shown_chain()) == 8


def test_what_is_encrypted_is_not_remembered() -> None:
    scanner = scan(record(HANDSHAKE, b"x"), record(CHANGE, b"\x01"), *[WHOLE] * 100)
    assert scanner._heard is not None
    assert len(scanner._heard) < len(WHOLE)


def test_a_certificate_message_that_is_not_whole_shows_nothing() -> None:
    assert scan(record(HANDSHAKE, certificate_message(b"leaf" * 20)[:-1])).shown_chain() == ()
