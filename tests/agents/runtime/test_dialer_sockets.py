"""Making links, and being told why there is none."""

import asyncio
import contextlib
import socket

import pytest

from agents.runtime.dialer import dial
from agents.runtime.errors import UnavailableError
from agents.runtime.network import DialError, LinkError
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.messages import HeadNotice, LedgerEntries, LedgerGet, Ping, Pong, Refused
from tests.support.links import (
    HOST,
    POLICY_TIME,
    SLOT,
    FakeContexts,
    RealClock,
    believe,
    connect,
    disbelieve,
    endpoint,
    foreign_root,
    listening,
    on_uvloop,
    until,
)
from tests.support.logs import logged

pytestmark = pytest.mark.sockets


async def refusal(port: int, **options: object) -> DialError:
    given = {"endpoint": endpoint("client"), "link_class": LinkClass.MEMBER, "verify": believe}
    with pytest.raises(DialError) as failure:
        await dial(HOST, port, **{**given, **options})  # type: ignore[arg-type]
    return failure.value


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


async def ends(connection: socket.socket) -> bool:
    """Whether the other side ends the connection; waits for it."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while await loop.sock_recv(connection, 4096):
            pass
    return True


@on_uvloop
class TestUnreachable:
    async def test_nothing_listens(self) -> None:
        error = await refusal(closed_port())
        assert error.unreachable
        assert error.code is None
        assert "nothing listens there" in error.text

    async def test_a_name_that_does_not_exist(self) -> None:
        with pytest.raises(DialError) as failure:
            await dial(
                "does-not-exist.invalid",
                1,
                endpoint=endpoint("client"),
                link_class=LinkClass.MEMBER,
                verify=believe,
            )
        assert failure.value.unreachable

    @pytest.mark.parametrize("host", ["::ffff:127.0.0.1%\u2028", "a" * 300, "x\0y", "."])
    async def test_what_is_no_address_at_all(self, host: str) -> None:
        # A neighbour's address comes from a peer: it costs this dial, and nothing else.
        with pytest.raises(DialError) as failure:
            await dial(
                host, 1, endpoint=endpoint("client"), link_class=LinkClass.MEMBER, verify=believe
            )
        assert failure.value.unreachable

    async def test_a_source_address_of_another_host(self) -> None:
        error = await refusal(closed_port(), local_address="192.0.2.1")
        assert error.unreachable
        assert "cannot use source address 192.0.2.1" in str(error)

    async def test_somebody_accepts_and_is_silent(self) -> None:
        with socket.socket() as silent:
            silent.bind((HOST, 0))
            silent.listen()
            error = await refusal(
                silent.getsockname()[1], endpoint=endpoint("client", handshake_timeout=0.05)
            )
        assert error.unreachable

    async def test_nobody_answers_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def hangs(*_args: object, **_options: object) -> None:
            await asyncio.get_running_loop().create_future()

        monkeypatch.setattr("agents.runtime.dialer.connect", hangs)
        # Our own deadline is a second behind that of the handshake.
        error = await refusal(1, endpoint=endpoint("client", handshake_timeout=-1.0))
        assert error.unreachable
        assert "no answer in time" in str(error)

    async def test_somebody_accepts_and_hangs_up(self) -> None:
        async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        server = await asyncio.start_server(hang_up, HOST, 0)
        error = await refusal(server.sockets[0].getsockname()[1])
        server.close()
        assert error.unreachable

    async def test_something_else_runs_there(self) -> None:
        async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example ESMTP\r\n" * 10)
            writer.close()

        server = await asyncio.start_server(greet, HOST, 0)
        with logged() as lines:
            error = await refusal(server.sockets[0].getsockname()[1])
        server.close()
        assert error.code is CloseCode.PROTOCOL_ERROR
        assert not error.by_peer
        assert [line["event"] for line in lines] == ["link.refused"]


@on_uvloop
class TestUntrusted:
    @pytest.mark.parametrize("link_class", [LinkClass.MEMBER, LinkClass.ENROLMENT])
    async def test_a_server_of_another_deployment_is_refused_by_us(
        self, link_class: LinkClass
    ) -> None:
        impostor = endpoint("server", authority=foreign_root)
        with logged() as lines:
            async with listening(at=impostor) as site:
                error = await refusal(site.port, link_class=link_class)
                assert not site.opened
        assert error.code is CloseCode.UNTRUSTED
        assert not error.by_peer
        mine = [line for line in lines if line["event"] == "link.refused" and not line["by_peer"]]
        assert [line["kind"] for line in mine] == [f"client to {HOST}:{site.port}"]
        assert len(str(mine[0]["fingerprint"])) == 64

    async def test_discovery_talks_to_it_all_the_same(self) -> None:
        impostor = endpoint("server", authority=foreign_root)
        async with listening(at=impostor) as site:
            channel = await connect(site, link_class=LinkClass.DISCOVERY)
            got = await channel.request(LedgerGet(slot=SLOT, n=0, entry_id=bytes(32)))
            assert isinstance(got, LedgerEntries)

    @pytest.mark.parametrize("code", [CloseCode.EXPIRED, CloseCode.CLOCK, CloseCode.REVOKED])
    async def test_a_server_that_we_do_not_want_is_refused_by_us(self, code: CloseCode) -> None:
        async with listening() as site:
            error = await refusal(site.port, verify=disbelieve(code))
            assert (error.code, error.by_peer) == (code, False)
            if site.opened:  # its handshake may have been over before ours
                closed = await site.opened[0].closed()
                assert (closed.code, closed.time) == (code, POLICY_TIME)

    @pytest.mark.req("E7")
    @pytest.mark.parametrize("code", [CloseCode.EXPIRED, CloseCode.CLOCK])
    async def test_a_server_that_does_not_want_us_says_so_with_its_clock(
        self, code: CloseCode
    ) -> None:
        async with listening(verify=disbelieve(code)) as site:
            error = await refusal(site.port)
        assert (error.code, error.by_peer, error.peer_time) == (code, True, POLICY_TIME)

    async def test_retry_after_comes_through(self) -> None:
        async with listening() as site:
            first = await connect(site)
            (await site.first()).close(CloseCode.RETRY_AFTER, retry_after=3.0)
            with pytest.raises(LinkError) as failure:
                await first.request(Ping(id=1, sender=bytes(16)))
            assert failure.value.retry_after == 3.0


@on_uvloop
class TestDialing:
    async def test_policy_time_is_held_until_the_link_is_open(self) -> None:
        here = endpoint("client", handshake_timeout=1000.0)  # not what ends it
        clock = here.clock
        assert isinstance(clock, RealClock)
        with socket.socket() as silent:
            silent.bind((HOST, 0))
            silent.listen()
            silent.setblocking(False)
            loop = asyncio.get_running_loop()
            dialling = asyncio.create_task(
                dial(
                    HOST,
                    silent.getsockname()[1],
                    endpoint=here,
                    link_class=LinkClass.MEMBER,
                    verify=believe,
                )
            )
            accepted, _ = await loop.sock_accept(silent)
            assert await loop.sock_recv(accepted, 1)  # it waits for our handshake
            assert clock.holds == 1
            dialling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dialling
            assert clock.holds == 0
            assert await ends(accepted)
            accepted.close()

    async def test_who_does_not_confirm_is_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def confirm(*_args: object) -> None:
            raise UnavailableError("no answer")

        monkeypatch.setattr("agents.runtime.dialer._confirm", confirm)
        async with listening() as site:
            error = await refusal(site.port)
            assert error.unreachable
            assert (await (await site.first()).closed()).code is CloseCode.HANDSHAKE_TIMEOUT
            await until(lambda: site.listener.connections == 0)

    async def test_who_gives_up_before_it_is_confirmed_leaves_no_connection(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun = asyncio.Event()

        async def confirm(*_args: object) -> None:
            begun.set()
            await asyncio.get_running_loop().create_future()

        monkeypatch.setattr("agents.runtime.dialer._confirm", confirm)
        async with listening() as site:
            dialling = asyncio.create_task(connect(site))
            await begun.wait()
            await until(lambda: site.listener.connections == 1)
            dialling.cancel()
            await until(lambda: site.listener.connections == 0)
            assert dialling.cancelled()

    async def test_who_dials_without_a_handler_refuses_every_request(self) -> None:
        async with listening() as site:
            channel = await dial(
                HOST,
                site.port,
                endpoint=endpoint("client"),
                link_class=LinkClass.MEMBER,
                verify=believe,
            )
            got = await (await site.first()).request(HeadNotice(head=b"head"))
            assert isinstance(got, Refused)
            assert isinstance(await channel.request(Ping(id=1, sender=bytes(16))), Pong)

    async def test_an_open_link_is_one_line_on_each_side(self) -> None:
        with logged() as lines:
            async with listening() as site:
                channel = await connect(site, kind="client-server")
                other = await site.first()
        opened = {str(line["link"]): line for line in lines if line["event"] == "link.opened"}
        assert set(opened) == {channel.id, other.id}
        assert opened[channel.id]["kind"] == "client-server"

    async def test_a_tls_server_without_a_certificate_is_told_so(self) -> None:
        here = endpoint("server")
        assert isinstance(here.contexts, FakeContexts)
        here.contexts.shown = None
        async with listening() as site:
            error = await refusal(site.port, endpoint=here, link_class=None, server_side=True)
        assert "no certificate yet" in str(error)

    @pytest.mark.parametrize(
        ("link_class", "server_side"), [(None, False), (LinkClass.MEMBER, True)]
    )
    async def test_a_tls_client_knows_its_class_and_a_tls_server_does_not(
        self, link_class: LinkClass | None, *, server_side: bool
    ) -> None:
        with pytest.raises(ValueError, match="states the class"):
            await dial(
                HOST,
                1,
                endpoint=endpoint("hub"),
                link_class=link_class,
                verify=believe,
                server_side=server_side,
            )
