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


def test_another_version_is_no_record() -> None:
    with pytest.raises(TLSError, match="version 2"):
        scan(record(HANDSHAKE, b"x", version=2))


def test_an_oversize_record_is_refused_by_its_header() -> None:
    with pytest.raises(TLSError, match="TLS record of 65535 bytes"):
        scan(bytes([APPLICATION, 3, 3, 0xFF, 0xFF]))


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


@given(st.binary(max_size=60))
def test_noise_in_a_certificate_message_shows_something_or_nothing(noise: bytes) -> None:
    # Fuzz: a tuple of bytes, never anything else; nobody believes it.
    message = b"\x0b" + len(noise).to_bytes(3) + noise
    assert all(isinstance(der, bytes) for der in scan(record(HANDSHAKE, message)).shown_chain())


def test_only_some_certificates_are_remembered() -> None:
    many = certificate_message(*(bytes([n]) for n in range(50)))
    assert len(scan(record(HANDSHAKE, many)).shown_chain()) == 8


def test_a_certificate_message_that_is_not_whole_shows_nothing() -> None:
    assert scan(record(HANDSHAKE, certificate_message(b"leaf" * 20)[:-1])).shown_chain() == ()
