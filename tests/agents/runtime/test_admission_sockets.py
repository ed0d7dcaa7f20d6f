"""A listening port under more peers than it has room for."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace

import pytest

from agents.runtime.admission import Admission
from agents.runtime.channel import Channel
from agents.runtime.network import DialError, LinkError
from agents.runtime.turns import MOST, Turns
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.errors import LocalProtocolError
from protocol.messages import LedgerEntries, LedgerGet, Message
from tests.support.clock import settle
from tests.support.links import (
    HOST,
    RESET,
    SLOT,
    FakeContexts,
    Site,
    connect,
    credentials,
    endpoint,
    is_dropped,
    listening,
    on_uvloop,
    stranger,
    until,
    works,
)
from tests.support.logs import logged

pytestmark = pytest.mark.sockets

ASK = LedgerGet(slot=SLOT, n=0, entry_id=bytes(32))


async def ask(site: Site, link_class: LinkClass) -> Message:
    """Ask something over a link of its own: a refusal may come with either."""
    channel = await connect(site, link_class=link_class)
    return await channel.request(ASK)


@on_uvloop
class TestAdmission:
    @pytest.mark.req("E6")
    async def test_a_flood_of_half_open_connections_is_bounded(self) -> None:
        bound = Admission(handshakes=5, courtesies=3, patience=3600)
        with logged() as lines:
            async with listening(admission=bound) as site:
                flood = [await stranger(site) for _ in range(40)]
                # All but eight are dropped, though nobody has said a word.
                await asyncio.wait(
                    [asyncio.ensure_future(is_dropped(reader)) for reader, _ in flood[8:]]
                )
                assert (site.listener.handshakes, site.listener.connections) == (8, 8)
                for _, writer in flood:
                    writer.close()
                await until(lambda: site.listener.connections == 0)
                assert await works(site)
        dropped = [line for line in lines if line.get("reason") == "dropped"]
        assert len(dropped) == 32
        assert dropped[0]["got"] == "5 handshakes in flight"

    @pytest.mark.req("E6")
    async def test_a_member_that_comes_in_a_flood_is_told_when_to_come_back(self) -> None:
        bound = Admission(handshakes=2, courtesies=3, busy_retry_after=7.5, patience=3600)
        async with listening(admission=bound) as site:
            flood = [await stranger(site) for _ in range(2)]
            await until(lambda: site.listener.handshakes == 2)
            with pytest.raises(DialError) as failure:
                await connect(site)
            assert failure.value.code is CloseCode.RETRY_AFTER
            assert failure.value.retry_after == 7.5
            assert not failure.value.unreachable
            for _, writer in flood:
                writer.close()
            await until(lambda: site.listener.handshakes == 0)
            assert await works(site)

    @pytest.mark.req("E6")
    async def test_the_oldest_handshake_that_does_not_end_makes_way(self) -> None:
        bound = Admission(handshakes=2, courtesies=0, patience=0.0)
        with logged() as lines:
            async with listening(admission=bound) as site:
                reader, oldest = await stranger(site)
                await until(lambda: site.listener.handshakes == 1)
                _, younger = await stranger(site)
                await until(lambda: site.listener.handshakes == 2)
                assert await works(site)
                assert await is_dropped(reader)
                assert site.listener.handshakes == 1
                younger.close()
                oldest.close()
        (dropped,) = [line for line in lines if line.get("reason") == "dropped"]
        assert dropped["got"] == "its handshake did not end, and others waited"
        assert dropped["remote"] == list(oldest.get_extra_info("sockname"))

    @pytest.mark.req("E6")
    async def test_who_is_only_told_to_come_back_has_no_place_to_give(self) -> None:
        bound = Admission(handshakes=1, per_address=1, courtesies=1, patience=0.0)
        async with listening(admission=bound) as site:
            await connect(site, local_address="127.0.9.9")
            _, courtesy = await stranger(site, "127.0.9.9")
            await until(lambda: site.listener.handshakes == 1)
            reader, stalled = await stranger(site, "127.0.9.8")
            await until(lambda: site.listener.handshakes == 2)
            assert await works(site)
            assert await is_dropped(reader)
            assert site.listener.handshakes == 1
            courtesy.close()
            stalled.close()

    @pytest.mark.req("E6")
    async def test_for_two_that_come_at_once_two_make_way(self) -> None:
        bound = Admission(handshakes=2, courtesies=0, patience=0.0)
        async with listening(admission=bound) as site:
            old = [await stranger(site) for _ in range(2)]
            await until(lambda: site.listener.handshakes == 2)
            # Both are in the backlog, and accepted in one turn of the loop.
            new = [socket.create_connection((HOST, site.port)) for _ in range(2)]
            for reader, writer in old:
                assert await is_dropped(reader)
                writer.close()
            await until(lambda: site.listener.connections == 2)
            assert site.listener.handshakes == 2
            for peer in new:
                peer.setblocking(False)
                with pytest.raises(BlockingIOError):
                    peer.recv(1)
                peer.close()

    @pytest.mark.req("E6")
    async def test_nothing_is_kept_of_who_was_dropped(self) -> None:
        bound = Admission(handshakes=1, courtesies=0, patience=3600)
        async with listening(admission=bound) as site:
            _, stalled = await stranger(site)
            await until(lambda: site.listener.handshakes == 1)
            for _ in range(5):
                reader, writer = await stranger(site)
                assert await is_dropped(reader)
                writer.close()
            assert len(site.listener._openings) == 1
            stalled.close()
            await until(lambda: site.listener.connections == 0)
            assert not site.listener._openings

    @pytest.mark.req("E6")
    async def test_who_is_reset_behind_what_it_sent_keeps_no_place(self) -> None:
        """The loop is told of such a connection once, and that call finds the bytes."""
        async with listening(at=endpoint("server", handshake_timeout=60.0)) as site:
            for sent in (b"\x16", b"\x16\x03\x01\x00\x05"):
                with socket.create_connection((HOST, site.port)) as peer:
                    await until(lambda: site.listener.connections == 1)
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    peer.sendall(sent)
                await until(lambda: site.listener.connections == 0)
            assert site.listener.handshakes == 0

    @pytest.mark.req("E6")
    async def test_a_fault_while_a_connection_begins_keeps_no_place(self) -> None:
        said: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, about: said.append(about))
        contexts = FakeContexts(credentials("server"), (b"no certificate",))
        async with listening(at=replace(endpoint("server"), contexts=contexts)) as site:
            for _ in range(3):
                reader, writer = await stranger(site)
                assert await is_dropped(reader)
                writer.close()
            await until(lambda: site.listener.connections == 0)
            assert site.listener.handshakes == 0
            with pytest.raises(DialError, match="failed on our side"):
                await connect(site, at=replace(endpoint("client"), contexts=contexts))
        assert {type(about["exception"]) for about in said} == {LocalProtocolError}

    @pytest.mark.req("E6")
    async def test_nobody_makes_way_for_one_who_may_not_enter_anyhow(self) -> None:
        bound = Admission(handshakes=2, handshakes_per_address=1, courtesies=0, patience=0.0)
        async with listening(admission=bound) as site:
            _, honest = await stranger(site)
            await until(lambda: site.listener.handshakes == 1)
            _, hostile = await stranger(site, "127.0.9.9")
            await until(lambda: site.listener.handshakes == 2)
            for _ in range(3):
                reader, writer = await stranger(site, "127.0.9.9")
                assert await is_dropped(reader)
                writer.close()
            assert site.listener.handshakes == 2
            honest.close()
            hostile.close()

    @pytest.mark.req("E6")
    @pytest.mark.parametrize("link_class", list(LinkClass))
    async def test_too_many_links_are_told_when_to_come_back(self, link_class: LinkClass) -> None:
        with logged() as lines:
            async with listening(admission=Admission(connections=2)) as site:
                kept = [await connect(site) for _ in range(2)]
                with pytest.raises(LinkError) as failure:
                    await ask(site, link_class)
                assert failure.value.code is CloseCode.RETRY_AFTER
                assert failure.value.retry_after == Admission().full_retry_after
                await until(lambda: site.listener.connections == 2)
                assert len(site.opened) == 2, "who is told to come back is no link"
                kept[0].close()
                await until(lambda: site.listener.connections == 1)
                assert await works(site)
        (refused,) = [
            line for line in lines if line["event"] == "link.refused" and not line["by_peer"]
        ]
        assert refused["got"] == "2 connections"

    async def test_one_address_cannot_take_all_of_them(self) -> None:
        async with listening(admission=Admission(per_address=2)) as site:
            for _ in range(2):
                await connect(site, local_address="127.0.9.9")
            with pytest.raises(DialError) as failure:
                await connect(site, local_address="127.0.9.9")
            assert failure.value.code is CloseCode.RETRY_AFTER
            assert await works(site)  # from another address

    async def test_the_send_buffer_of_its_links_is_set_with_it(self) -> None:
        async with listening(admission=Admission(send_buffer=65536)) as site:
            assert site.listener._side.endpoint.limits.send_high_water == 65536

    async def test_discovery_is_ten_in_a_row_and_then_one_a_minute(self) -> None:
        async def discover(source: str) -> Channel:
            channel = await connect(site, link_class=LinkClass.DISCOVERY, local_address=source)
            assert isinstance(await channel.request(ASK), LedgerEntries)
            channel.close()
            return channel

        async with listening() as site:
            for _ in range(10):
                await discover("127.0.9.1")
            with pytest.raises(LinkError) as failure:
                await discover("127.0.9.1")
            assert failure.value.code is CloseCode.RETRY_AFTER
            assert failure.value.retry_after is not None
            assert 0 < failure.value.retry_after <= 60
            await discover("127.0.9.2")  # another address has its own
            assert await works(site)  # members are not discoverers


class Line(Turns):
    """Turns of which none comes until the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Callable[[], None]] = []

    def run(self, work: Callable[[], None]) -> bool:
        self.waiting.append(work)
        return False


