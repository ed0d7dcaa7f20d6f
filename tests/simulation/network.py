"""A network in memory: TCP as programs see it, with everything that it can do to them.

A connection is two `End`s. Each is what asyncio calls a transport, and calls its protocol as
asyncio does: bytes in order, back-pressure both ways, an end of the stream, a loss. Between two
connections there is no order: each has a delay of its own.

    cut        nothing arrives, and nobody is told; what was sent arrives after the heal, as TCP
               sends it again. A reset that meets a cut is lost: the other end is half open.
    reset      a connection ends at both sides, whatever was under way
    off        a host without power: who sends there hears nothing
    killed     a host whose program is gone: who sends there hears a reset
    bent       who dials one host from another reaches a third
"""

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import Any, cast

from tests.simulation.chance import Random, drawn
from tests.simulation.loop import SimLoop

__all__ = ["Address", "End", "Listening", "Network", "Weather"]

Address = tuple[str, int]
Factory = Callable[[], asyncio.BaseProtocol]

KERNEL = 64 * 1024
"""Bytes of one direction that the kernels of both sides hold before a writer feels it."""
SYN_RETRY = 1.0
"""Seconds after which a connection that met silence is tried again."""


class Sign(Enum):
    """What travels beside bytes."""

    END = "the end of the stream"
    RESET = "a reset"


@dataclass
class Weather:
    """How connections fare at this moment."""

    slow: float = 1.0
    """Factor of every delay."""
    loss: float = 0.0
    """Share of writes that end in a reset."""
    pieces: float = 0.05
    """Share of writes that arrive in two pieces."""


@dataclass(eq=False)
class Host:
    """What an address has."""

    on: bool = True
    ports: dict[int, "Listening"] = field(default_factory=dict)


class _Name:
    """What a listening socket can be asked."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def getsockname(self) -> Address:
        return self._address


class Listening:
    """A port that is listened on; of what asyncio's servers can, the product uses this much."""

    def __init__(self, network: "Network", owner: object, address: Address, make: Factory) -> None:
        self.owner = owner
        self.make = make
        self.context = copy_context()
        self.sockets = (_Name(address),)
        self._network = network
        self._address = address

    def close(self) -> None:
        """Accept nothing more."""
        ports = self._network.host(self._address[0]).ports
        if ports.get(self._address[1]) is self:
            del ports[self._address[1]]


