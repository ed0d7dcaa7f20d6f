"""Bytes and time between a socket and the link machine that thinks.

    socket ──► buffer_updated ──► Link.receive_data ──► events ──► owner
    socket ◄── one write an input, or a turn ◄── Link.data_to_send ◄── send, close
    deadline ──► Link.handle_timeout

Rules:

1. Whatever goes in (bytes, end of stream, time, a close), `_after` follows: deliver the events,
   flush, see to the timer.
2. All that is sent while one input is handled is one TLS write and one system call (`_flush`),
   and so is all else that is sent in one turn of the loop.
3. The deadline is lazy: once set it is moved only to ring sooner, and otherwise finds out when
   it rings that it is early (`handle_timeout` is harmless then). Idle deadlines move
   with every byte; to move one costs more than the byte. All links share a timer (`deadlines`).
4. The end is polite: after our CLOSE the sending side is shut and input is thrown away until
   the peer has closed too, or `LINGER` seconds, or `LINGER_BYTES`. Closing a socket with unread
   input makes the kernel send a reset, which can overtake the CLOSE that says why. A peer that
   has ended it sends nothing more: what we still have is written, and that is all. Whoever ended
   it, it is over after `LINGER` seconds.
5. `write_blocked` is true while the link or the socket holds more than the high-water mark;
   who sends asks first. Nothing is dropped, so the mark is exceeded by one message at most
   for each sender that did.
6. A handshake waits its turn (`turns`): of all that arrive at once, a few steps are done in one.
7. A link is made when TCP stands, not before: its deadlines start there, and who is at the
   other end decides what it is, or that there is none.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol, cast

from agents.runtime.network import Address, Endpoint
from protocol.codes import CloseCode
from protocol.link import Closed, Event, Link, Opened, Received
from protocol.messages import Message
from protocol.states import State

_HANDSHAKE: Final[State] = State.HANDSHAKE  # not looked up at each read

__all__ = ["LINGER", "LINGER_BYTES", "Nobody", "Owner", "Wire"]

LINGER = 2.0
"""Seconds to wait for the peer's end after ours: a few round trips."""

LINGER_BYTES = 1 << 20
"""Bytes thrown away after the end; who sends more is not listening."""


class Owner(Protocol):
    """Who is told what happens on a wire."""

    def link_opened(self, event: Opened) -> None:
        """The link is open. At most once."""
        ...

    def link_received(self, message: Message) -> None:
        """A message came that the peer may send."""
        ...

    def link_closed(self, event: Closed) -> None:
        """The link has ended. Once, and last."""
        ...

    def link_writable(self) -> None:
        """`write_blocked` may have become false."""
        ...


class Nobody:
    """The owner of a wire of which nobody wants to hear, as when its connection is gone."""

    def link_opened(self, event: Opened) -> None:
        """Nothing; there is no input any more."""

    def link_received(self, message: Message) -> None:
        """Nothing."""

    def link_closed(self, event: Closed) -> None:
        """Nothing."""

    def link_writable(self) -> None:
        """Nothing."""


_NOBODY: Final = Nobody()


def address(transport: asyncio.BaseTransport, name: str) -> Address:
    """Where the peer ("peername") or we ("sockname") are; unknown where that is no more."""
    found = transport.get_extra_info(name)
    return (found[0], found[1]) if found else ("", 0)


