"""A peer that speaks TLS well and everything else badly: events in order, and one end.

What it says is made by a grammar: whole messages with something odd in one field, frames of any
type with any body, and only then bytes that are broken on their way.
"""

from collections.abc import Sequence

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.access import CLIENT, HUB, SERVER, ZONE_SERVER, LinkClass
from protocol.frames import FrameType, encode_frame
from protocol.limits import FRAME_LIMITS, Limits
from protocol.link import Closed, Event, Link, Opened, Received
from protocol.messages import Message
from tests.fuzz.depth import deeper
from tests.fuzz.mangle import Harm, changed, harmed, harms, heads_of_msgpack, mangled, pieces
from tests.protocol.examples import EXAMPLES
from tests.protocol.pairs import pair

pytestmark = pytest.mark.req("E4")

PEERS = [
    (CLIENT, SERVER),
    (CLIENT, ZONE_SERVER),
    (CLIENT, CLIENT),
    (HUB, SERVER),
    (ZONE_SERVER, HUB),
]
NATIVE = (bytes,)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A frame that is well-formed, and wrong in a field or not at all."""
    example = draw(st.sampled_from(EXAMPLES))
    fields = msgspec.to_builtins(example, builtin_types=NATIVE)
    if draw(st.booleans()):
        fields = draw(changed(fields))
    try:
        body: bytes = msgpack.packb(fields, use_bin_type=True)
    except (OverflowError, ValueError):
        body = b"\x80"
    return encode_frame(example.FRAME, body)


frames: st.SearchStrategy[bytes] = st.one_of(
    messages(),
    st.builds(encode_frame, st.sampled_from(FrameType), heads_of_msgpack),
    st.builds(
        lambda kind, size, body: size.to_bytes(4) + bytes([kind]) + body,
        st.integers(0, 255),
        st.sampled_from([0, 1, 128, 4096, 1 << 20, (1 << 20) + 1025, 2**32 - 1]),
        st.binary(max_size=200),
    ),
)
streams = st.lists(frames, max_size=6).map(b"".join)


def check_order(events: Sequence[Event]) -> None:
    kinds = [type(event) for event in events]
    assert kinds.count(Opened) <= 1
    assert kinds.count(Closed) <= 1
    if Opened in kinds:
        assert kinds[0] is Opened
    if Closed in kinds:
        assert kinds[-1] is Closed
    if Received in kinds:
        assert Opened in kinds


def check_alive_or_dead(link: Link, events: list[Event]) -> None:
    """After its end it says and hears nothing; before it, it can still be ended in order."""
    if any(isinstance(event, Closed) for event in events):
        link.data_to_send()
        assert link.receive_data(b"anything", 1.0) == []
        assert link.receive_eof(1.0) == []
        assert link.handle_timeout(1e9) == []
        assert link.next_timeout() is None
        assert link.data_to_send() == b""
    else:
        events += link.receive_eof(1.0)
    check_order(events)
    assert isinstance(events[-1], Closed)
    assert link.bytes_buffered == 0
    assert len(link._decoder._buffer) <= max(FRAME_LIMITS.values()) + 5 + (1 << 18)


def spoken(source: Link, stream: bytes) -> bytes:
    """What TLS makes of a stream that does not keep to our rules."""
    source.data_to_send()
    for start in range(0, len(stream), 16_000):
        source._tls.write(stream[start : start + 16_000])
    return source._tls.data_to_send()


@deeper
@given(st.sampled_from(LinkClass), st.sampled_from(PEERS), st.booleans(), st.data())
def test_frames_of_any_kind_on_an_open_link(
    depth: str,
    link_class: LinkClass,
    peers: tuple[str, str],
    from_client: bool,
    data: st.DataObject,
) -> None:
    joined = pair(link_class, client=peers[0], server=peers[1]).run()
    source, target = joined.client, joined.server
    if not from_client:
        source, target = target, source
    ciphertext = spoken(source.link, data.draw(streams))
    for piece in data.draw(pieces(ciphertext)):
        target.events += target.link.receive_data(piece, 1.0)
    for event in target.events:
        if isinstance(event, Received):
            assert isinstance(event.message, Message)
    check_alive_or_dead(target.link, target.events)


@deeper
@given(st.sampled_from(LinkClass), st.data())
def test_ciphertext_that_is_broken_on_its_way(
    depth: str, link_class: LinkClass, data: st.DataObject
) -> None:
    joined = pair(link_class).run()
    ciphertext = spoken(joined.client.link, data.draw(streams) or b"x")
    joined.server.events += joined.server.link.receive_data(data.draw(mangled([ciphertext])), 1.0)
    check_alive_or_dead(joined.server.link, joined.server.events)


def flights(link_class: LinkClass) -> tuple[list[bytes], list[bytes]]:
    """What the two sides of a handshake say, in turns."""
    joined = pair(link_class)
    said: tuple[list[bytes], list[bytes]] = ([], [])
    while True:
        moved = 0
        for n, (source, target) in enumerate(
            ((joined.client, joined.server), (joined.server, joined.client))
        ):
            if flight := source.link.data_to_send():
                said[n].append(flight)
                moved += 1
                target.events += target.link.receive_data(flight, 0.0)
        if not moved:
            return said


RECORDED = {link_class: flights(link_class) for link_class in LinkClass}


@deeper
@given(
    st.sampled_from(LinkClass),
    st.lists(st.tuples(st.integers(0, 4), harms), min_size=6, max_size=6),
)
def test_a_handshake_that_is_broken_anywhere(
    depth: str, link_class: LinkClass, fate: Sequence[tuple[int, Sequence[Harm]]]
) -> None:
    """Each flight arrives whole, harmed, or is replaced by one of another link."""
    joined = pair(link_class)
    recorded = [flight for said in RECORDED[link_class] for flight in said]
    ends = ((joined.client, joined.server), (joined.server, joined.client)) * 3
    for (source, target), (kind, harm) in zip(ends, fate, strict=True):
        flight = source.link.data_to_send()
        if kind == 0:
            flight = harmed(flight, harm, recorded[0])
        elif kind == 1:
            flight = recorded[len(harm) % len(recorded)]
        target.events += target.link.receive_data(flight, 0.0)
    for end in (joined.client, joined.server):
        check_alive_or_dead(end.link, end.events)


@deeper
@given(st.binary(max_size=200), st.booleans())
def test_application_frames_before_the_handshake_is_done_reach_nobody(
    depth: str, noise: bytes, server: bool
) -> None:
    joined = pair(LinkClass.MEMBER)
    target = joined.server if server else joined.client
    target.link.data_to_send()
    record = b"\x17\x03\x03" + len(noise).to_bytes(2) + noise
    target.events += target.link.receive_data(record, 0.0)
    assert not any(isinstance(event, Opened | Received) for event in target.events)
    check_alive_or_dead(target.link, target.events)


@deeper
@given(streams, st.data())
def test_the_same_bytes_in_other_pieces_give_the_same_events(
    depth: str, stream: bytes, data: st.DataObject
) -> None:
    whole: list[object] = []
    for chunks in ([stream], data.draw(pieces(stream))):
        other = pair(LinkClass.MEMBER).run()
        for chunk in chunks:
            if chunk:
                other.client.link._tls.write(chunk)
                other.server.events += other.server.link.receive_data(
                    other.client.link._tls.data_to_send(), 1.0
                )
        whole.append([repr(event) for event in other.server.events])
    assert whole[0] == whole[1]


@deeper
@given(st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=30))
def test_who_only_sends_before_the_handshake_is_bounded(depth: str, noise: list[bytes]) -> None:
    limits = Limits(handshake=4096)
    joined = pair(LinkClass.MEMBER)
    joined.server.link._limits = limits
    sent = 0
    for piece in noise:
        sent += len(piece)
        record = b"\x16\x03\x01" + len(piece).to_bytes(2) + piece
        joined.server.events += joined.server.link.receive_data(record, 0.0)
        if any(isinstance(event, Closed) for event in joined.server.events):
            break
    if sent > limits.handshake:
        assert isinstance(joined.server.events[-1], Closed)
    check_alive_or_dead(joined.server.link, joined.server.events)
