"""TCP connections that read and write in a callback of the loop each, and have no transport.

    listen ──► Acceptor ──► Stream ──► protocol        connect ──► Stream ──► protocol

A transport of asyncio serves any protocol: it asks for a buffer before each read, keeps what is
written until the turn of the loop ends, and weighs half a KiB more. A link writes once an input by
itself (`wire`), reads into one buffer for all, and there are thousands: `Stream` calls the socket
and nothing else. It is called as asyncio's transports are, and calls its protocol as they do, but
that the peer's end is always the end.

1. One read a callback: a peer that sends without end has its turn, and others have theirs.
2. What the socket does not take is kept, and written when it has room; above the high-water mark
   the protocol is told (`pause_writing`), and again when a quarter of that is left.
3. After `close` what is kept is still written; after `abort` it is not. The socket is closed, and
   the protocol told, in a later turn: never within the protocol's own call.
4. A protocol that raises loses its connection, and no other; the loop reports it.
5. libuv calls a reader once for a socket that has failed, and never again, also where that call
   finds what came before the reset. So what is read without an answer is followed by a look for
   an error (an answer would have met it).
6. A process that has no file descriptor left accepts nobody for `PAUSE` seconds, and says so
   (`exhausted`); who comes waits in the kernel's backlog.

A loop with a network of its own (`Networked`) is asked instead of the sockets of this machine:
that is how a fleet runs in simulated time.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from typing import Any, Final, Protocol, cast, runtime_checkable

__all__ = ["PAUSE", "Acceptor", "Listening", "Networked", "Stream", "connect", "listen"]

PAUSE: Final = 1.0
"""Seconds without accepting where the system has no room for a connection."""
_AT_ONCE: Final = 8
"""Connections accepted in one turn of the loop."""
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""As `socket.getaddrinfo` gives it: the first is the family, the last the address."""

Factory = Callable[[], asyncio.BufferedProtocol]
"""Makes the protocol of a connection."""


class Listening(Protocol):
    """A port that is listened on."""

    @property
    def address(self) -> tuple[str, int]:
        """Where; of several addresses the first."""
        ...

    def close(self) -> None:
        """Accept nothing more. Idempotent."""
        ...


class Network(Protocol):
    """What makes connections; raises `OSError` as sockets do."""

    async def connect(
        self, factory: Factory, host: str, port: int, local: tuple[str, int] | None
    ) -> object:
        """Connect, and begin."""
        ...

    def listen(self, factory: Factory, host: str, port: int) -> Listening:
        """Accept connections, and begin each."""
        ...


@runtime_checkable
class Networked(Protocol):
    """A loop whose connections are not those of this machine."""

    network: Network


async def connect(
    factory: Factory, host: str, port: int, *, local: tuple[str, int] | None = None
) -> None:
    """Connect to the first address of this name that answers.

    Args:
        factory: Makes the protocol, once there is a connection.
        host: Name or address.
        port: TCP port.
        local: Source address and port, for hosts with several.

    Raises:
        OSError: There is no connection.
        ValueError: This is no name.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, Networked):
        await loop.network.connect(factory, host, port, local)
        return
    failure = OSError(errno.EADDRNOTAVAIL, "this name has no address")
    for family, _, _, _, address in await _addresses(host, port):
        try:
            sock = _socket(family)
        except OSError as exc:  # a family that this kernel does not have
            failure = exc
            continue
        try:
            if local is not None:
                _bind(sock, local)
            await loop.sock_connect(sock, address)
        except OSError as exc:
            sock.close()
            failure = exc
        except BaseException:
            sock.close()
            raise
        else:
            Stream(loop, sock, address).begin(factory())
            return
    raise failure


async def listen(
    factory: Factory,
    host: str,
    port: int,
    *,
    backlog: int,
    exhausted: Callable[[OSError], None] = lambda _error: None,
) -> Listening:
    """Listen at every address of this name.

    Args:
        factory: Makes the protocol of each connection.
        host: Name or address; "" for every address of this host.
        port: TCP port; 0 for any that is free.
        backlog: Connections that the kernel keeps until they are accepted.
        exhausted: Called where the system has no room for a connection (6).

    Raises:
        OSError: An address cannot be listened on.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, Networked):
        return loop.network.listen(factory, host, port)
    found = await _addresses(host or None, port, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    failure = OSError(errno.EADDRNOTAVAIL, "this name has no address")
    try:
        for family, address in dict.fromkeys((one[0], one[4]) for one in found):
            try:
                sock = _socket(family)
            except OSError as exc:  # a family that this kernel does not have
                failure = exc
                continue
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(backlog)
        if not sockets:
            raise failure
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return Acceptor(loop, sockets, factory, exhausted)


async def _addresses(host: str | None, port: int, flags: int = 0) -> Sequence[_AddressInfo]:
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)


