"""Clients that stand in a line on loopback, each with the rooms that its links need."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from agents.client.chain import Chain
from agents.client.pings import Pings
from agents.member.answering import pong
from agents.member.following import answer_ledger_get
from agents.member.links import Links
from agents.runtime import logs
from agents.runtime.channel import Channel
from agents.runtime.listener import Listener
from agents.runtime.tasks import Tasks
from pki.certificates import Kind
from pki.names import Role
from protocol.messages import (
    HeadNotice,
    LedgerGet,
    Message,
    Neighbour,
    PeerHello,
    Ping,
    Refused,
    Registered,
)
from tests.support.clock import FakeClock
from tests.support.deployment import RESPONDER, Deployment
from tests.support.responder import HOST

__all__ = ["Stander", "line"]

KIND = Kind.CLIENT_TLS


class Stander:
    """One client of the line."""

    def __init__(self, site: Deployment, clock: FakeClock, *, responder: bytes = RESPONDER) -> None:
        self.site = site
        self.clock = clock
        self.responder = responder
        self.member = site.member(Role.CLIENT, clock=clock)
        self.certify()
        self.links = Links(self.member.trust)
        self.pokes = 0
        self.received: list[Message] = []
        self.gate: asyncio.Event | None = None
        """Pings are answered when it is set, if there is one."""
        self.listener: Listener | None = None
        self.chain = Chain(
            self.member,
            self.links,
            handler=self.handle,
            listen=lambda: (HOST, self.port),
            source=None,
            poke=self.poke,
            responder=lambda: responder,
        )
        self.pings = Pings(self.member, links=self.standing, interval=1.0)
        self.loops = Tasks(clock, logs.get_logger())

    def certify(self) -> None:
        """A new certificate under the newest root."""
        self.site.certify(self.member.keyring, KIND, responder=self.responder)
        self.member.credential_changed()

    def teach(self) -> None:
        """Tell it everything that has happened."""
        self.site.teach(self.member.trust)

    @property
    def id(self) -> bytes:
        return self.member.id

    @property
    def port(self) -> int:
        return 0 if self.listener is None else self.listener.port

    @property
    def neighbour(self) -> Neighbour:
        """Where others find it."""
        return Neighbour(id=self.id, address=HOST, port=self.port)

    def poke(self) -> None:
        self.pokes += 1

    def standing(self) -> Mapping[str, Channel]:
        places = {"forward": self.chain.forward, "backward": self.chain.backward}
        return {place: c for place, c in places.items() if c is not None and c.is_open}

    def put(
        self, forward: "Stander | None", backward: "Stander | None", *, revision: int = 1
    ) -> None:
        """Give it its place."""
        self.chain.put(
            Registered(
                token=b"",
                observed=HOST,
                forward=forward.neighbour if forward else None,
                backward=backward.neighbour if backward else None,
                revision=revision,
            )
        )

    def follows(self, other: "Stander") -> bool:
        """Whether its forward link leads to this one, and both ends have it."""
        return _leads(self.chain.forward, other) and _leads(other.chain.backward, self)

    async def handle(self, channel: Channel, message: Message) -> Message | None:
        """Answer as a client does."""
        self.received.append(message)
        match message:
            case Ping():
                if self.gate is not None:
                    await self.gate.wait()
                return pong(channel, message)
            case HeadNotice():
                return await self.member.following.notice(channel, message)
            case LedgerGet():
                return answer_ledger_get(self.member.trust, message)
            case PeerHello():
                return self.chain.accept(channel, message)
            case _:
                return Refused(reason="unknown")

    async def start(self) -> None:
        """Listen, and take part."""
        self.listener = await Listener.start(
            HOST,
            0,
            endpoint=self.member.endpoint,
            handler=self.handle,
            verify=self.member.verifier(
                roles=frozenset({Role.CLIENT}), client_ca_of=lambda: self.responder
            ),
            on_channel=self.links.add,
        )
        self.loops.spawn(self.chain.run(), hold=False)
        self.loops.spawn(self.links.watch(), hold=False)

    async def stop(self) -> None:
        """Leave with a word."""
        await self.loops.close()
        if self.listener is not None:
            await self.listener.stop()
        await self.member.tasks.close()

    async def die(self) -> None:
        """Leave without a word, as a process that is killed."""
        for channel in self.links:
            channel.abort()
        if self.listener is not None:
            self.listener.close()
        await self.loops.close()
        await self.member.tasks.close()


def _leads(channel: Channel | None, other: Stander) -> bool:
    return (
        channel is not None
        and channel.is_open
        and channel.peer is not None
        and channel.peer.name.id == other.id
    )


@asynccontextmanager
async def line(site: Deployment, clock: FakeClock, count: int) -> AsyncIterator[list[Stander]]:
    """So many clients, one after the other."""
    standers = [Stander(site, clock) for _ in range(count)]
    for stander in standers:
        await stander.start()
    for place, stander in enumerate(standers):
        forward = standers[place + 1] if place + 1 < count else None
        stander.put(forward, standers[place - 1] if place else None)
    try:
        yield standers
    finally:
        for stander in standers:
            await stander.stop()
