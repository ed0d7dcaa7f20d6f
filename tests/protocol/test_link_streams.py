"""A link's stream in any pieces, cut anywhere, and with any byte changed."""

from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.access import LinkClass
from protocol.codec import encode
from protocol.link import Closed, Opened, Received
from protocol.messages import (
    Close,
    Done,
    Enrol,
    LedgerGet,
    Message,
    Ping,
    Refused,
)
from protocol.states import State
from tests.protocol.examples import EXAMPLES, GARBAGE, SLOT
from tests.protocol.pairs import (
    Cut,
    bytewise,
    pair,
    whole,
)

GET = LedgerGet(call=1, slot=SLOT, n=0, entry_id=SLOT)

sayable = st.one_of(
    st.builds(Ping, call=st.integers(1, 9), id=st.integers(0, 9)),
    st.just(GET),
    st.builds(Done, call=st.integers(1, 9)),
    st.builds(Refused, call=st.integers(1, 9), reason=st.just("busy")),
    st.just(next(m for m in EXAMPLES if isinstance(m, Enrol))),
)
tails = st.one_of(
    st.just(b""),
    st.sampled_from([garbage for garbage, _ in GARBAGE.values()]),
    st.just(encode(Close(code=1))),
    st.binary(max_size=30),
)


def cutter(sizes: list[int]) -> Cut:
    """Cut into pieces of these sizes, over and over: a stream's length varies by itself."""

    def cut(stream: bytes) -> list[bytes]:
        pieces, position, turn = [], 0, cycle(sizes)
        while position < len(stream):
            size = next(turn)
            pieces.append(stream[position : position + size])
            position += size
        return pieces

    return cut


@given(
    st.lists(sayable, max_size=6),
    tails,
    st.lists(st.integers(1, 900), min_size=1, max_size=8),
)
def test_the_same_bytes_in_any_pieces_give_the_same_events(
    messages: list[Message], tail: bytes, sizes: list[int]
) -> None:
    outcomes = []
    stream = b"".join(map(encode, messages)) + tail
    for cut in (whole, bytewise, cutter(sizes)):
        joined = pair(LinkClass.MEMBER, cut=cut).run()
        joined.client.link._tls.write(stream)
        joined.run()
        outcomes.append((joined.server.events, [type(e) for e in joined.client.events]))
        assert joined.server.messages[: len(messages)] == messages
    assert outcomes[0] == outcomes[1] == outcomes[2]


@pytest.mark.parametrize("link_class", LinkClass)
@given(data=st.data())
def test_a_stream_cut_at_any_point_ends_once_and_delivers_a_prefix(
    link_class: LinkClass, data: st.DataObject
) -> None:
    keep = data.draw(st.integers(0, 4000))

    def carried(stream: bytes) -> list[bytes]:
        nonlocal keep
        piece, keep = stream[:keep], max(0, keep - len(stream))
        return [piece] if piece else []

    joined = pair(link_class, cut=carried)
    for round_number in range(8):
        if joined.client.link.state is State.OPEN and round_number % 2:
            joined.client.link.send(GET)
        joined.carry(joined.client, joined.server)
        joined.carry(joined.server, joined.client)
    for end in (joined.client, joined.server):
        end.events += end.link.receive_eof(0.0)
        assert [isinstance(event, Closed) for event in end.events].count(True) == 1
        assert isinstance(end.events[-1], Closed)
        assert end.link.next_timeout() is None
        kinds = [type(event) for event in end.events[:-1]]
        assert kinds == [Opened, *[Received] * (len(kinds) - 1)] if kinds else True


@given(st.data())
def test_a_corrupted_wire_never_raises_and_never_changes_a_message(data: st.DataObject) -> None:
    joined = pair(LinkClass.MEMBER)
    count = 0
    target = data.draw(st.integers(0, 4000))
    mask = data.draw(st.integers(1, 255))

    def corrupt(stream: bytes) -> list[bytes]:
        nonlocal count
        changed = bytearray(stream)
        if count <= target < count + len(stream):
            changed[target - count] ^= mask
        count += len(stream)
        return [bytes(changed)]

    joined.cut = corrupt
    joined.run()
    if joined.client.link.state is State.OPEN:
        joined.client.link.send(GET)
        joined.run()
    assert joined.server.messages in ([], [GET])