def _socket(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    # A frame is one write, and waits for no acknowledgement. What is accepted inherits it.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _bind(sock: socket.socket, local: tuple[str, int]) -> None:
    try:
        sock.bind(local)
    except OSError as exc:  # which would read as if the other side's address were wrong
        raise OSError(exc.errno, f"cannot use source address {local[0]}: {exc.strerror}") from exc


class Acceptor:
    """Accepts at a few addresses. Made by `listen`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Sequence[socket.socket],
        factory: Factory,
        exhausted: Callable[[OSError], None],
    ) -> None:
        self._loop = loop
        self._exhausted = exhausted
        self._sockets = list(sockets)
        self._factory = factory
        self._context = copy_context()
        self._resting: asyncio.TimerHandle | None = None
        self.address: tuple[str, int] = sockets[0].getsockname()[:2]
        self._begin()

    def close(self) -> None:
        """See `Listening`."""
        if self._resting is not None:
            self._resting.cancel()
        for sock in self._sockets:
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()

    def _begin(self) -> None:
        self._resting = None
        for sock in self._sockets:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, remote = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                if exc.errno in _EXHAUSTED:
                    self._rest()
                    self._exhausted(exc)
                    return
                continue  # it has gone already
            sock.setblocking(False)
            try:
                protocol = self._factory()
            except Exception as exc:
                sock.close()
                _report(self._loop, exc)
            else:
                Stream(self._loop, sock, remote, self._context).begin(protocol)

    def _rest(self) -> None:
        for sock in self._sockets:
            self._loop.remove_reader(sock.fileno())
        self._resting = self._loop.call_later(PAUSE, self._begin)


class Stream:
    """One TCP connection. Belongs to one event loop.

    Args:
        loop: Which.
        sock: Connected, and non-blocking.
        remote: Address of the peer.
        context: In which the protocol hears what comes and when there is room; the caller's if
            None. Of the end it hears in the context of whoever ended it.
    """

    __slots__ = (
        "_buffer",
        "_closing",
        "_context",
        "_ending",
        "_full",
        "_high",
        "_loop",
        "_protocol",
        "_reading",
        "_remote",
        "_sock",
        "_spoke",
        "_unsent",
        "_watched",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        remote: tuple[object, ...],
        context: Context | None = None,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._remote = remote
        self._context = copy_context() if context is None else context
        self._protocol: asyncio.BufferedProtocol | None = None
        self._buffer = memoryview(b"")
        self._high = 64 * 1024
        self._unsent: bytearray | None = None
        self._full = False
        self._reading = True
        self._spoke = False
        """Whether the socket has taken something since it was last read."""
        self._watched = False
        """Whether the loop says when there is something to read."""
        self._ending = False
        self._closing = False

    def begin(self, protocol: asyncio.BufferedProtocol) -> None:
        """Belong to this protocol, tell it, and read; it has one buffer for all reads."""
        self._protocol = protocol
        try:
            protocol.connection_made(cast(asyncio.Transport, self))
            self._buffer = cast(memoryview, protocol.get_buffer(-1))
        except Exception as exc:
            self._fail(exc)
        if self._reading:
            self._watch()

    # --- as `asyncio.Transport`

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return "peername", or "sockname" while there is a socket."""
        if name == "peername":
            return self._remote
        if name == "sockname":
            with contextlib.suppress(OSError):
                return self._sock.getsockname()
        return default

    def is_closing(self) -> bool:
        """Whether its end has begun."""
        return self._closing

    def set_write_buffer_limits(self, high: int) -> None:
        """Say above how many bytes that are kept the protocol is told."""
        self._high = high

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the socket has not taken yet."""
        return len(self._unsent or b"")

    def pause_reading(self) -> None:
        """Read no more until `resume_reading`. Idempotent."""
        # The loop is told when something comes meanwhile: to tell it takes half a dozen system
        # calls, and a pause is short nearly always (a handshake that waits its turn).
        self._reading = False

    def resume_reading(self) -> None:
        """Read again. Idempotent."""
        if not self._reading and not self._closing:
            self._reading = True
            self._watch()

    def write(self, data: bytes) -> None:
        """Write, as much as the socket takes now, and keep the rest."""
        if self._closing or self._ending:
            return
        if self._unsent is None:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as exc:
                self._break(exc)
                return
            self._spoke = True
            if sent == len(data):
                return
            self._unsent = bytearray(memoryview(data)[sent:])
            self._context.run(self._loop.add_writer, self._sock.fileno(), self._writable)
        else:
            self._unsent += data
        if len(self._unsent) > self._high and not self._full and self._protocol is not None:
            self._full = True
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        """End our side, behind what is kept. Idempotent."""
        if not self._ending and not self._closing:
            self._ending = True
            self._shut()

    def close(self) -> None:
        """Read no more; write what is kept, and end. Idempotent."""
        if not self._closing:
            self._look_away()
            self._closing = True
            if self._unsent is None:
                self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        """End, without what is kept. Idempotent."""
        self._break(None)

    # --- called by the loop

    def _readable(self) -> None:
        protocol = self._protocol
        if protocol is None or not self._reading:
            self._look_away()
            return
        try:
            size = self._sock.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._break(exc)
            return
        try:
            if size:
                self._spoke = False
                protocol.buffer_updated(size)
                if not self._spoke:
                    self._look_for_error()
            else:
                self._look_away()  # else the loop would call for ever
                protocol.eof_received()
                self.close()
        except Exception as exc:
            self._fail(exc)

    def _writable(self) -> None:
        unsent = self._unsent
        if unsent is None:
            return
        try:
            sent = self._sock.send(unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._break(exc)
            return
        del unsent[:sent]
        if not unsent:
            self._keep_nothing()
            if self._closing:
                self._lose(None)
                return
            if self._ending:
                self._shut()
        if self._full and len(unsent) <= self._high // 4 and self._protocol is not None:
            self._full = False
            try:
                self._protocol.resume_writing()
            except Exception as exc:
                self._fail(exc)

    def _look_for_error(self) -> None:
        """Have the loop call again where the connection was reset behind what was read (5)."""
        # To ask takes the error away: what is left to read is followed by an end, as it should.
        if not self._closing and self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            reading = self._reading
            self._look_away()
            if reading:
                self.resume_reading()

    # --- endings

    def _shut(self) -> None:
        if self._unsent is None:
            with contextlib.suppress(OSError):  # the peer has gone already
                self._sock.shutdown(socket.SHUT_WR)

    def _watch(self) -> None:
        if not self._watched:
            self._watched = True
            # Whoever calls this, what is read is read in the context of the connection.
            self._context.run(self._loop.add_reader, self._sock.fileno(), self._readable)

    def _look_away(self) -> None:
        self._reading = False
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._sock.fileno())

    def _keep_nothing(self) -> None:
        if self._unsent is not None:
            self._unsent = None
            self._loop.remove_writer(self._sock.fileno())

    def _break(self, error: Exception | None) -> None:
        """End it now; a connection that was being closed already is broken all the same."""
        if self._protocol is None or (self._closing and self._unsent is None):
            return
        self._look_away()
        self._keep_nothing()
        self._closing = True
        self._loop.call_soon(self._lose, error)

    def _fail(self, error: Exception) -> None:
        _report(self._loop, error)
        self._break(error)

    def _lose(self, error: Exception | None) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            self._sock.close()
            protocol.connection_lost(error)


def _report(loop: asyncio.AbstractEventLoop, error: Exception) -> None:
    loop.call_exception_handler({"message": "a connection has failed", "exception": error})
