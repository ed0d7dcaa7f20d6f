"""TCP connections on real sockets: what is read, kept, written and ended."""

import asyncio
import contextlib
import errno
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import cast

import pytest

from agents.runtime import tcp
from agents.runtime.tcp import Stream, connect, listen
from tests.support.links import HOST, RESET, listening, on_uvloop, until
from tests.support.logs import logged

pytestmark = pytest.mark.sockets

BULK = bytes(range(256)) * 64 * 1024
WHERE: ContextVar[str] = ContextVar("WHERE", default="nowhere")


class Talk(asyncio.BufferedProtocol):
    """Keeps what it is told; `trouble` is raised for what comes."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.told: list[str] = []
        self.data = bytearray()
        self.where: set[str] = set()
        self.lost: Exception | None = None
        self._trouble = trouble
        self._room = memoryview(bytearray(4096))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.stream = cast(Stream, transport)
        self.told.append("made")

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self.where.add(WHERE.get())
        if self._trouble is not None:
            raise self._trouble
        self.data += self._room[:nbytes]

    def eof_received(self) -> bool:
        self.told.append("eof")
        return False

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc
        self.told.append("lost")

    @property
    def is_lost(self) -> bool:
        return "lost" in self.told


@asynccontextmanager
async def port(make: Callable[[], Talk] = Talk) -> AsyncIterator[tuple[int, list[Talk]]]:
    """A port, and who was accepted there."""
    accepted: list[Talk] = []

    def take() -> Talk:
        accepted.append(make())
        return accepted[-1]

    at = await listen(take, HOST, 0, backlog=16)
    try:
        yield at.address[1], accepted
    finally:
        at.close()
        for talk in accepted:
            talk.stream.abort()
        await lost(*accepted)


async def pair(at: int, accepted: list[Talk]) -> tuple[Talk, Talk]:
    here = Talk()
    before = len(accepted)
    await connect(lambda: here, HOST, at)
    await until(lambda: len(accepted) > before)
    return here, accepted[-1]


async def lost(*talks: Talk) -> None:
    await until(lambda: all(talk.is_lost for talk in talks))


async def heard(talk: Talk, size: int) -> None:
    await until(lambda: len(talk.data) == size)


async def turns() -> None:
    """Let the loop run: whatever could happen on this machine has happened."""
    for _ in range(20):
        await asyncio.sleep(0)


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[socket.socket] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 32, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(socket.socket())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for sock in taken:
            sock.close()


class TestOnAsyncio:
    """With sockets as asyncio watches them."""

    async def test_what_is_written_arrives_whole(self) -> None:
        async with port() as (at, accepted):
            here, there = await pair(at, accepted)
            here.stream.write(b"hello ")
            here.stream.write(BULK)
            here.stream.write(b" bye")
            await heard(there, len(BULK) + 10)
            assert there.data == b"hello " + BULK + b" bye"
            there.stream.write(b"back")
            await until(lambda: here.data == b"back")
            assert there.stream.get_extra_info("peername") == here.stream.get_extra_info("sockname")
            here.stream.close()
            await lost(here, there)
            assert there.told == ["made", "eof", "lost"]
            assert (here.lost, there.lost) == (None, None)
            assert here.stream.get_extra_info("sockname") is None

    async def test_who_does_not_read_is_kept_for_and_the_writer_is_told(self) -> None:
        async with port() as (at, accepted):
            here, there = await pair(at, accepted)
            there.stream.pause_reading()
            here.stream.set_write_buffer_limits(high=1000)
            here.stream.write(BULK)
            assert here.told == ["made", "pause"]
            assert 1000 < here.stream.get_write_buffer_size() < len(BULK)
            there.stream.resume_reading()
            await heard(there, len(BULK))
            await until(lambda: here.told == ["made", "pause", "resume"])
            assert here.stream.get_write_buffer_size() == 0
            here.stream.write(b"more")
            await until(lambda: there.data.endswith(b"more"))

    async def test_what_comes_during_a_pause_is_read_after_it(self) -> None:
        async with port() as (at, accepted):
            here, there = await pair(at, accepted)
            for count in range(1, 4):
                there.stream.pause_reading()
                here.stream.write(b"x")
                await turns()
                assert len(there.data) == count - 1
                there.stream.resume_reading()
                there.stream.resume_reading()
                await heard(there, count)
            there.stream.pause_reading()
            here.stream.close()
            await turns()
            assert there.told == ["made"]
            there.stream.resume_reading()
            await lost(there)

    async def test_an_end_comes_behind_what_is_kept(self) -> None:
        async with port() as (at, accepted):
            for end in ("write_eof", "close"):
                here, there = await pair(at, accepted)
                there.stream.pause_reading()
                here.stream.write(BULK)
                getattr(here.stream, end)()
                here.stream.write(b"too late")
                assert here.stream.get_write_buffer_size() > 0
                there.stream.resume_reading()
                await lost(there)
                assert there.data == BULK
                here.stream.abort()
                await lost(here)

    async def test_an_abort_waits_for_nothing(self) -> None:
        async with port() as (at, accepted):
            here, there = await pair(at, accepted)
            there.stream.pause_reading()
            here.stream.write(BULK)
            here.stream.close()
            here.stream.abort()
            here.stream.abort()
            assert here.stream.is_closing()
            assert not here.is_lost  # in a later turn
            await lost(here)
            there.stream.resume_reading()
            await lost(there)
            assert len(there.data) < len(BULK)

    async def test_a_reset_is_told_once(self) -> None:
        async with port() as (at, accepted):
            here, there = await pair(at, accepted)
            sock = there.stream._sock
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            there.stream.abort()
            await lost(here)
            assert isinstance(here.lost, ConnectionResetError)
            assert here.told == ["made", "lost"]
            here.stream.write(b"nobody")
            here.stream.write_eof()
            here.stream.close()
            here.stream.abort()
            await turns()
            assert here.told == ["made", "lost"]

    @pytest.mark.parametrize("size", [1, 4096, 100_000])  # of a buffer of 4096
    @pytest.mark.parametrize("paused", [False, True])
    async def test_what_came_before_a_reset_is_read_and_then_it_is_over(
        self, size: int, paused: bool
    ) -> None:
        async with port() as (at, accepted):
            with socket.create_connection((HOST, at)) as peer:
                await until(lambda: bool(accepted))
                here = accepted[0]
                if paused:
                    here.stream.pause_reading()
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                peer.sendall(bytes(size))
            # Both are there before the loop looks.
            if paused:
                await turns()
                here.stream.resume_reading()
            await lost(here)
            assert len(here.data) == size
            assert here.told.count("lost") == 1

    async def test_a_reset_while_both_ways_are_full_is_an_end(self) -> None:
        async with port() as (at, accepted):
            here, there = await pair(at, accepted)
            there.stream.pause_reading()
            here.stream.write(BULK)
            there.stream.write(b"x" * 100)
            sock = there.stream._sock
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            there.stream.abort()
            await lost(here, there)
            assert here.stream.get_write_buffer_size() == 0

    async def test_who_writes_to_one_that_is_gone_is_told(self) -> None:
        async with port() as (at, accepted):
            here, there = await pair(at, accepted)
            here.stream.pause_reading()
            sock = there.stream._sock
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            there.stream.abort()
            await lost(there)
            while not here.stream.is_closing():
                here.stream.write(b"x")
                await asyncio.sleep(0)
            await lost(here)
            assert isinstance(here.lost, OSError)

    async def test_a_protocol_that_fails_ends_its_own_connection(self) -> None:
        said: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, about: said.append(about))
        async with port(lambda: Talk(RuntimeError("a fault"))) as (at, accepted):
            here, there = await pair(at, accepted)
            here.stream.write(b"x")
            await lost(here, there)
            assert [str(about["exception"]) for about in said] == ["a fault"]

    async def test_one_that_fails_at_the_beginning_is_told_its_end(self) -> None:
        said: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, about: said.append(about))

        class Broken(Talk):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                self.stream.write(BULK)  # something is kept, and a writer watched
                raise RuntimeError("a fault")

        async with port(Broken) as (at, accepted):
            here = Talk()
            await connect(lambda: here, HOST, at)
            await until(lambda: bool(accepted))
            await lost(here, accepted[0])
            assert accepted[0].told == ["made", "pause", "lost"]
            broken = Broken()
            await connect(lambda: broken, HOST, at)
            await lost(broken)
            await until(lambda: len(said) == 3)
        assert {str(about["exception"]) for about in said} == {"a fault"}

    async def test_a_connection_that_has_no_protocol_is_closed(self) -> None:
        said: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, about: said.append(about["exception"])
        )

        def broken() -> Talk:
            raise ValueError("a fault")

        at = await listen(broken, HOST, 0, backlog=5)
        before = len(os.listdir("/proc/self/fd"))
        with socket.create_connection(at.address) as peer:
            await until(lambda: bool(said))
            said[0].__traceback__ = None  # its frames keep the connection
            assert len(os.listdir("/proc/self/fd")) == before + 1
            assert peer.recv(1) == b""
        at.close()

    async def test_one_that_does_not_want_to_read_at_first_does_not(self) -> None:
        class Silent(Talk):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                self.stream.pause_reading()

        async with port(Silent) as (at, accepted):
            here, there = await pair(at, accepted)
            here.stream.write(b"x")
            await turns()
            assert not there.data
            there.stream.resume_reading()
            await heard(there, 1)

    async def test_a_family_that_the_kernel_does_not_have_is_passed_over(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = tcp._socket

        def lacking(family: int) -> socket.socket:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "no such family")
            return real(family)

        both = [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (HOST, 0)),
        ]

        async def found(_host: object, at: int, **_options: object) -> list[object]:
            return [(*one[:4], (one[4][0], at, *one[4][2:])) for one in both]

        monkeypatch.setattr(tcp, "_socket", lacking)
        monkeypatch.setattr(tcp, "_addresses", found)
        listening = await listen(Talk, "both.test", 0, backlog=1)
        here = Talk()
        await connect(lambda: here, "both.test", listening.address[1])
        here.stream.close()
        await lost(here)
        listening.close()
        del both[1]
        for attempt in (connect(Talk, "six.test", 1), listen(Talk, "six.test", 0, backlog=1)):
            with pytest.raises(OSError, match="no such family"):
                await attempt

    async def test_a_connection_is_served_in_the_context_that_made_it(self) -> None:
        WHERE.set("listening")
        async with port() as (at, accepted):
            WHERE.set("dialling")
            here, there = await pair(at, accepted)
            WHERE.set("elsewhere")
            for stream in (here.stream, there.stream):
                stream.pause_reading()
            here.stream.write(b"x")
            there.stream.write(b"x")
            await turns()  # both have looked away
            for stream in (here.stream, there.stream):
                stream.resume_reading()
            await until(lambda: bool(here.data and there.data))
            assert (here.where, there.where) == ({"dialling"}, {"listening"})

    async def test_nobody_there(self) -> None:
        async with port() as (at, _):
            pass
        with pytest.raises(ConnectionRefusedError):
            await connect(Talk, HOST, at)
        with pytest.raises(OSError, match=r"source address 203\.0\.113\.1: ") as failure:
            await connect(Talk, HOST, at, local=("203.0.113.1", 0))
        assert failure.value.errno == errno.EADDRNOTAVAIL

    async def test_who_gives_up_while_connecting_leaves_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[socket.socket] = []
        real = tcp._socket

        def noted(family: int) -> socket.socket:
            made.append(real(family))
            return made[-1]

        with contextlib.ExitStack() as stack:
            full = stack.enter_context(socket.create_server((HOST, 0), backlog=0))
            for _ in range(4):  # nobody accepts, and the kernel keeps no more than one or two
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            monkeypatch.setattr(tcp, "_socket", noted)
            dialling = asyncio.ensure_future(connect(Talk, *full.getsockname()))
            await until(lambda: bool(made))  # the name is looked up in a thread
            await turns()
            assert not dialling.done()
            dialling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dialling
        assert [sock.fileno() for sock in made] == [-1]

    async def test_every_address_of_a_name(self) -> None:
        accepted: list[Talk] = []

        def take() -> Talk:
            accepted.append(Talk())
            return accepted[-1]

        at = await listen(take, "localhost", 0, backlog=4)
        here = Talk()
        await connect(lambda: here, *at.address)
        await until(lambda: bool(accepted))
        at.close()
        at.close()
        here.stream.close()
        await lost(here, accepted[0])

    async def test_a_taken_port_leaves_nothing(self) -> None:
        async with port() as (at, _):
            before = len(os.listdir("/proc/self/fd"))
            with pytest.raises(OSError, match="in use"):
                await listen(Talk, HOST, at, backlog=1)
            assert len(os.listdir("/proc/self/fd")) == before

    @pytest.mark.req("E6")
    async def test_without_a_descriptor_left_nobody_is_accepted_for_a_while(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tcp, "PAUSE", 0.05)
        with logged() as lines:
            async with listening(kind="client-server") as site:
                with socket.socket() as knocks:
                    with no_descriptor_left():
                        knocks.connect((HOST, site.port))
                        await until(lambda: "listener.paused" in {one["event"] for one in lines})
                        assert site.listener.connections == 0
                    # The kernel has kept it.
                    await until(lambda: site.listener.connections == 1)
                await until(lambda: site.listener.connections == 0)
        paused = [line for line in lines if line["event"] == "listener.paused"]
        assert paused[0]["kind"] == "client-server"
        assert "LimitNOFILE" in str(paused[0]["remedy"])

    @pytest.mark.req("E6")
    async def test_who_rests_asks_the_kernel_no_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tcp, "PAUSE", 3600.0)
        said: list[OSError] = []
        at = await listen(Talk, HOST, 0, backlog=5, exhausted=said.append)
        with socket.socket() as knocks, no_descriptor_left():
            knocks.connect(at.address)
            await until(lambda: bool(said))
            await turns()
            assert len(said) == 1
        at.close()

    async def test_who_is_closed_while_it_rests_stays_closed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tcp, "PAUSE", 3600.0)
        said: list[OSError] = []
        at = await listen(Talk, HOST, 0, backlog=5, exhausted=said.append)
        assert isinstance(at, tcp.Acceptor)
        with socket.socket() as knocks, no_descriptor_left():
            knocks.connect(at.address)
            await until(lambda: bool(said))
        resting = at._resting
        assert resting is not None
        at.close()
        assert resting.cancelled()


@on_uvloop
class TestOnUvloop(TestOnAsyncio):
    """As daemons run."""
