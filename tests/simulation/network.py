"""A network in memory: TCP as programs see it, with everything that it can do to them.

A connection is two `End`s (`connection`). Between two connections there is no order: each has a
delay of its own.

    cut        nothing arrives, and nobody is told; what was sent arrives after the heal, as TCP
               sends it again. A reset that meets a cut is lost: the other end is half open.
    reset      a connection ends at both sides, whatever was under way
    off        a host without power: who sends there hears nothing
    killed     a host whose program is gone: who sends there hears a reset
    held       a connection through which nothing passes, beside others that are well; what was
               said on it arrives later, also if who said it has given it up, or is no more
    bent       who dials one host from another reaches a third
    noise      bytes are flipped, lost or repeated on the way, and no checksum of TCP notices
"""

import asyncio
import errno
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import dataclass, field
from itertools import count

from tests.simulation.chance import Random, drawn
from tests.simulation.connection import Address, End
from tests.simulation.loop import SimLoop

__all__ = ["Listening", "Network", "Weather"]

Factory = Callable[[], asyncio.BaseProtocol]

HEARD = 5.0
"""Seconds in which what has arrived is dealt with."""
SYN_RETRY = 1.0
"""Seconds after which a connection that met silence is tried again."""


@dataclass
class Weather:
    """How connections fare at this moment."""

    slow: float = 1.0
    """Factor of every delay."""
    loss: float = 0.0
    """Share of writes that end in a reset."""
    pieces: float = 0.05
    """Share of writes that arrive in two pieces."""
    noise: float = 0.0
    """Share of writes that arrive damaged."""


@dataclass(eq=False)
class Host:
    """What an address has."""

    on: bool = True
    ports: dict[int, "Listening"] = field(default_factory=dict)


class Listening:
    """A port that is listened on, as `agents.runtime.tcp` wants it."""

    def __init__(self, network: "Network", owner: object, address: Address, make: Factory) -> None:
        self.owner = owner
        self.make = make
        self.context = copy_context()
        self.address = address
        self._network = network

    def close(self) -> None:
        """Accept nothing more."""
        ports = self._network.host(self.address[0]).ports
        if ports.get(self.address[1]) is self:
            del ports[self.address[1]]


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
        self._late: dict[End, None] = {}
        """No more themselves, but what they have said is still under way."""
        self._let_go: dict[str, float] = {}
        """When all has arrived that was held back, by the address that it is from."""
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
        for end in (*self._ends, *self._late):
            end.go_on()
        for end in (*self._ends, *self._late):
            if end.held:
                self._release(end)

    def hold(self, address: str, seconds: float) -> int:
        """Hold back what goes both ways on the connections that an address has; returns how many.

        For so many seconds, or until the heal. Connections that are made meanwhile are well.
        """
        held = [end for end in self._ends if end.touches(address) or end.peer.touches(address)]
        for end in held:
            end.held = True
            self.loop.call_later(seconds, self._release, end)
        return len(held)

    def _release(self, end: End) -> None:
        if end.held:
            last = end.let_go()
            self._let_go[end.place] = max(last, self._let_go.get(end.place, 0.0))

    def is_late(self, address: str) -> bool:
        """Whether something from this address arrives late, or has been heard so just now."""
        return self.loop.now < self._let_go.get(address, float("-inf")) + HEARD

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
        for end in [end for end in (*self._ends, *self._late) if end.owner is owner]:
            end.vanish(silent=silent)

    # --- between ends

    @property
    def ends(self) -> list[End]:
        """All that stand."""
        return list(self._ends)

    def forget(self, end: "End") -> None:
        """It is lost; what it has said may not be."""
        self._ends.pop(end, None)
        if end.is_underway:
            self._late[end] = None
        else:
            self._late.pop(end, None)

    def loses(self, chance: Random) -> bool:
        """Whether this write is the last of its connection."""
        loss = self.weather.loss
        return loss > 0 and chance.random() < loss

    def damages(self, data: bytes, chance: Random) -> bytes:
        """What arrives of a write: most often what was written."""
        noise = self.weather.noise
        if noise == 0 or chance.random() >= noise:
            return data
        # Not `randrange`, of which a length decides how much it draws.
        place = int(len(data) * chance.random())
        some = place + chance.randint(1, 40)
        match chance.randrange(3):
            case 0:
                return (
                    data[:place]
                    + bytes([data[place] ^ 1 << chance.randrange(8)])
                    + data[place + 1 :]
                )
            case 1:
                return data[:place] + data[some:]
            case _:
                return data[:some] + data[place:]

    def delays(self, data: bytes, delay: float, chance: Random) -> Iterator[tuple[bytes, float]]:
        """The pieces in which bytes arrive, each with its delay."""
        slow = self.weather.slow
        if len(data) > 1 and chance.random() < self.weather.pieces:
            place = int(len(data) * chance.uniform(0.0, 1.0)) or 1
            yield data[:place], delay * slow
            data = data[place:]
        yield data, delay * slow * chance.uniform(1.0, 1.5)
