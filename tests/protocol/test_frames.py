from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import (
    FrameTooLargeError,
    NotAllowedError,
    RemoteProtocolError,
    UnknownFrameError,
)
from protocol.frames import HEADER, Frame, FrameDecoder, FrameType, encode_frame
from protocol.limits import FRAME_LIMITS

LIMITS: dict[int, int] = {FrameType.PING: 16, FrameType.DONE: 0, FrameType.REPORT: 70_000}

frames = st.one_of(
    st.builds(Frame, st.just(FrameType.PING), st.binary(max_size=16)),
    st.builds(Frame, st.just(FrameType.DONE), st.just(b"")),
    st.builds(Frame, st.just(FrameType.REPORT), st.binary(max_size=200)),
)


def decode_all(pieces: list[bytes], *, sole: bool = False) -> tuple[list[Frame], str]:
    """What comes out, and the error that ended it; each piece is lent, and then overwritten.

    With `sole` what is one frame is taken as such, and the rest is fed.
    """
    decoder, found = FrameDecoder(LIMITS, "a test"), list[Frame]()
    try:
        for piece in pieces:
            if sole and (alone := decoder.sole(piece)) is not None:
                found.append(alone)
                continue
            lent = bytearray(piece)
            decoder.feed(lent)
            while (frame := decoder.next_frame()) is not None:
                found.append(frame)
            lent[:] = b"\xff" * len(lent)
    except RemoteProtocolError as exc:
        return found, str(exc)
    return found, "partial" if decoder.partial else ""


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(marks)]


def test_a_header_is_length_and_type() -> None:
    assert encode_frame(FrameType.PING, b"abc") == b"\x00\x00\x00\x03\x03abc"


@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 2000), max_size=20))
def test_frames_come_out_as_they_went_in_whatever_the_pieces(
    sent: list[Frame], places: list[int]
) -> None:
    stream = b"".join(encode_frame(frame.type, frame.body) for frame in sent)
    assert decode_all(cut(stream, places)) == (sent, "")
    assert decode_all(cut(stream, places), sole=True) == (sent, "")


@given(st.lists(frames, max_size=4), st.binary(max_size=40), st.lists(st.integers(0, 300)))
def test_good_frames_then_garbage_end_alike_whatever_the_pieces(
    sent: list[Frame], garbage: bytes, places: list[int]
) -> None:
    stream = b"".join(encode_frame(frame.type, frame.body) for frame in sent) + garbage
    found, ending = decode_all([stream])
    assert found[: len(sent)] == sent
    assert decode_all(cut(stream, places)) == (found, ending)
    assert decode_all(cut(stream, places), sole=True) == (found, ending)
    assert decode_all([stream[i : i + 1] for i in range(len(stream))]) == (found, ending)


@given(st.lists(frames, min_size=1, max_size=4), st.data())
def test_a_truncated_stream_gives_the_whole_frames_before_the_cut(
    sent: list[Frame], data: st.DataObject
) -> None:
    stream = b"".join(encode_frame(frame.type, frame.body) for frame in sent)
    place = data.draw(st.integers(0, len(stream) - 1))
    found, ending = decode_all([stream[:place]])
    assert found == sent[: len(found)]
    taken = sum(HEADER + len(frame.body) for frame in found)
    assert ending == ("partial" if taken < place else "")


PING = encode_frame(FrameType.PING, b"x")


def test_what_is_one_frame_needs_no_feeding() -> None:
    decoder = FrameDecoder(LIMITS, "a test")
    assert decoder.sole(PING) == Frame(FrameType.PING, b"x")
    assert not decoder.partial


@pytest.mark.parametrize(
    "data",
    {
        "nothing": b"",
        "a piece of a header": PING[:4],
        "a piece of a body": PING[:-1],
        "two": PING + PING,
        "one and a piece": PING + b"\x00",
        "lent": memoryview(PING),
        "too large": encode_frame(FrameType.PING, bytes(17)),
        "not allowed": encode_frame(FrameType.ENROL, b""),
        "unknown": b"\x00\x00\x00\x00\xff",
    }.items(),
    ids=lambda case: case[0],
)
def test_what_is_not_one_frame_is_left_to_be_fed(data: tuple[str, bytes | memoryview]) -> None:
    assert FrameDecoder(LIMITS, "a test").sole(data[1]) is None


