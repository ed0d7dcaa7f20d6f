from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import decode, encode, encode_body
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.frames import HEADER, FrameType
from protocol.limits import FRAME_LIMITS, MAX_ENTRY, MAX_HEAD, MAX_ROWS
from protocol.messages import (
    MESSAGES,
    Ack,
    Enrol,
    LedgerEntries,
    LedgerGet,
    Message,
    Ping,
    Refused,
    Registered,
    Relay,
    Report,
)
from tests.protocol.examples import ACK, ENTRY, EXAMPLES, SLOT

examples = pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: m.FRAME.name)


def body_of(fields: dict[object, object]) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return packed


def test_there_is_an_example_of_each_message_and_a_message_of_each_frame_type() -> None:
    assert [type(example) for example in EXAMPLES] == list(MESSAGES)
    assert [message.FRAME for message in MESSAGES] == list(FrameType)


@examples
def test_a_message_comes_back_as_it_was(message: Message) -> None:
    frame = encode(message)
    assert int.from_bytes(frame[:4]) == len(frame) - HEADER
    assert frame[4] == message.FRAME
    assert decode(message.FRAME, frame[HEADER:]) == message


@examples
def test_a_body_cut_anywhere_is_refused(message: Message) -> None:
    body = encode_body(message)
    for end in range(len(body)):
        with pytest.raises(RemoteProtocolError):
            decode(message.FRAME, body[:end])


@examples
def test_something_behind_the_body_is_refused(message: Message) -> None:
    with pytest.raises(RemoteProtocolError, match="trailing"):
        decode(message.FRAME, encode_body(message) + b"\xc0")


@examples
def test_an_unknown_field_is_refused(message: Message) -> None:
    fields = msgspec.to_builtins(message, builtin_types=(bytes,)) | {"extra": 1}
    with pytest.raises(RemoteProtocolError, match="unknown field"):
        decode(message.FRAME, body_of(fields))


@examples
def test_each_field_of_another_type_is_refused(message: Message) -> None:
    fields = msgspec.to_builtins(message, builtin_types=(bytes,))
    for name in fields:
        with pytest.raises(RemoteProtocolError):
            decode(message.FRAME, body_of(fields | {name: {"not": ["this"]}}))


@examples
def test_unset_fields_do_not_travel(message: Message) -> None:
    body: dict[str, object] = msgpack.unpackb(encode_body(msgspec.structs.replace(message, call=0)))
    assert "call" not in body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91" * 5000 + b"\xc0",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xd4\x01\x01",
        b"\xd6\xff\x00\x00\x00\x01",
        b"\x81\xc4\x02id\x01",
        b"\x81\x01\x01",
        b"\x81\xa1\xff\x01",
        b"\x01",
    ],
    ids=[
        "empty",
        "never used byte",
        "deep nesting",
        "map of 4 billion",
        "array of 4 billion",
        "4 GiB of bytes",
        "extension",
        "timestamp",
        "bytes as key",
        "integer as key",
        "text that is no UTF-8",
        "no map",
    ],
)
def test_what_is_no_map_of_text_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(FrameType.PING, body)


@pytest.mark.parametrize(
    "fields",
    [
        {"id": -1},
        {"id": 2**63},
        {"id": 1.0},
        {"id": True},
        {"id": "1"},
        {"id": 1, "call": -1},
        {"id": 1, "call": 2**32},
        {"id": 1, "trace": "A" * 32},
        {"id": 1, "trace": "a" * 33},
        {"id": 1, "trace": "a\n"},
        {"id": 1, "sender": "YWJj"},
        {"id": 1, "sender": b"x" * 17},
    ],
    ids=repr,
)
def test_fields_outside_their_range_are_refused(fields: dict[object, object]) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(FrameType.PING, body_of(fields))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e10])
def test_seconds_are_finite_and_positive(value: float) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(FrameType.REFUSED, body_of({"reason": "x", "retry_after": value}))


def test_what_a_peer_chose_is_cut_and_quoted_in_an_error() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(FrameType.PING, body_of({"id": 1, "\nlevel=error " + "x" * 240: 1}))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 230