class Wire(asyncio.BufferedProtocol):
    """Owns one socket and one link. Not safe for use by several threads.

    Args:
        make_link: Makes the machine for a connection, or gives None, and it is dropped.
        endpoint: Has what all wires of a loop share: the clock, the buffer for reads (no other
            wire runs between a read and `buffer_updated`), turns, deadlines, limits.
        owner: Is told; may be replaced at any time.
        lost: Is called once when a connection that was made is gone.
    """

    __slots__ = (
        "_discarded",
        "_due",
        "_ended",
        "_endpoint",
        "_flush_scheduled",
        "_gone",
        "_lingering",
        "_lost",
        "_made",
        "_make_link",
        "_peer_ended",
        "_reading",
        "_socket_full",
        "_tick",
        "_transport",
        "owner",
        "write_blocked",
    )

    def __init__(
        self,
        make_link: Callable[[asyncio.Transport], Link | None],
        *,
        endpoint: Endpoint,
        owner: Owner,
        lost: Callable[[], None],
    ) -> None:
        self.owner = owner
        self._make_link: Callable[[asyncio.Transport], Link | None] | None = make_link
        self._endpoint = endpoint
        self._lost: Callable[[], None] | None = lost
        self._gone: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._made: Link | None = None
        self._tick: int | None = None
        """Where its deadline is kept, if it has one."""
        self._due = 0.0
        """Network time of it."""
        self._flush_scheduled = False
        self._reading = True
        self._socket_full = False
        self.write_blocked = False
        """Whether the peer reads more slowly than we write; see rule 5. To be read."""
        self._ended = False
        self._peer_ended = False
        self._lingering = False
        self._discarded = 0

    @property
    def link(self) -> Link:
        """The machine, for questions; there is one from `connection_made` on."""
        if self._made is None:
            raise RuntimeError("not connected")
        return self._made

    @property
    def local(self) -> Address:
        """Our own address and port; unknown where there is no connection."""
        return ("", 0) if self._transport is None else address(self._transport, "sockname")

    @property
    def gone(self) -> asyncio.Future[None]:
        """Resolved when a connection that was made is no more; do not cancel it."""
        if self._gone is None:  # nobody asks for it of a link at rest
            self._gone = asyncio.get_running_loop().create_future()
            if self._lost is None:
                self._gone.set_result(None)
        return self._gone

    @property
    def ended(self) -> bool:
        """Whether `Closed` was delivered."""
        return self._ended

    def send(self, message: Message) -> None:
        """Have a message written in this turn of the loop.

        Raises:
            LocalProtocolError: This link may not carry it.
        """
        if self._made is None:
            raise RuntimeError("not connected")
        self._made.send(message)
        if self._made.bytes_buffered > self._endpoint.limits.send_high_water:
            self.write_blocked = True
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._scheduled)

    def close(
        self,
        code: CloseCode,
        text: str = "",
        *,
        time: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Say why, and end. Idempotent."""
        if not self._ended and self._made is not None:
            now = self._endpoint.clock.monotonic()
            self._after(self._made.close(code, text, time=time, retry_after=retry_after, now=now))

    def abort(self) -> None:
        """Drop the connection without a word: the peer gets a reset. Idempotent."""
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Read no more until `resume`: the peer's sends fill its own buffers. Idempotent."""
        if self._reading and not self._ended and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again. Idempotent."""
        if not self._reading and self._transport is not None:
            self._reading = True
            if not self._transport.is_closing():
                self._transport.resume_reading()

    # --- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: a TLS client has its first flight ready."""
        # As one (`tcp`), though it does not descend from it.
        stream = cast(asyncio.Transport, transport)
        self._transport = stream
        make_link, self._make_link = self._make_link, None
        assert make_link is not None  # a protocol is connected once
        self._made = make_link(stream)
        if self._made is None:
            self._ended = True
            stream.abort()
            return
        stream.set_write_buffer_limits(high=self._endpoint.limits.send_high_water)
        self._after([])

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes are put."""
        return self._endpoint.scratch

    def buffer_updated(self, nbytes: int) -> None:
        """Feed the link."""
        if self._ended:
            self._discarded += nbytes
            if self._discarded > LINGER_BYTES:
                self.abort()
            return
        link = self._made
        assert link is not None  # nothing is read before there is one
        data = self._endpoint.scratch[:nbytes]
        if link.state is _HANDSHAKE:
            self._handshake(link, bytes(data))
        else:
            # No copy: OpenSSL takes one.
            self._after(link.receive_data(data, self._endpoint.clock.monotonic()))

    def _handshake(self, link: Link, data: bytes) -> None:
        """Take a step of the handshake when it is its turn, and read no further until then."""

        def step() -> None:
            self.resume()
            if not self._ended:
                self._after(link.receive_data(data, self._endpoint.clock.monotonic()))

        if not self._endpoint.turns.run(step):
            self.pause()

    def eof_received(self) -> bool:
        """The peer has ended; there is no half-close over TLS, so have we."""
        if not self._ended:
            self._lingering = True  # there is no end of its to wait for any more
            self._after(self.link.receive_eof(self._endpoint.clock.monotonic()))
            # The transport writes what it has and closes, unless the peer reads nothing.
            self._remind(LINGER)
        return False

    def pause_writing(self) -> None:
        """The socket's buffer is full."""
        self._socket_full = self.write_blocked = True

    def resume_writing(self) -> None:
        """It has emptied."""
        self._socket_full = self.write_blocked = False
        self.owner.link_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone, with or without a word."""
        if self._made is None:
            self._ended = True
        elif not self._ended:
            self._after(self._made.receive_eof(self._endpoint.clock.monotonic()))
        self._forget_deadline()
        lost, self._lost = self._lost, None
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
        if lost is not None:
            lost()
        # Nothing that belongs to this connection waits for the garbage collector: TLS state
        # is tens of KiB, and a storm of short connections would pile them up.
        self.owner, self._transport = _NOBODY, None

    # --- after every input

    def _after(self, events: Sequence[Event]) -> None:
        """Deliver, flush, re-arm: the same after every input."""
        if events:
            # What is sent meanwhile goes with the flush below, and schedules none.
            scheduled, self._flush_scheduled = self._flush_scheduled, True
            try:
                for event in events:
                    if isinstance(event, Received):  # nearly all are
                        self.owner.link_received(event.message)
                    else:
                        self._deliver(event)
            finally:
                self._flush_scheduled = scheduled
        self._flush()
        if self._tick is None and not self._ended:
            self._arm()

    def _deliver(self, event: Opened | Closed) -> None:
        match event:
            case Opened():
                self.owner.link_opened(event)
                self._arm()  # its deadline is another one
            case Closed():
                self._end(event)

    def _end(self, event: Closed) -> None:
        self._ended = True
        self._peer_ended = event.by_peer
        self._forget_deadline()
        self.resume()
        self.owner.link_closed(event)

    def _scheduled(self) -> None:
        self._flush_scheduled = False
        self._flush()

    def _flush(self) -> None:
        transport, link = self._transport, self._made
        if transport is None or link is None or transport.is_closing():
            return
        data = link.data_to_send()
        if data:
            transport.write(data)
        if self._ended and not self._lingering:
            self._lingering = True
            self._remind(LINGER)
            if self._peer_ended:
                transport.close()
            else:
                transport.write_eof()
        elif self.write_blocked and not self._socket_full:
            self.write_blocked = False
            self.owner.link_writable()

    # --- time

    def _arm(self) -> None:
        due = None if self._ended else self.link.next_timeout()
        if due is None or (self._tick is not None and self._due <= due):
            return
        self._due = due
        self._remind(due - self._endpoint.clock.monotonic())

    def ring(self) -> None:
        """Do what is due: of a link, or of one that has ended and still stands."""
        self._tick = None
        if self._ended:
            self.abort()
        else:
            self._after(self.link.handle_timeout(self._endpoint.clock.monotonic()))

    def _remind(self, seconds: float) -> None:
        self._forget_deadline()
        self._tick = self._endpoint.deadlines.add(self, seconds)

    def _forget_deadline(self) -> None:
        if self._tick is not None:
            self._endpoint.deadlines.discard(self, self._tick)
            self._tick = None
