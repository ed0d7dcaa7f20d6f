"""A listening port under peers that are strangers, broken, hostile or too many."""

import asyncio
import gc
import hashlib
import socket
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL

from agents.runtime import wire
from agents.runtime.admission import Admission
from agents.runtime.channel import Channel
from agents.runtime.errors import StateError
from agents.runtime.listener import Listener
from agents.runtime.network import DialError, LinkError
from agents.runtime.remedies import REMEDIES
from agents.runtime.turns import MOST, Turns
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.errors import LocalProtocolError
from protocol.limits import Limits
from protocol.link import Link
from protocol.messages import LedgerEntries, LedgerGet, Message, Ping, Pong
from tests.support.clock import settle
from tests.support.links import (
    HOST,
    RESET,
    SLOT,
    FakeContexts,
    Site,
    answer,
    believe,
    connect,
    credentials,
    disbelieve,
    endpoint,
    foreign_root,
    listening,
    on_uvloop,
    root,
    until,
)
from tests.support.logs import logged

pytestmark = pytest.mark.sockets

ASK = LedgerGet(slot=SLOT, n=0, entry_id=bytes(32))


async def stranger(
    site: Site, source: str = HOST
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A TCP connection that says nothing yet."""
    return await asyncio.open_connection(HOST, site.port, local_addr=(source, 0))


async def is_dropped(reader: asyncio.StreamReader) -> bool:
    """Whether the other side ends the connection; waits for it."""
    try:
        while await reader.read(65536):
            pass
    except ConnectionError:
        pass
    return True


async def ask(site: Site, link_class: LinkClass) -> Message:
    """Ask something over a link of its own: a refusal may come with either."""
    channel = await connect(site, link_class=link_class)
    return await channel.request(ASK)


def connections() -> list[SSL.Connection]:
    """Every TLS connection of this process that is not freed."""
    return [one for one in gc.get_objects() if isinstance(one, SSL.Connection)]


async def works(site: Site) -> bool:
    """Whether a member is served like ever."""
    channel = await connect(site)
    got = await channel.request(Ping(id=1, sender=bytes(16)))
    channel.close()
    return isinstance(got, Pong)


@on_uvloop
class TestStart:
    async def test_port_0_is_any_that_is_free_and_is_told(self) -> None:
        async with listening() as site:
            assert site.port > 0

    async def test_a_port_in_use_is_refused_with_what_to_do(self) -> None:
        async with listening() as site:
            with pytest.raises(StateError, match="the port is in use") as failure:
                await Listener.start(
                    HOST, site.port, endpoint=endpoint("server"), verify=believe, handler=answer
                )
            assert "set another port" in failure.value.hint
            assert str(site.port) in failure.value.text

    async def test_an_address_of_another_host_is_refused_with_what_to_do(self) -> None:
        with pytest.raises(StateError) as failure:
            await Listener.start(
                "192.0.2.1", 0, endpoint=endpoint("server"), verify=believe, handler=answer
            )
        assert "address of this host" in failure.value.hint

    async def test_a_tls_client_must_know_what_to_ask_for(self) -> None:
        with pytest.raises(ValueError, match="states the class"):
            await Listener.start(
                HOST,
                0,
                endpoint=endpoint("zone-server"),
                verify=believe,
                handler=answer,
                server_side=False,
            )

    async def test_stop_tells_every_peer_and_accepts_no_more(self) -> None:
        async with listening() as site:
            channel = await connect(site)
            await site.first()
            await site.listener.stop(CloseCode.GOING_AWAY, "restart")
            closed = await channel.closed()
            assert (closed.code, closed.text) == (CloseCode.GOING_AWAY, "restart")
            with pytest.raises(DialError) as failure:
                await connect(site)
            assert failure.value.unreachable

    async def test_stop_waits_until_each_connection_is_gone(self) -> None:
        async with listening() as site:
            channel = await connect(site)
            await site.first()
            await site.listener.stop()
            assert site.listener.connections == 0
            await channel.closed()

    async def test_close_drops_what_is_no_link_yet_and_keeps_the_links(self) -> None:
        async with listening(at=endpoint("server", handshake_timeout=60.0)) as site:
            channel = await connect(site)
            reader, writer = await stranger(site)
            await until(lambda: site.listener.handshakes == 1)
            site.listener.close()
            async with asyncio.timeout(10):
                assert await is_dropped(reader)
            writer.close()
            await until(lambda: site.listener.connections == 1)
            assert channel.is_open

    async def test_contexts_are_asked_for_at_each_connection(self) -> None:
        """A change of trust needs no new listener."""
        here = endpoint("server")
        assert isinstance(here.contexts, FakeContexts)
        async with listening(at=here) as site:
            old = await connect(site)
            here.contexts.roots = (foreign_root().der,)
            with pytest.raises(DialError):
                await connect(site)
            assert isinstance(await old.request(Ping(id=1, sender=bytes(16))), Pong)


@on_uvloop
class TestGarbage:
    @pytest.mark.parametrize(
        "sent",
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(4096), b"\x16\x03\x01\xff\xff" + b"z" * 70000],
        ids=["plain text", "zeros", "a record that is none"],
    )
    async def test_what_is_no_tls_costs_its_own_connection(self, sent: bytes) -> None:
        with logged() as lines:
            async with listening() as site:
                reader, writer = await stranger(site)
                writer.write(sent)
                assert await is_dropped(reader)
                writer.close()
                assert await works(site)
        (refused,) = [line for line in lines if line["event"] == "link.refused"]
        assert (refused["reason"], refused["fingerprint"]) == ("protocol_error", "-")
        assert refused["remedy"]
        assert str(refused["remote"]).startswith(f"['{HOST}'")

    async def test_who_is_still_sending_sees_an_end_and_no_reset(self) -> None:
        """A reset could overtake the CLOSE that says why, and throw it away."""
        async with listening() as site:
            reader, writer = await stranger(site)
            writer.write(b"x" * 600_000)
            await writer.drain()
            while await reader.read(65536):  # a reset would raise here
                pass
            writer.close()

    async def test_who_sends_on_and_on_after_the_end_is_dropped(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wire, "LINGER", 3600.0)
        async with listening() as site:
            reader, writer = await stranger(site)
            writer.write(b"no TLS")
            assert await reader.read() == b""
            assert site.listener.connections == 1
            writer.write(bytes(wire.LINGER_BYTES + 65536))
            await until(lambda: site.listener.connections == 0)
            writer.transport.abort()

    async def test_a_handshake_that_is_larger_than_its_limit_is_refused(self) -> None:
        async with listening(at=endpoint("server", limits=Limits(handshake=100))) as site:
            with pytest.raises(DialError) as failure:
                await connect(site)
            assert failure.value.unreachable
            assert not site.opened

    @pytest.mark.parametrize("cut", [0, 1, 60, 120])
    async def test_a_handshake_that_is_cut_off_is_no_refusal(self, cut: int) -> None:
        """A port scan and a health check are nobody that an operator must care for."""
        link = Link(
            FakeContexts(credentials("client"), (root().der,)).member(),
            server_side=False,
            local_role="client",
            verify=believe,
            link_class=LinkClass.MEMBER,
            handshake_deadline=1e9,
            idle_timeout=60.0,
        )
        with logged() as lines:
            async with listening() as site:
                _reader, writer = await stranger(site)
                writer.write(link.data_to_send()[:cut])
                await writer.drain()
                writer.close()
                await writer.wait_closed()
                await until(lambda: site.listener.connections == 0)
                assert await works(site)
        assert not [line for line in lines if line["event"] == "link.refused"]
        assert [line for line in lines if line["event"] == "link.abandoned"]

    async def test_who_says_nothing_is_dropped_at_the_deadline(self) -> None:
        with logged() as lines:
            async with listening(at=endpoint("server", handshake_timeout=0.05)) as site:
                reader, writer = await stranger(site)
                assert await is_dropped(reader)
                writer.close()
                await until(lambda: site.listener.connections == 0)
        (refused,) = [line for line in lines if line["event"] == "link.refused"]
        assert refused["reason"] == "handshake_timeout"


@on_uvloop
class TestEnd:
    async def test_nothing_of_a_connection_waits_for_the_garbage_collector(self) -> None:
        """TLS state is tens of KiB: a storm of short connections would pile it up."""
        async with listening() as site:

            async def visit() -> None:
                channel = await connect(site)
                far = await site.first()
                channel.close()
                await channel.gone()
                await far.gone()
                site.opened.clear()

            await visit()  # what is made once is kept
            gc.disable()
            try:
                before = connections()
                await visit()
                await asyncio.sleep(0)
                assert [one for one in connections() if one not in before] == []
            finally:
                gc.enable()


@on_uvloop
class TestRefusals:
    @pytest.mark.req("E5")
    async def test_a_foreign_certificate_is_one_line_with_its_fingerprint(self) -> None:
        shown = credentials("client", foreign_root)
        spki = shown.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        with logged() as lines:
            async with listening(kind="client-server", expected="a client of ours") as site:
                intruder = endpoint("client", authority=foreign_root)
                with pytest.raises(DialError) as failure:
                    await connect(site, at=intruder)
                assert failure.value.code is CloseCode.UNTRUSTED
                assert failure.value.by_peer
                assert not site.opened
        refused = [line for line in lines if line["event"] == "link.refused"]
        (theirs,) = [line for line in refused if not line["by_peer"]]
        assert theirs["fingerprint"] == hashlib.sha256(spki).hexdigest()
        assert theirs["kind"] == "client-server"
        assert theirs["expected"] == "a client of ours"
        assert theirs["reason"] == "untrusted"
        assert theirs["remedy"] == REMEDIES["untrusted"]
        assert len(refused) == 2  # the other is the intruder's own

    async def test_what_verify_finds_reaches_the_dialer_with_the_clock(self) -> None:
        with logged() as lines:
            async with listening(verify=disbelieve(CloseCode.EXPIRED, "expired in 1999")) as site:
                with pytest.raises(DialError) as failure:
                    await connect(site)
                assert failure.value.code is CloseCode.EXPIRED
                assert failure.value.peer_time is not None
                assert "1999" not in failure.value.text  # the reason is not the peer's business
        (theirs,) = [
            line for line in lines if line["event"] == "link.refused" and not line["by_peer"]
        ]
        assert (theirs["reason"], theirs["got"]) == ("expired", "expired in 1999")
        assert len(str(theirs["fingerprint"])) == 64
        assert not [line for line in lines if line["event"] == "link.opened"]

    def test_every_code_has_a_remedy(self) -> None:
        fine = {CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.SUPERSEDED}
        assert not {code.name.lower() for code in set(CloseCode) - fine} - set(REMEDIES)

    async def test_without_a_certificate_of_our_own_nobody_gets_in_yet(self) -> None:
        here = endpoint("server")
        assert isinstance(here.contexts, FakeContexts)
        here.contexts.shown = None
        with logged() as lines:
            async with listening(at=here) as site:
                with pytest.raises(DialError) as failure:
                    await connect(site)
                assert failure.value.unreachable
                await until(lambda: site.listener.connections == 0)
                here.contexts.shown = credentials("server")
                assert await works(site)
        assert [line["reason"] for line in lines if line["event"] == "link.refused"] == ["unready"]


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


@on_uvloop
class TestHubPort:
    """Who accepts TCP is the TLS client: the port of a zone server for its hubs."""

    @pytest.mark.parametrize("link_class", list(LinkClass))
    async def test_the_acceptor_says_what_class_the_link_is(self, link_class: LinkClass) -> None:
        async with listening(
            "zone-server", server_side=False, classify=lambda _remote: link_class
        ) as site:
            channel = await connect(site, "hub", link_class=None, server_side=True)
            assert channel.link_class is link_class
            other = await site.first()
            assert other.link_class is link_class
            if link_class is LinkClass.MEMBER:
                assert isinstance(await channel.request(Ping(id=1, sender=bytes(16))), Pong)
            else:
                assert isinstance(await other.request(ASK), LedgerEntries)

    async def test_a_hub_of_another_deployment_is_refused_in_the_handshake(self) -> None:
        with logged() as lines:
            async with listening(
                "zone-server", server_side=False, classify=lambda _remote: LinkClass.MEMBER
            ) as site:
                intruder = endpoint("hub", authority=foreign_root)
                with pytest.raises(DialError) as failure:
                    await connect(site, at=intruder, link_class=None, server_side=True)
                assert failure.value.code is CloseCode.UNTRUSTED
                assert not site.opened
        (theirs,) = [
            line
            for line in lines
            if line["event"] == "link.refused" and line["kind"] == "zone-server port"
        ]
        assert len(str(theirs["fingerprint"])) == 64

    async def test_a_hub_that_the_zone_server_does_not_want_hears_it_from_dial(self) -> None:
        """The TLS server is done first here: only the question tells (`dialer`)."""
        async with listening(
            "zone-server",
            server_side=False,
            classify=lambda _remote: LinkClass.MEMBER,
            verify=disbelieve(CloseCode.REVOKED),
        ) as site:
            with pytest.raises(DialError) as failure:
                await connect(site, "hub", link_class=None, server_side=True)
            assert failure.value.code is CloseCode.REVOKED


@on_uvloop
class TestEveryPair:
    @pytest.mark.parametrize(
        ("client", "server"),
        [("client", "server"), ("client", "zone-server"), ("client", "client"), ("hub", "server")],
    )
    async def test_members_that_have_a_link_get_one(self, client: str, server: str) -> None:
        async with listening(server) as site:
            channel = await connect(site, client)
            assert isinstance(await channel.request(Ping(id=1, sender=bytes(16))), Pong)

    async def test_members_that_have_none_are_refused_by_their_roles(self) -> None:
        async with listening("server") as site:
            with pytest.raises(DialError) as failure:
                await connect(site, "zone-server")
            assert failure.value.code is CloseCode.WRONG_ROLE


def test_the_tests_use_two_different_roots() -> None:
    assert root().der != foreign_root().der
    assert socket.gethostbyname(HOST) == HOST
