"""What one peer can make a server hold for it: bytes that it asks for and does not read."""

import asyncio

import pytest

from agents.runtime.admission import Admission
from agents.runtime.channel import Channel
from agents.runtime.inbox import SERVING
from protocol.messages import LedgerEntries, LedgerGet, Message
from tests.support.links import SLOT, connect, endpoint, listening, on_uvloop

pytestmark = pytest.mark.sockets

ENTRIES = [bytes(16_000)] * 4
ANSWER = sum(map(len, ENTRIES)) + 1000
ASKED = 400
"""Requests: 25 MB of answers, more than the kernel keeps between two sockets."""


@on_uvloop
class TestBytesBuffered:
    @pytest.mark.req("E6")
    @pytest.mark.parametrize("most", [64 * 1024, 512 * 1024])
    async def test_who_asks_and_does_not_read_is_read_no_more(self, most: int) -> None:
        answered = 0

        async def answer(_channel: Channel, message: Message) -> Message:
            nonlocal answered
            answered += 1
            return LedgerEntries(slot=SLOT, first=0, entries=ENTRIES)

        bounds = Admission(send_buffer=most)
        async with listening(at=endpoint("server"), handler=answer, admission=bounds) as site:
            deaf = await connect(site)
            there = await site.first()
            transport = there._wire._transport
            assert transport is not None
            deaf._wire.pause()
            asking = [
                asyncio.ensure_future(
                    deaf.request(LedgerGet(slot=SLOT, n=0, entry_id=SLOT), timeout=60.0)
                )
                for _ in range(ASKED)
            ]
            before, calm = -1, 0
            while calm < 50:  # until nothing more is answered
                calm = calm + 1 if answered == before else 0
                before = answered
                await asyncio.sleep(0.01)
                held = transport.get_write_buffer_size() + there._wire.link.bytes_buffered
                assert held <= most + SERVING.handlers * ANSWER
            assert answered < ASKED
            # Somebody else is served meanwhile.
            other = await connect(site)
            found = await other.request(LedgerGet(slot=SLOT, n=0, entry_id=SLOT))
            assert isinstance(found, LedgerEntries)
            other.close()
            await other.gone()
            # It reads again, and gets everything it asked for.
            deaf._wire.resume()
            answers = await asyncio.gather(*asking)
            assert len(answers) == ASKED
            deaf.close()
            await deaf.gone()