def test_where_a_piece_waits_nothing_is_a_frame_alone() -> None:
    decoder = FrameDecoder({FrameType.PING: 100}, "a test")
    decoder.feed(encode_frame(FrameType.PING, PING)[:HEADER])
    assert decoder.next_frame() is None
    assert decoder.sole(PING) is None
    decoder.feed(PING)
    assert decoder.next_frame() == Frame(FrameType.PING, PING)


@pytest.mark.req("E4")
def test_an_oversize_frame_is_refused_by_its_header_alone() -> None:
    decoder = FrameDecoder(LIMITS, "a test")
    decoder.feed((17).to_bytes(4) + bytes([FrameType.PING]))
    with pytest.raises(FrameTooLargeError, match="PING of 17 bytes exceeds limit of 16 bytes"):
        decoder.next_frame()


def test_pieces_may_be_fed_before_the_first_is_cut_and_are_not_changed() -> None:
    pieces = [bytearray(b"\x00\x00"), bytearray(b"\x00\x01"), bytearray(b"\x03x")]
    decoder = FrameDecoder(LIMITS, "a test")
    for piece in pieces:
        decoder.feed(piece)
    assert decoder.next_frame() == Frame(FrameType.PING, b"x")
    assert decoder.next_frame() is None
    assert not decoder.partial
    assert b"".join(pieces) == b"\x00\x00\x00\x01\x03x"


def test_a_frame_of_exactly_the_limit_passes() -> None:
    decoder = FrameDecoder(LIMITS, "a test")
    decoder.feed(encode_frame(FrameType.PING, b"x" * 16))
    assert decoder.next_frame() == Frame(FrameType.PING, b"x" * 16)


@pytest.mark.req("E4")
@pytest.mark.parametrize("number", [0x00, 0x07, 0x7F, 0xFF])
def test_an_unknown_type_is_refused_by_its_header_alone(number: int) -> None:
    decoder = FrameDecoder(LIMITS, "a test")
    decoder.feed((1).to_bytes(4) + bytes([number]))
    with pytest.raises(UnknownFrameError, match=f"unknown frame type 0x{number:02x}"):
        decoder.next_frame()


def test_a_type_that_may_not_arrive_here_is_refused_by_its_header_alone() -> None:
    decoder = FrameDecoder(LIMITS, "a test")
    decoder.feed((1).to_bytes(4) + bytes([FrameType.ENROL]))
    with pytest.raises(NotAllowedError, match="ENROL is not allowed on a test"):
        decoder.next_frame()


def test_what_may_arrive_can_change_between_two_frames_of_one_piece() -> None:
    decoder = FrameDecoder({FrameType.DONE: 0}, "before")
    decoder.feed(encode_frame(FrameType.DONE, b"") + encode_frame(FrameType.PING, b"x"))
    assert decoder.next_frame() == Frame(FrameType.DONE, b"")
    decoder.expect({FrameType.PING: 1}, "after")
    assert decoder.next_frame() == Frame(FrameType.PING, b"x")


def test_memory_is_bounded_by_a_frame_and_a_piece() -> None:
    decoder = FrameDecoder(LIMITS, "a test")
    for _ in range(1000):
        decoder.feed(encode_frame(FrameType.PING, b"x" * 16))
        assert decoder.next_frame() is not None
    assert len(decoder._buffer) <= 2 * (HEADER + 16)


def test_a_decoder_that_has_given_all_keeps_nothing() -> None:
    decoder = FrameDecoder(LIMITS, "a test")
    decoder.feed(PING + PING)
    assert decoder.next_frame() == decoder.next_frame() == Frame(FrameType.PING, b"x")
    assert decoder.next_frame() is None
    assert len(decoder._buffer) == 0
    assert decoder.sole(PING) == Frame(FrameType.PING, b"x")


def test_each_type_has_a_limit() -> None:
    assert set(FRAME_LIMITS) == set(FrameType)
