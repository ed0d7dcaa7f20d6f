"""What one peer can have at work, and what is kept for it: of peers that have proven who they are,
and of strangers.
"""

import asyncio
import itertools

import msgspec
import pytest

from agents.runtime.channel import Channel
from agents.runtime.errors import UnavailableError
from agents.runtime.inbox import STRANGERS, Serving
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.limits import Limits
from protocol.messages import (
    Done,
    HeadNotice,
    LedgerEntries,
    LedgerGet,
    Message,
    Ping,
    Pong,
    Refused,
    Register,
)
from tests.support.links import (
    ASK,
    SLOT,
    RealClock,
    Stalled,
    answer,
    connect,
    endpoint,
    listening,
    on_uvloop,
    ping,
    until,
)
from tests.support.logs import logged

pytestmark = pytest.mark.sockets

CLOSED_FOR_OFFENCE = ("link.closed", "warning")


@on_uvloop
class TestPressure:
    async def test_one_peer_gets_so_many_handlers_and_no_more(self) -> None:
        stalled = Stalled()
        bound = Serving()
        many = bound.handlers + bound.queue + 200
        async with listening(handler=stalled) as site:
            channel = await connect(site)
            asked = [asyncio.create_task(channel.request(ping(n))) for n in range(many)]
            await until(lambda: stalled.inside == bound.handlers)
            for _ in range(200):
                await asyncio.sleep(0)
            assert stalled.started == bound.handlers
            stalled.go.set()
            answers = await asyncio.gather(*asked)
            assert [a.id for a in answers if isinstance(a, Pong)] == list(range(many))
            assert stalled.most == bound.handlers

    async def test_a_peer_that_asks_too_much_is_read_no_further(self) -> None:
        stalled = Stalled()
        async with listening(handler=stalled) as site:
            channel = await connect(site)
            other = await site.first()
            asked = [asyncio.create_task(channel.request(ping(n))) for n in range(20_000)]
            await until(lambda: len(other._inbox._queue) >= Serving().queue)
            for _ in range(500):
                await asyncio.sleep(0)
            assert len(other._inbox._queue) < 3000  # the messages of one or two reads of 64 KiB
            channel.abort()
            await asyncio.gather(*asked, return_exceptions=True)
            stalled.go.set()

    async def test_a_link_that_ends_lets_go_who_waits_to_answer(self) -> None:
        async def handler(_channel: Channel, message: Message) -> Message:
            return LedgerEntries(slot=SLOT, first=1, entries=[b"e" * 16_000] * 4)

        async with listening(handler=handler) as site:
            channel = await connect(site)
            other = await site.first()
            clock = site.endpoint.clock
            assert isinstance(clock, RealClock)
            channel._wire.pause()
            asked = [asyncio.create_task(channel.request(ASK)) for _ in range(500)]
            await until(lambda: len(other._writers or ()) == Serving().handlers)
            assert clock.holds == Serving().handlers
            channel.abort()
            await until(lambda: clock.holds == 0)
            await asyncio.gather(*asked, return_exceptions=True)

    async def test_handlers_that_ask_back_do_not_stand_still(self) -> None:
        """More of them than may run at once, each waiting for the same link."""

        async def handler(channel: Channel, message: Message) -> Message:
            got = await channel.request(HeadNotice(head=b"head"))
            assert isinstance(got, Done)
            return await answer(channel, message)

        async with listening(handler=handler) as site:
            channel = await connect(site)
            many = Serving().tasks
            answers = await asyncio.gather(*(channel.request(ping(n)) for n in range(many)))
            assert len(answers) == many

    @pytest.mark.parametrize("surplus", [20, 50, 500])
    async def test_more_of_them_than_there_may_be_do_not_either(self, surplus: int) -> None:
        """All that may run wait for answers that stand behind requests nobody has room for."""
        stalled, begun, bound = Stalled(), 0, Serving()

        async def asks_back(channel: Channel, message: Message) -> Message:
            nonlocal begun
            begun += 1
            await channel.request(ping(1), timeout=50)
            return await answer(channel, message)

        async with listening(handler=asks_back) as site:
            channel = await connect(site, handler=stalled)
            many = bound.tasks + surplus
            asked = [asyncio.create_task(channel.request(ping(n), timeout=50)) for n in range(many)]
            await until(lambda: begun >= bound.tasks)
            for _ in range(200):
                await asyncio.sleep(0)
            assert begun == bound.tasks
            stalled.go.set()
            answers = await asyncio.gather(*asked)
            refused = [one for one in answers if isinstance(one, Refused)]
            assert {(one.reason, one.retry_after) for one in refused} <= {("busy", 1.0)}
            assert len(refused) <= max(0, surplus - bound.queue)

    async def test_who_has_asked_back_counts_again(self) -> None:
        stalled, asks_back = Stalled(), True

        async def handler(channel: Channel, message: Message) -> Message:
            if not asks_back:
                return await stalled(channel, message)
            await channel.request(HeadNotice(head=b"head"))
            return await answer(channel, message)

        bound = Serving()
        async with listening(handler=handler) as site:
            channel = await connect(site)
            await asyncio.gather(*(channel.request(ping(n)) for n in range(20)))
            asks_back = False
            asked = [
                asyncio.create_task(channel.request(ping(n))) for n in range(bound.handlers + 16)
            ]
            await until(lambda: stalled.inside >= bound.handlers)
            for _ in range(200):
                await asyncio.sleep(0)
            assert stalled.most == bound.handlers
            stalled.go.set()
            await asyncio.gather(*asked)

    async def test_who_makes_all_of_them_wait_and_reads_nothing_is_read_no_further(self) -> None:
        stalled, begun, bound = Stalled(), 0, Serving()

        async def asks_back(channel: Channel, message: Message) -> Message:
            nonlocal begun
            begun += 1
            await channel.request(ping(1), timeout=50)
            return await answer(channel, message)

        limits = Limits(send_high_water=64 * 1024)
        async with listening(at=endpoint("server", limits=limits), handler=asks_back) as site:
            channel = await connect(site, handler=stalled)
            other = await site.first()
            transport, link, socket = (
                other._wire._transport,
                channel._wire.link,
                channel._wire._transport,
            )
            assert transport is not None
            assert socket is not None
            many = bound.tasks + bound.queue
            asked = [asyncio.create_task(channel.request(ping(n), timeout=50)) for n in range(many)]
            await until(lambda: begun >= bound.tasks)
            channel._wire.pause()
            numbers = itertools.count(10_000)

            def flood(many: int) -> None:
                for number in itertools.islice(numbers, many):
                    link.send(msgspec.structs.replace(ping(number), call=number))
                socket.write(link.data_to_send())

            while not other._wire.write_blocked:
                flood(2000)
                await asyncio.sleep(0)
            flood(100_000)
            await until(lambda: not other._wire._reading)
            assert transport.get_write_buffer_size() < 1024 * 1024
            assert len(other._inbox._queue) < 10_000  # of 100,000: what came in a read or two
            channel.abort()
            await asyncio.gather(*asked, return_exceptions=True)
            stalled.go.set()

    async def test_a_peer_that_does_not_read_makes_us_wait_and_memory_stays_bounded(self) -> None:
        """The answers of a peer that asks and never reads fill one buffer and no more."""
        entries = [b"e" * 16_000] * 4
        answered = 0

        async def handler(_channel: Channel, message: Message) -> Message:
            nonlocal answered
            answered += 1
            assert isinstance(message, LedgerGet)
            return LedgerEntries(slot=message.slot, first=1, entries=entries)

        limits = Limits(send_high_water=128 * 1024)
        async with listening(at=endpoint("server", limits=limits), handler=handler) as site:
            channel = await connect(site)
            other = await site.first()
            channel._wire.pause()  # the peer stops reading, below everything that it says
            asked = [asyncio.create_task(channel.request(ASK, timeout=50)) for _ in range(2000)]
            await until(lambda: other._wire.write_blocked)
            settled = -1
            while settled != answered:
                settled = answered
                for _ in range(500):
                    await asyncio.sleep(0)
            # 2000 answers are 128 MB. What was made: the sockets' buffers, ours, and one
            # answer for each handler that waits to send it.
            assert answered < 500
            transport = other._wire._transport
            assert transport is not None
            assert transport.get_write_buffer_size() < 3 * 1024 * 1024
            channel._wire.resume()
            answers = await asyncio.gather(*asked)
            assert len(answers) == 2000

    @pytest.mark.req("E6")
    @pytest.mark.parametrize("link_class", [LinkClass.MEMBER, LinkClass.ENROLMENT])
    async def test_who_pings_and_reads_no_answer_is_kept_no_answers_for(
        self, link_class: LinkClass
    ) -> None:
        limits = Limits(send_high_water=64 * 1024)
        async with listening(at=endpoint("server", limits=limits)) as site:
            channel = await connect(site, link_class=link_class)
            other = await site.first()
            transport = other._wire._transport
            assert transport is not None
            channel._wire.pause()
            link, socket = channel._wire.link, channel._wire._transport
            assert socket is not None
            numbers = itertools.count(1)

            def flood(many: int) -> None:
                for number in itertools.islice(numbers, many):
                    link.send(Ping(id=number, call=number, trace="0" * 16))
                socket.write(link.data_to_send())

            while not other._wire.write_blocked and other.is_open:
                flood(2000)
                await asyncio.sleep(0)
            # More than the kernel takes on its way: it goes on for ever, or is read no more.
            flood(100_000)
            await until(lambda: other.is_closed or not other._wire._reading)
            assert transport.get_write_buffer_size() < 1024 * 1024
            assert other.is_closed is (link_class is LinkClass.ENROLMENT)
            channel.abort()

    async def test_a_busy_peer_answers_its_link_all_the_same(self) -> None:
        stalled = Stalled()
        async with listening(handler=stalled) as site:
            channel = await connect(site)
            asked = [asyncio.create_task(channel.request(ping(n))) for n in range(90)]
            await until(lambda: stalled.inside == Serving().handlers)
            assert isinstance(await channel.request(Ping(id=7)), Pong)
            stalled.go.set()
            await asyncio.gather(*asked)

    @pytest.mark.req("E6")
    async def test_a_stranger_that_asks_for_more_than_fits_is_sent_away(self) -> None:
        stalled = Stalled()
        async with listening(handler=stalled) as site:
            channel = await connect(site, link_class=LinkClass.ENROLMENT)
            fits = STRANGERS.handlers + STRANGERS.queue
            asked = [asyncio.create_task(channel.request(ASK)) for _ in range(fits)]
            await until(lambda: stalled.inside == STRANGERS.handlers)
            stalled.go.set()
            await asyncio.gather(*asked)
            assert channel.is_open
            stalled.go.clear()
            asked = [asyncio.create_task(channel.request(ASK)) for _ in range(fits + 1)]
            closed = await channel.closed()
            assert (closed.code, closed.by_peer) == (CloseCode.NOT_ALLOWED, True)
            stalled.go.set()
            await asyncio.gather(*asked, return_exceptions=True)

    @pytest.mark.req("E5")
    @pytest.mark.parametrize(("reason", "sent_away"), [("nonce", True), ("busy", False)])
    async def test_a_stranger_that_is_refused_again_and_again_is_sent_away(
        self, reason: str, sent_away: bool
    ) -> None:
        def refuse(_channel: Channel, _message: Message) -> Message:
            return Refused(reason=reason)

        most = STRANGERS.refusals
        assert most is not None
        with logged() as lines:
            async with listening(handler=refuse) as site:
                channel = await connect(site, link_class=LinkClass.ENROLMENT)
                for _ in range(most):
                    assert isinstance(await channel.request(ASK), Refused)
                if sent_away:
                    assert (await channel.closed()).code is CloseCode.NOT_ALLOWED
                else:
                    assert isinstance(await channel.request(Ping(id=1)), Pong)
                other = await site.first()
                channel.close()
        ends = [line for line in lines if (line["event"], line["level"]) == CLOSED_FOR_OFFENCE]
        mine = [line for line in ends if line.get("link") == other.id]
        assert [line["reason"] for line in mine] == (["refused 8 times"] if sent_away else [])

    async def test_a_request_waits_for_room_within_its_own_timeout(self) -> None:
        limits = Limits(send_high_water=64 * 1024)
        async with listening() as site:
            channel = await connect(site, at=endpoint("client", limits=limits))
            (await site.first())._wire.pause()
            big = Register(host="h" * 250, lost=[bytes(16)] * 16)
            asked = [asyncio.create_task(channel.request(big, timeout=0.5)) for _ in range(40_000)]
            got = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(one, UnavailableError) for one in got)
            transport = channel._wire._transport
            assert transport is not None
            assert transport.get_write_buffer_size() < 1024 * 1024
