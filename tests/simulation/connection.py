"""One side of a connection in memory: what asyncio calls a transport.

It calls its protocol as asyncio does: bytes in order, back-pressure both ways, an end of the
stream, a loss.
"""

import asyncio
import errno
from collections import deque
from collections.abc import Callable
from contextvars import Context
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from tests.simulation.chance import Random

if TYPE_CHECKING:
    from tests.simulation.network import Network

__all__ = ["Address", "End", "Sign"]

Address = tuple[str, int]

KERNEL = 64 * 1024
"""Bytes of one direction that the kernels of both sides hold before a writer feels it."""
LONGEST_GAP = 2.0
"""Seconds between two pieces of what was held back: TCP begins slowly after a silence."""
PROTECTED = b"\x17"
"""How a TLS record of application data begins: one changed bit of it is noticed."""


class Sign(Enum):
    """What travels beside bytes."""

    END = "the end of the stream"
    RESET = "a reset"


class End(asyncio.Transport):
    """One side of a connection: the transport of its protocol.

    Args:
        here: what its program believes to be its own address.
        there: the same of the other side.
        way: the addresses of the hosts that it really goes from and to.
        delay: seconds that bytes take.
        context: what its protocol is called in.
        chance: draws its delays.
    """

    def __init__(
        self,
        network: "Network",
        owner: object,
        here: Address,
        there: Address,
        way: tuple[str, str],
        delay: float,
        context: Context,
        chance: Random,
    ) -> None:
        super().__init__({"peername": there, "sockname": here})
        self.peer: End = self
        self.owner = owner
        self.context = context
        self._chance = chance
        self.lost = False
        """Whether this side is no more."""
        self.held = False
        """Whether what goes out here is held back: nothing else of the road is."""
        self.damaged_at: float | None = None
        """When something was written that is to arrive damaged, in a record that is protected."""
        self._network = network
        self._loop = network.loop
        self.place, self._reaches = way
        self._delay = delay
        self._protocol: asyncio.BaseProtocol | None = None
        self._known = False
        # Out: what is under way, in order, with the time of its arrival.
        self._out: deque[tuple[float, bytes | Sign]] = deque()
        self._moving = False
        self._unread = 0
        self._high = 64 * 1024
        self._full = False
        self._ended = False
        # In.
        self._came: deque[bytes | Sign] = deque()
        self._reading = True
        self._closing = False

    # --- what a protocol asks (`asyncio.Transport`)

    def begin(self, protocol: asyncio.BaseProtocol) -> None:
        """Belong to this protocol, and tell it."""
        self._protocol = protocol
        self._soon(self._made)
        self._soon(self._feed)

    def _made(self) -> None:
        self._known = True
        self.get_protocol().connection_made(self)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast(asyncio.BaseProtocol, self._protocol)

    def is_closing(self) -> bool:
        return self._closing or self.lost

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._soon(self._feed)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 64 * 1024 if high is None else high

    def get_write_buffer_size(self) -> int:
        return max(self._unread - KERNEL, 0)

    def write(self, data: Any) -> None:  # noqa: ANN401 - any kind of bytes
        if self.lost or self._closing or self._ended or not data:
            return
        if self._network.loses(self._chance):
            self.break_off()
            return
        arrives = self._network.damages(bytes(data), self._chance)
        if arrives != data and self.damaged_at is None and arrives[:1] == PROTECTED == data[:1]:
            self.damaged_at = self._loop.time()
        if not arrives:
            return
        for piece, delay in self._network.delays(arrives, self._delay, self._chance):
            self._unread += len(piece)
            self._send(piece, delay)
        if self.get_write_buffer_size() > self._high and not self._full:
            self._full = True
            self.get_protocol().pause_writing()

    def write_eof(self) -> None:
        if not self._ended and not self.lost:
            self._ended = True
            self._send(Sign.END, self._delay)

    def close(self) -> None:
        if self._closing or self.lost:
            return
        self._closing = True
        if any(isinstance(item, bytes) for item in self._came):
            self.abort()  # the kernel resets what is closed with unread input
            return
        self.write_eof()
        self._soon(self._lose, None)

    def abort(self) -> None:
        if self.lost:
            return
        self._closing = True
        self.forsake()
        self._send(Sign.RESET, self._delay)
        self._soon(self._lose, None)

    # --- what befalls it

    def break_off(self) -> None:
        """Something between resets both sides."""
        for end in (self, self.peer):
            if not end.lost:
                end._soon(end._lose, ConnectionResetError(errno.ECONNRESET, "reset"))

    def vanish(self, *, silent: bool) -> None:
        """Its program is no more; the kernel says so, unless it is no more either."""
        if silent:
            self.forsake()
        if not self.lost:
            self.lost = True
            if not silent:
                self._send(Sign.RESET, self._delay)
            self._network.forget(self)

    def touches(self, address: str) -> bool:
        """Whether this side is at that address."""
        return self.place == address

    @property
    def is_underway(self) -> bool:
        """Whether something that was said here may still arrive."""
        return any(item is not Sign.RESET for _, item in self._out)

    def go_on(self) -> None:
        """What waits at a cut moves on, if that was healed."""
        if self._out and not self._moving:
            self._arm()

    def let_go(self) -> float:
        """What was held back arrives, a piece now and a piece then; returns when all of it has."""
        self.held = False
        late, self._out = self._out, deque()
        arrives = self._loop.now
        for _, item in late:
            self._out.append((arrives, item))
            arrives += self._chance.uniform(0.0, LONGEST_GAP)
        self.go_on()
        return arrives

    def forsake(self) -> None:
        """Nobody sends again what has met a cut. What is held is on its way, and needs nobody."""
        if not self.held and self._network.is_cut(self.place, self._reaches):
            self._out.clear()

    # --- on the way

    def _soon(self, call: Callable[..., object], *args: object) -> None:
        self._loop.call_soon(call, *args, context=self.context)

    def _send(self, item: bytes | Sign, delay: float) -> None:
        last = self._out[-1][0] if self._out else 0.0
        self._out.append((max(last, self._loop.now + delay), item))
        if not self._moving:
            self._arm()

    def _arm(self) -> None:
        self._moving = True
        self._loop.call_at(self._out[0][0], self._move)

    def _move(self) -> None:
        self._moving = False
        if not self._out:
            return
        if self.held or self._network.is_cut(self.place, self._reaches):
            # TCP sends bytes again, and a reset only once.
            self._out = deque(one for one in self._out if one[1] is not Sign.RESET)
            return
        _, item = self._out.popleft()
        self.peer._soon(self.peer._arrive, item)
        if self._out:
            self._arm()
        elif self.lost:
            self._network.forget(self)

    def _arrive(self, item: bytes | Sign) -> None:
        if self.lost:
            if item is not Sign.RESET and self._network.host(self.place).on and not self.peer.lost:
                self._send(Sign.RESET, self._delay)
        elif item is Sign.RESET:
            self._lose(ConnectionResetError(errno.ECONNRESET, "reset by the peer"))
        else:
            self._came.append(item)
            self._feed()

    def _feed(self) -> None:
        protocol = self._protocol
        while self._came and self._reading and not self.lost and protocol is not None:
            item = self._came.popleft()
            if isinstance(item, bytes):
                self.peer._read(len(item))
                self._give(protocol, item)
            elif not cast(asyncio.Protocol, protocol).eof_received():
                self.close()

    def _give(self, protocol: asyncio.BaseProtocol, data: bytes) -> None:
        """As a selector loop does: into the protocol's own buffer, if it has one."""
        if not isinstance(protocol, asyncio.BufferedProtocol):
            cast(asyncio.Protocol, protocol).data_received(data)
            return
        buffer = memoryview(protocol.get_buffer(len(data))).cast("B")
        taken = data[: len(buffer)]
        buffer[: len(taken)] = taken
        if len(taken) < len(data):
            self._came.appendleft(data[len(taken) :])
            self.peer._unread += len(data) - len(taken)
        protocol.buffer_updated(len(taken))

    def _read(self, size: int) -> None:
        """The other side has read; there is room again."""
        self._unread -= size
        if self._full and self.get_write_buffer_size() <= self._high // 4 and not self.lost:
            self._full = False
            self._soon(self.get_protocol().resume_writing)

    def _lose(self, error: Exception | None) -> None:
        if self.lost:
            return
        if self._protocol is not None and not self._known:
            self._soon(self._lose, error)  # a protocol hears of the end after the beginning
            return
        self.lost = self._closing = True
        self._came.clear()
        self._network.forget(self)
        if self._protocol is not None:
            self._protocol.connection_lost(error)
