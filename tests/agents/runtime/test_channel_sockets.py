"""Links on loopback sockets: every class, both directions, and what a bad peer can do to them."""

import asyncio
import contextlib
import itertools

import pytest

from agents.runtime.channel import Channel
from agents.runtime.errors import UnavailableError
from agents.runtime.inbox import STRANGERS, Serving
from agents.runtime.network import LinkError
from agents.runtime.trace import current_trace, tracing
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.errors import LocalProtocolError
from protocol.limits import Limits
from protocol.messages import (
    Done,
    HeadNotice,
    LedgerEntries,
    LedgerGet,
    Message,
    NonceGet,
    Ping,
    Pong,
    Refused,
    Register,
    Registered,
)
from tests.support.links import (
    SLOT,
    RealClock,
    answer,
    connect,
    endpoint,
    listening,
    on_uvloop,
    until,
)
from tests.support.logs import logged

pytestmark = pytest.mark.sockets

ASK = LedgerGet(slot=SLOT, n=0, entry_id=bytes(32))
SENDER = bytes(16)
CLOSED_FOR_OFFENCE = ("link.closed", "warning")


def ping(number: int) -> Ping:
    return Ping(id=number, sender=SENDER)


class Stalled:
    """A handler that stands until it is told to go on; counts who is inside."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.inside = 0
        self.started = 0
        self.most = 0

    async def __call__(self, channel: Channel, message: Message) -> Message:
        self.started += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.go.wait()
        finally:
            self.inside -= 1
        return await answer(channel, message)


@on_uvloop
class TestClasses:
    @pytest.mark.parametrize("link_class", list(LinkClass))
    async def test_a_link_of_each_class_carries_what_it_may(self, link_class: LinkClass) -> None:
        async with listening() as site:
            channel = await connect(site, link_class=link_class)
            other = await site.first()
            question = ping(7) if link_class is LinkClass.MEMBER else ASK
            got = await channel.request(question)
            assert isinstance(got, Pong if link_class is LinkClass.MEMBER else LedgerEntries)
            assert (channel.link_class, other.link_class) == (link_class, link_class)

    async def test_each_side_knows_the_other_as_far_as_it_has_proven_itself(self) -> None:
        async with listening() as site:
            for index, (link_class, theirs, ours) in enumerate(
                [
                    (LinkClass.DISCOVERY, None, None),
                    (LinkClass.ENROLMENT, "server", None),
                    (LinkClass.MEMBER, "server", "client"),
                ]
            ):
                channel = await connect(site, link_class=link_class)
                other = await site.channel(index)
                assert (channel.peer.name.role if channel.peer else None) == theirs
                assert (other.peer.name.role if other.peer else None) == ours

    async def test_addresses_are_those_of_the_socket(self) -> None:
        async with listening() as site:
            channel = await connect(site, local_address="127.0.1.7")
            other = await site.first()
            assert channel.remote == ("127.0.0.1", site.port)
            assert channel.local[0] == "127.0.1.7"
            assert other.remote == channel.local

    async def test_both_ends_have_the_same_binding_and_two_links_have_not(self) -> None:
        async with listening() as site:
            first, second = await connect(site), await connect(site)
            assert first.binding() == (await site.channel(0)).binding()
            assert first.binding() != second.binding()

    async def test_both_sides_ask_at_the_same_time(self) -> None:
        async with listening() as site:
            channel = await connect(site)
            other = await site.first()
            answers = await asyncio.gather(
                *(channel.request(ping(n)) for n in range(50)),
                *(other.request(ping(n)) for n in range(50)),
            )
            assert [a.id for a in answers if isinstance(a, Pong)] == [*range(50), *range(50)]

    async def test_what_the_class_forbids_is_our_own_error_and_costs_nothing(self) -> None:
        async with listening() as site:
            channel = await connect(site, link_class=LinkClass.DISCOVERY)
            with pytest.raises(LocalProtocolError):
                await channel.request(NonceGet(kind="client-tls", spki=b""))
            assert isinstance(await channel.request(ASK), LedgerEntries)

    async def test_answers_find_their_requests_in_any_order(self) -> None:
        gates = {n: asyncio.Event() for n in range(3)}

        async def handler(_channel: Channel, message: Message) -> Message:
            assert isinstance(message, Ping)
            await gates[message.id].wait()
            return Pong(id=message.id)

        async with listening(handler=handler) as site:
            channel = await connect(site)
            tasks = [asyncio.create_task(channel.request(ping(n))) for n in range(3)]
            for n in (2, 0, 1):
                gates[n].set()
                got = await tasks[n]
                assert isinstance(got, Pong)
                assert got.id == n

    async def test_a_large_answer_arrives_whole(self) -> None:
        values = {f"setting-{n}": "v" * 4000 for n in range(100)}

        async def handler(_channel: Channel, _message: Message) -> Message:
            return Registered(token=b"", observed="127.0.0.1", settings=values)

        async with listening(handler=handler) as site:
            channel = await connect(site)
            got = await channel.request(Register())
            assert isinstance(got, Registered)
            assert got.settings == values


@on_uvloop
class TestRequests:
    async def test_no_answer_in_time_is_unavailable_and_the_link_lives(self) -> None:
        stalled = Stalled()
        async with listening(handler=stalled) as site:
            channel = await connect(site)
            with pytest.raises(UnavailableError, match="no answer to PING"):
                await channel.request(ping(1), timeout=0.01)
            stalled.go.set()
            got = await channel.request(ping(2))
            assert isinstance(got, Pong)
            assert got.id == 2  # the late answer to 1 was dropped

    async def test_who_is_cancelled_leaves_the_link_to_others(self) -> None:
        stalled = Stalled()
        async with listening(handler=stalled) as site:
            channel = await connect(site)
            given_up = asyncio.create_task(channel.request(ping(1)))
            kept = asyncio.create_task(channel.request(ping(2)))
            await until(lambda: stalled.inside == 2)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            stalled.go.set()
            got = await kept
            assert isinstance(got, Pong)
            assert got.id == 2

    async def test_the_end_of_the_link_ends_every_request_with_its_reason(self) -> None:
        stalled = Stalled()
        async with listening(handler=stalled) as site:
            channel = await connect(site)
            asked = asyncio.create_task(channel.request(ping(1)))
            await until(lambda: stalled.inside == 1)
            (await site.first()).close(CloseCode.RETRY_AFTER, "busy", retry_after=4.5)
            with pytest.raises(LinkError) as failure:
                await asked
            assert failure.value.code is CloseCode.RETRY_AFTER
            assert failure.value.retry_after == 4.5
            assert failure.value.by_peer
            with pytest.raises(LinkError):
                await channel.request(ping(2))
            assert channel.is_closed
            stalled.go.set()

    async def test_policy_time_is_held_by_who_asks_and_by_who_answers(self) -> None:
        stalled = Stalled()
        async with listening(handler=stalled) as site:
            here = endpoint("client")
            channel = await connect(site, at=here)
            ours, theirs = here.clock, site.endpoint.clock
            assert isinstance(ours, RealClock)
            assert isinstance(theirs, RealClock)
            assert (ours.holds, theirs.holds) == (0, 0)
            held = asyncio.create_task(channel.request(ping(1)))
            await until(lambda: stalled.inside == 1)
            assert (ours.holds, theirs.holds) == (1, 1)
            free = asyncio.create_task(channel.request(ping(2), hold=False))
            await until(lambda: stalled.inside == 2)
            assert (ours.holds, theirs.holds) == (1, 2)
            stalled.go.set()
            await asyncio.gather(held, free)
            await until(lambda: (ours.holds, theirs.holds) == (0, 0))

    async def test_drain_waits_for_what_is_under_way(self) -> None:
        stalled = Stalled()
        async with listening(handler=stalled) as site:
            channel = await connect(site)
            await channel.drain()  # nothing is
            asked = asyncio.create_task(channel.request(ping(1)))
            await until(lambda: stalled.inside == 1)
            drained = asyncio.create_task(channel.drain())
            other = asyncio.create_task((await site.first()).drain())
            await asyncio.sleep(0)
            assert not drained.done()
            assert not other.done()
            stalled.go.set()
            await asyncio.gather(drained, other)
            assert asked.done()


@on_uvloop
class TestHandlers:
    @pytest.mark.parametrize(
        ("error", "reason", "retry_after", "logs_it"),
        [
            (RuntimeError("secret detail"), "internal", None, True),
            (UnavailableError("the hub is away", retry_after=7.0), "unavailable", 7.0, False),
        ],
        ids=["a bug", "something else is away"],
    )
    async def test_one_that_raises_costs_one_request(
        self, error: Exception, reason: str, retry_after: float | None, *, logs_it: bool
    ) -> None:
        async def handler(channel: Channel, message: Message) -> Message:
            if message == Ping(id=1, sender=SENDER, call=message.call, trace=message.trace):
                raise error
            return await answer(channel, message)

        with logged() as lines:
            async with listening(handler=handler) as site:
                channel = await connect(site)
                got = await channel.request(ping(1))
                assert isinstance(got, Refused)
                assert (got.reason, got.retry_after) == (reason, retry_after)
                assert "secret" not in got.text
                assert isinstance(await channel.request(ping(2)), Pong)
        failed = [line for line in lines if line["event"] == "handler.failed"]
        assert bool(failed) is logs_it
        if logs_it:
            assert "secret detail" in str(failed[0]["traceback"])

    async def test_an_answer_that_may_not_be_sent_closes_the_link_and_is_logged(self) -> None:
        async def handler(_channel: Channel, _message: Message) -> Message:
            return Refused(reason="no")  # there are no words on a discovery link

        with logged() as lines:
            async with listening(handler=handler) as site:
                channel = await connect(site, link_class=LinkClass.DISCOVERY)
                with pytest.raises(LinkError) as failure:
                    await channel.request(ASK)
                assert failure.value.code is CloseCode.INTERNAL
        assert [line["type"] for line in lines if line["event"] == "answer.unsendable"]

    async def test_a_trace_goes_where_the_message_goes(self) -> None:
        seen: list[str] = []

        async def far(_channel: Channel, message: Message) -> Message:
            seen.append(current_trace.get())
            return Done()

        async def near(channel: Channel, message: Message) -> Message:
            if isinstance(message, Ping):
                seen.append(current_trace.get())
                await channel.request(HeadNotice(head=b"head"))
            return await answer(channel, message)

        with logged() as lines:
            async with listening(handler=near) as site:
                channel = await connect(site, handler=far)
                with tracing("abc123"):
                    got = await channel.request(ping(1))
                assert got.trace == "abc123"
        assert seen == ["abc123", "abc123"]
        passed = [line["event"] for line in lines if line.get("trace") == "abc123"]
        assert passed.count("message.out") == 4  # question, nested question, both answers
        assert passed.count("message.in") == 4

    async def test_a_request_without_a_trace_gets_one_and_two_get_two(self) -> None:
        async with listening() as site:
            channel = await connect(site)
            first, second = await channel.request(ping(1)), await channel.request(ping(2))
            assert first.trace
            assert first.trace != second.trace

    async def test_it_is_not_cancelled_by_the_end_of_its_link(self) -> None:
        stalled = Stalled()
        finished = asyncio.Event()

        async def handler(channel: Channel, message: Message) -> Message:
            got = await stalled(channel, message)
            finished.set()
            return got

        async with listening(handler=handler) as site:
            channel = await connect(site)
            asked = asyncio.create_task(channel.request(ping(1)))
            await until(lambda: stalled.inside == 1)
            channel.abort()
            with pytest.raises(LinkError):
                await asked
            await (await site.first()).closed()
            stalled.go.set()
            await finished.wait()


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
            await until(lambda: len(other._writers) == Serving().handlers)
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


@on_uvloop
class TestEndings:
    async def test_close_tells_the_peer_why(self) -> None:
        async with listening() as site:
            channel = await connect(site)
            other = await site.first()
            channel.close(CloseCode.SUPERSEDED, "a newer one")
            channel.close(CloseCode.NORMAL)  # too late
            theirs, ours = await other.closed(), await channel.closed()
            assert (ours.code, ours.by_peer) == (CloseCode.SUPERSEDED, False)
            assert (theirs.code, theirs.by_peer) == (CloseCode.SUPERSEDED, True)

    async def test_the_reason_arrives_though_the_peer_is_still_sending(self) -> None:
        """A socket closed with unread input would answer with a reset, which overtakes."""
        async with listening() as site:
            channel = await connect(site)
            other = await site.first()
            other._wire.pause()
            asked = [asyncio.create_task(channel.request(ping(n))) for n in range(2000)]
            for _ in range(50):
                await asyncio.sleep(0)
            other.close(CloseCode.TRUST_CHANGED)
            assert (await channel.closed()).code is CloseCode.TRUST_CHANGED
            await asyncio.gather(*asked, return_exceptions=True)

    async def test_a_connection_that_is_cut_is_lost(self) -> None:
        async with listening() as site:
            channel = await connect(site)
            channel.abort()
            assert (await (await site.first()).closed()).code is CloseCode.LOST
            assert (await channel.closed()).code is CloseCode.LOST
            await until(lambda: site.listener.connections == 0)

    async def test_an_idle_link_ends(self) -> None:
        async with listening(at=endpoint("server", idle_timeout=0.05)) as site:
            channel = await connect(site)
            assert (await channel.closed()).code is CloseCode.IDLE_TIMEOUT

    async def test_a_peer_that_never_ends_is_dropped_after_the_linger(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("agents.runtime.wire.LINGER", 0.02)
        async with listening() as site:
            channel = await connect(site)
            channel._wire.pause()  # it neither reads our CLOSE nor ends
            (await site.first()).close()
            await until(lambda: site.listener.connections == 0)
            channel.abort()

    async def test_a_peer_that_ends_and_reads_nothing_is_dropped_after_the_linger(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("agents.runtime.wire.LINGER", 0.02)

        def handler(_channel: Channel, _message: Message) -> Message:
            return LedgerEntries(slot=SLOT, first=1, entries=[bytes(16_000)] * 4)

        async with listening(handler=handler) as site:
            channel = await connect(site)
            other = await site.first()
            channel._wire.pause()
            asked: list[asyncio.Task[Message]] = []
            while not other._wire.write_blocked:  # one by one, for the server must read the end
                asked.append(asyncio.create_task(channel.request(ASK)))
                await asyncio.sleep(0)
            assert other._wire._reading
            socket = channel._wire._transport
            assert socket is not None
            socket.write_eof()  # and keeps the connection, with all that it has not read
            await other.gone()
            assert site.listener.connections == 0
            channel.abort()
            await asyncio.gather(*asked, return_exceptions=True)

    async def test_opened_and_closed_are_one_line_each(self) -> None:
        with logged() as lines:
            async with listening(kind="client-server") as site:
                channel = await connect(site)
                other = await site.first()
                channel.close(CloseCode.NORMAL)
                await other.closed()
        mine = [line for line in lines if line.get("link") == other.id]
        opened, closed = (line for line in mine if str(line["event"]).startswith("link."))
        assert (opened["event"], closed["event"]) == ("link.opened", "link.closed")
        assert opened["kind"] == "client-server"
        assert opened["link_class"] == "member"
        assert opened["peer"] == f"client/{bytes(16).hex()}"
        assert opened["remote"] == list(channel.local)
        assert (closed["code"], closed["by_peer"]) == ("normal", True)


@on_uvloop
class TestSlowPeers:
    async def test_bytes_one_at_a_time_make_the_same_link(self) -> None:
        """A relay that hands on single bytes, in both directions."""

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65536):
                    for byte in data:
                        writer.write(bytes([byte]))
                        await writer.drain()
                        await asyncio.sleep(0)
            writer.close()

        async with listening() as site:
            far = site.port

            async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", far)
                await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

            server = await asyncio.start_server(relay, "127.0.0.1", 0)
            async with server:
                site.listener.port = server.sockets[0].getsockname()[1]
                channel = await connect(site)
                assert isinstance(await channel.request(ping(1)), Pong)
                channel.close()
                await (await site.first()).closed()
                await until(lambda: site.listener.connections == 0)