@on_uvloop
class TestTurns:
    async def test_a_handshake_stands_in_line(self) -> None:
        turns = Turns()
        async with listening(at=replace(endpoint("server"), turns=turns)) as site:
            for _ in range(1000 * MOST):
                turns.run(lambda: None)
            channel = await connect(site)
            assert channel.is_open
            assert len(turns) == 0  # all that came before it is done

    async def test_who_stands_in_line_is_read_no_further(self) -> None:
        line = Line()
        async with listening(at=replace(endpoint("server"), turns=line)) as site:
            _, writer = await stranger(site)
            for _ in range(20):
                writer.write(b"\x16")
                await settle()
            assert len(line.waiting) == 1
            writer.close()

    async def test_what_stands_in_line_is_its_own(self) -> None:
        """All connections are read into one buffer."""
        line = Line()
        async with listening(at=replace(endpoint("server"), turns=line)) as site:
            dials = [asyncio.ensure_future(connect(site)) for _ in range(5)]
            while not all(dial.done() for dial in dials):
                await until(lambda: bool(line.waiting) or all(dial.done() for dial in dials))
                await settle()
                steps, line.waiting = line.waiting, []
                for step in steps:
                    step()
            assert [(await dial).is_open for dial in dials] == [True] * 5

    async def test_who_goes_while_it_stands_in_line_is_forgotten(self) -> None:
        turns = Turns()
        async with listening(at=replace(endpoint("server"), turns=turns)) as site:
            for number in range(50 * MOST):
                turns.run(lambda: None)
                if number == 25:
                    _, writer = await stranger(site)
                    writer.write(b"\x16\x03\x01\x40\x00" + bytes(100))
                    writer.transport.abort()
            await until(lambda: not site.listener.connections and not len(turns))
            assert await works(site)
