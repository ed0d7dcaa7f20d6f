"""Links on loopback sockets: every class, both directions, and what a bad peer can do to them."""

import asyncio
import contextlib

import pytest

from agents.runtime.channel import Channel
from agents.runtime.errors import UnavailableError
from agents.runtime.network import LinkError
from agents.runtime.trace import current_trace, tracing
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.errors import LocalProtocolError
from protocol.messages import (
    Done,
    HeadNotice,
    LedgerEntries,
    Message,
    NonceGet,
    Ping,
    Pong,
    Refused,
    Register,
    Registered,
)
from tests.support.links import (
    ASK,
    SENDER,
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
                other, local = await site.first(), channel.local
                channel.close(CloseCode.NORMAL)
                await other.closed()
        mine = [line for line in lines if line.get("link") == other.id]
        opened, closed = (line for line in mine if str(line["event"]).startswith("link."))
        assert (opened["event"], closed["event"]) == ("link.opened", "link.closed")
        assert opened["kind"] == "client-server"
        assert opened["link_class"] == "member"
        assert opened["peer"] == f"client/{bytes(16).hex()}"
        assert opened["remote"] == list(local)
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