class Network:
    """All hosts, and what is between them.

    Each side of a connection draws its delays and losses by itself, so that the order in which
    two of them are used decides nothing.

    Args:
        seed: of what is drawn.
        owner: says who asks: connections and ports are his, and go with him.
        source: address of who asks.
    """

    def __init__(
        self,
        loop: SimLoop,
        seed: int,
        *,
        owner: Callable[[], object],
        source: Callable[[], str],
    ) -> None:
        self.weather = Weather()
        self.loop = loop
        self.opened = 0
        """Connections made so far."""
        self._seed = seed
        self._chance = drawn(seed, "network")
        self._owner = owner
        self._source = source
        self._hosts: dict[str, Host] = {}
        self._cuts: set[frozenset[str]] = set()
        self._bends: dict[tuple[str, str], str] = {}
        self._ends: dict[End, None] = {}
        self._dials = 0
        self._port = count(40_000)

    def host(self, address: str) -> Host:
        """What an address has."""
        return self._hosts.setdefault(address, Host())

    # --- asked by programs

    def listen(self, make: Factory, host: str, port: int) -> Listening:
        """Listen on a port of the caller's host."""
        ports = self.host(host).ports
        port = port or next(self._port)
        if port in ports:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        ports[port] = Listening(self, self._owner(), (host, port), make)
        return ports[port]

    async def connect(
        self, make: Factory, host: str, port: int, local: Address | None
    ) -> tuple["End", asyncio.BaseProtocol]:
        """Connect; silence is tried again until the caller gives up."""
        source = local[0] if local else self._source()
        owner = self._owner()
        self._dials += 1
        chance = drawn(self._seed, f"connection {self._dials}")
        while True:
            target = self._bends.get((source, host), host)
            delay = chance.uniform(0.0005, 0.03) * self.weather.slow
            await asyncio.sleep(2 * delay)
            if self.host(target).on and not self.is_cut(source, target):
                break
            await asyncio.sleep(SYN_RETRY)
        listening = self.host(target).ports.get(port)
        if listening is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        here, there = (source, next(self._port)), (host, port)
        way, back = (source, target), (target, source)
        ours = End(self, owner, here, there, way, delay, copy_context(), chance)
        context, other = listening.context.copy(), Random(chance.random())
        theirs = End(self, listening.owner, there, here, back, delay, context, other)
        ours.peer, theirs.peer = theirs, ours
        self._ends[ours] = self._ends[theirs] = None
        self.opened += 1
        protocol = make()
        ours.begin(protocol)
        self.loop.call_soon(self._accept, listening, theirs, context=theirs.context)
        await asyncio.sleep(0)
        return ours, protocol

    def _accept(self, listening: Listening, end: "End") -> None:
        if not end.lost:
            end.begin(listening.make())

    # --- what befalls it

    def is_cut(self, one: str, other: str) -> bool:
        """Whether nothing passes between two addresses."""
        return frozenset((one, other)) in self._cuts

    def cut(self, one: str, other: str) -> None:
        """Let nothing pass between two addresses until the heal."""
        self._cuts.add(frozenset((one, other)))

    def heal(self, one: str | None = None) -> None:
        """Let everything pass again, of one address or of all."""
        self._cuts = {cut for cut in self._cuts if one is not None and one not in cut}
        for end in list(self._ends):
            end.go_on()

    def bend(self, source: str, towards: str, reaches: str) -> None:
        """Lead whoever dials `towards` from `source` somewhere else."""
        self._bends[source, towards] = reaches

    def straighten(self, source: str | None = None) -> None:
        """Lead everybody where he wants to go."""
        self._bends = {
            way: reaches
            for way, reaches in self._bends.items()
            if source is not None and way[0] != source
        }

    @property
    def bent_from(self) -> set[str]:
        """The addresses from which somebody is led astray."""
        return {source for source, _ in self._bends}

    def sever(self, address: str) -> None:
        """Reset every connection of an address."""
        for end in list(self._ends):
            if end.touches(address):
                end.break_off()

    def reset(self, share: float) -> int:
        """Reset a share of the connections that stand; returns how many."""
        standing = [end for end in self._ends if not end.lost]
        chosen = [end for end in standing if self._chance.random() < share]
        for end in chosen:
            end.break_off()
        return len(chosen)

    def kill(self, owner: object, *, silent: bool) -> None:
        """End everything of a program that is no more, which is told nothing of it."""
        for host in self._hosts.values():
            host.ports = {p: one for p, one in host.ports.items() if one.owner is not owner}
        for end in [end for end in self._ends if end.owner is owner]:
            end.vanish(silent=silent)

    # --- between ends

    def forget(self, end: "End") -> None:
        """It is lost."""
        self._ends.pop(end, None)

    def loses(self, chance: Random) -> bool:
        """Whether this write is the last of its connection."""
        loss = self.weather.loss
        return loss > 0 and chance.random() < loss

    def delays(self, data: bytes, delay: float, chance: Random) -> Iterator[tuple[bytes, float]]:
        """The pieces in which bytes arrive, each with its delay."""
        slow = self.weather.slow
        if len(data) > 1 and chance.random() < self.weather.pieces:
            place = int(len(data) * chance.uniform(0.0, 1.0)) or 1
            yield data[:place], delay * slow
            data = data[place:]
        yield data, delay * slow * chance.uniform(1.0, 1.5)


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
        network: Network,
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
        self._network = network
        self._loop = network.loop
        self._place, self._reaches = way
        self._delay = delay
        self._protocol: asyncio.BaseProtocol | None = None
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
        self._soon(protocol.connection_made, self)
        self._soon(self._feed)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast(asyncio.BaseProtocol, self._protocol)

    def is_closing(self) -> bool:
        return self._closing or self.lost

    def is_reading(self) -> bool:
        return self._reading and not self.is_closing()

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._soon(self._feed)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 64 * 1024 if high is None else high

    def get_write_buffer_size(self) -> int:
        return max(self._unread - KERNEL, 0)

    def can_write_eof(self) -> bool:
        return True

    def write(self, data: Any) -> None:  # noqa: ANN401 - any kind of bytes
        if self.lost or self._closing or self._ended or not data:
            return
        if self._network.loses(self._chance):
            self.break_off()
            return
        for piece, delay in self._network.delays(bytes(data), self._delay, self._chance):
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
        if not self.lost:
            self.lost = True
            self._network.forget(self)
            if not silent:
                self._send(Sign.RESET, self._delay)

    def touches(self, address: str) -> bool:
        """Whether this side is at that address."""
        return self._place == address

    def go_on(self) -> None:
        """What waits at a cut moves on, if that was healed."""
        if self._out and not self._moving:
            self._arm()

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
        if self._network.is_cut(self._place, self._reaches):
            # TCP sends bytes again, and a reset only once.
            self._out = deque(one for one in self._out if one[1] is not Sign.RESET)
            return
        _, item = self._out.popleft()
        self.peer._soon(self.peer._arrive, item)
        if self._out:
            self._arm()

    def _arrive(self, item: bytes | Sign) -> None:
        if self.lost:
            if item is not Sign.RESET and self._network.host(self._place).on and not self.peer.lost:
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
        self.lost = self._closing = True
        self._came.clear()
        self._network.forget(self)
        if self._protocol is not None:
            self._protocol.connection_lost(error)