# Fuzz: a message or a RemoteProtocolError, never anything else.


@given(st.sampled_from(FrameType), st.binary(max_size=200))
def test_noise_is_a_message_or_an_error(frame_type: FrameType, body: bytes) -> None:
    try:
        decode(frame_type, body)
    except RemoteProtocolError:
        return


@given(st.sampled_from(EXAMPLES), st.data())
def test_a_flipped_byte_is_a_message_or_an_error(message: Message, data: st.DataObject) -> None:
    body = bytearray(encode_body(message))
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = decode(message.FRAME, bytes(body))
    except RemoteProtocolError:
        return
    assert type(found) is type(message)


# What this side gets wrong is told here, and not by the peer closing the link.


@pytest.mark.parametrize(
    "message",
    [
        Refused(reason="x" * 65),
        Refused(reason="x", text="\ud800"),
        LedgerGet(slot=b"short", n=0, entry_id=ENTRY),
        Ping(id=-1),
        Ping(id=2**64),
        Ping(id=1, trace="a\n"),
    ],
    ids=["too long", "surrogate", "short slot", "negative", "beyond 64 bits", "no hex"],
)
def test_a_message_that_breaks_its_own_limits_is_not_sent(message: Message) -> None:
    with pytest.raises(LocalProtocolError, match=message.FRAME.name):
        encode(message)


def test_a_message_that_is_larger_than_its_frame_is_not_sent() -> None:
    entries = LedgerEntries(slot=SLOT, first=0, entries=[bytes(MAX_ENTRY)] * 6)
    with pytest.raises(LocalProtocolError, match="exceeds limit"):
        encode(entries)


def test_the_largest_honest_messages_fit_their_frames() -> None:
    ledger = LedgerEntries(slot=SLOT, first=0, entries=[bytes(MAX_ENTRY)] * 4, head=bytes(MAX_HEAD))
    report = Report(acks=[ACK] * MAX_ROWS)
    relay = Relay(zone=b"", proven=False, inner_type=FrameType.REPORT, inner=encode_body(report))
    for message in (ledger, report, relay):
        assert decode(message.FRAME, encode_body(message)) == message
    assert FRAME_LIMITS[FrameType.RELAY] > FRAME_LIMITS[FrameType.REPORT]
    assert FRAME_LIMITS[FrameType.RELAYED] > FRAME_LIMITS[FrameType.LEDGER_ENTRIES]


def test_secrets_are_not_in_the_text_of_a_message() -> None:
    secret = [message for message in EXAMPLES if message.SECRET]
    assert {type(message).__name__ for message in secret} == {"Enrol", "Register", "Registered"}
    for message in secret:
        assert "open sesame" not in repr(message)
        assert "(protected)" in repr(message)
    assert "host.test" in repr(next(m for m in EXAMPLES if isinstance(m, Enrol)))


def test_answers_are_no_requests() -> None:
    answers = {answer for message in MESSAGES for answer in message.ANSWERS}
    assert [answer for answer in answers if answer.ANSWERS] == []
    assert Registered in answers
    assert Ack not in answers


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_every_array_and_map_has_a_limit(kind: type[Message]) -> None:
    """The decoder compares the length in a header with it before it makes room."""
    collections = [
        found
        for field in msgspec.inspect.type_info(kind).fields  # type: ignore[attr-defined]
        for found in collections_in(field.type)
    ]
    assert [one for one in collections if one.max_length is None] == []


def collections_in(kind: msgspec.inspect.Type) -> list[Any]:
    """The arrays and maps of a type, at every depth."""
    match kind:
        case msgspec.inspect.ListType():
            return [kind, *collections_in(kind.item_type)]
        case msgspec.inspect.DictType():
            return [kind, *collections_in(kind.value_type)]
        case msgspec.inspect.UnionType():
            return [one for part in kind.types for one in collections_in(part)]
        case msgspec.inspect.StructType():
            return [one for field in kind.fields for one in collections_in(field.type)]
        case _:
            return []
