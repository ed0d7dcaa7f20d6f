"""Standing in the line: one link to the forward neighbour, one from the backward one (G1).

A client dials its forward neighbour and accepts its backward one. The place in the line comes
with each registration, with a revision: of two that claim to be the backward neighbour the one
with the newer plan is believed, and of two with the same plan the later.

    forward    dialled again when the plan, trust or our certificate changes: the new link
               first, then the old one is drained and closed (B9). Two failures in a row, and
               the neighbour is reported lost: the responder plans without it.
    backward   accepted. If it ends without a word and is not made again within a second, we
               knock at the neighbour's door once; if nobody answers, it is reported lost.

A report costs a registration, which brings the new plan: so the two neighbours of a member that
goes are linked within seconds (G5, as far as it is asked for).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from agents.member.answering import proven
from agents.member.links import Links
from agents.member.member import Member
from agents.runtime.backoff import Backoff
from agents.runtime.channel import Channel, Handler
from agents.runtime.dialer import DialError, dial
from agents.runtime.errors import UnavailableError
from pki.certificates import Kind
from pki.names import Role
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.messages import Done, HeadNotice, Neighbour, PeerHello, Refused, Registered

__all__ = ["Chain", "Place"]

FAILURES = 2
"""Attempts in a row after which a neighbour counts as lost."""
GRACE = 1.0
"""Seconds in which a backward neighbour that went without a word may come again."""
REST = 0.2
"""Seconds before a forward link that was ended is dialled again."""
WORDLESS = frozenset({CloseCode.LOST, CloseCode.IDLE_TIMEOUT})


class PlaceTakenError(UnavailableError):
    """The neighbour is there, and has another one behind it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the responder wants us to stand."""

    revision: int = 0
    forward: Neighbour | None = None
    backward: Neighbour | None = None
    leader: bool = True


class Chain:
    """The two peer links of one client.

    Args:
        handler: answers what neighbours ask.
        listen: address and port that we claim to listen on.
        source: source address of our connections, or None.
        poke: has us registered soon.
        responder: id of the responder that our own certificate names.
    """

    def __init__(
        self,
        member: Member,
        links: Links,
        *,
        handler: Handler,
        listen: Callable[[], tuple[str, int]],
        source: str | None,
        poke: Callable[[], None],
        responder: Callable[[], bytes | None],
    ) -> None:
        self._member = member
        self._links = links
        self._handler = handler
        self._listen = listen
        self._source = source
        self._poke = poke
        self._responder = responder
        self._moved = asyncio.Event()
        self._lost: dict[bytes, None] = {}
        self._backward_revision = 0
        self.place = Place()
        self.forward: Channel | None = None
        self.backward: Channel | None = None

    @property
    def peers(self) -> list[Channel]:
        """The peer links that stand."""
        return [c for c in (self.forward, self.backward) if c is not None and c.is_open]

    def take_lost(self) -> list[bytes]:
        """The neighbours found unreachable since this was last asked."""
        lost, self._lost = list(self._lost), {}
        return lost

    def put(self, answer: Registered) -> None:
        """Take the place that a registration gave us."""
        before = self.place
        if answer.revision < self._backward_revision:
            # The responder's word counts; its plans may have begun anew.
            self._backward_revision = 0
        self.place = Place(answer.revision, answer.forward, answer.backward, answer.leader)
        if before.forward != answer.forward:
            self._moved.set()
            self._moved = asyncio.Event()
        if (before.forward, before.backward) != (answer.forward, answer.backward):
            self._member.log.info(
                "chain.placed",
                revision=answer.revision,
                forward=answer.forward.id if answer.forward else None,
                backward=answer.backward.id if answer.backward else None,
                leader=answer.leader,
            )

    def accept(self, channel: Channel, hello: PeerHello) -> Done | Refused:
        """Take the sender as our backward neighbour, if it may be."""
        held = self.backward
        another = held is not None and held.is_open and _id(held) != _id(channel)
        if another and hello.revision < self._backward_revision:
            return Refused(reason="place", text="another neighbour has a newer plan")
        self._backward_revision = hello.revision
        self.backward = channel
        channel.on_closed.add_done_callback(lambda _: self._backward_ended(channel))
        if held is not None and held is not channel:
            self._member.spawn(_replace(held))
        if another:
            self._poke()
        self._member.spawn(self._greet(channel))
        return Done()

    async def run(self) -> None:
        """Keep the link to the forward neighbour, whoever it is, until cancelled."""
        try:
            while True:
                await self._keep_forward()
        finally:
            for channel in self.peers:
                channel.close(CloseCode.GOING_AWAY)

    async def _keep_forward(self) -> None:
        moved, target = self._moved, self.place.forward
        if target is None:
            self._drop_forward()
            await moved.wait()
            return
        version = self._member.version(Kind.CLIENT_TLS)
        channel = await self._reach(target, moved)
        if channel is None:
            return
        held, self.forward = self.forward, channel
        if held is not None:
            self._member.spawn(_replace(held))
        self._member.spawn(self._greet(channel))
        await self._until_stale(channel, version, moved)
        if channel.is_closed and not moved.is_set():
            # It may be going away, or gone: either way the responder hears of it soon.
            self._poke()
            await self._pause(moved, REST)

    def _drop_forward(self) -> None:
        if self.forward is not None:
            self._member.spawn(_replace(self.forward))
            self.forward = None

    async def _reach(self, target: Neighbour, moved: asyncio.Event) -> Channel | None:
        """A link to this neighbour; None once the plan has changed."""
        backoff = Backoff(first=0.2, last=30.0)
        while not moved.is_set():
            try:
                return await self._dial(target)
            except UnavailableError as exc:
                self._failed(target, backoff.failures + 1, exc)
                await self._pause(moved, backoff.next(exc.retry_after))
        return None

    def _failed(self, target: Neighbour, failures: int, error: UnavailableError) -> None:
        self._member.log.info(
            "neighbour.unreachable", peer=target.id, failures=failures, reason=str(error)
        )
        if isinstance(error, PlaceTakenError):
            self._poke()  # it is there, and our plan is old
            return
        unreachable = not isinstance(error, DialError) or error.unreachable
        if failures >= FAILURES and unreachable:
            self._lost[target.id] = None
            self._poke()

    async def _dial(self, target: Neighbour) -> Channel:
        channel = await self._connect(target)
        host, port = self._listen()
        try:
            answer = await channel.request(
                PeerHello(revision=self.place.revision, address=host, port=port)
            )
        except UnavailableError:
            channel.close(CloseCode.GOING_AWAY)
            raise
        if isinstance(answer, Refused):
            channel.close(CloseCode.NORMAL)
            raise PlaceTakenError(f"{channel.name} does not take us: {answer.text}")
        self._links.add(channel)
        return channel

    async def _connect(self, target: Neighbour) -> Channel:
        return await dial(
            target.address,
            target.port,
            endpoint=self._member.endpoint,
            link_class=LinkClass.MEMBER,
            verify=self._member.verifier(
                roles=frozenset({Role.CLIENT}), id=target.id, client_ca_of=self._responder
            ),
            handler=self._handler,
            local_address=self._source,
            kind="client to client",
            expected=f"client {target.id.hex()}",
        )

    def _backward_ended(self, channel: Channel) -> None:
        if channel is self.backward and channel.on_closed.result().code in WORDLESS:
            self._member.spawn(self._knock(channel))

    async def _knock(self, channel: Channel) -> None:
        """A backward neighbour went without a word: is it still there?"""
        await self._member.clock.sleep(GRACE)
        neighbour = self.place.backward
        if channel is not self.backward or neighbour is None or neighbour.id != _id(channel):
            return
        try:
            (await self._connect(neighbour)).close(CloseCode.NORMAL)
        except DialError as exc:
            if exc.unreachable:
                self._lost[neighbour.id] = None
        self._poke()

    async def _greet(self, channel: Channel) -> None:
        """Tell a new neighbour the newest HEAD that we know; it does the same."""
        head = self._member.trust.latest_head()
        if head is not None:
            await channel.request(HeadNotice(head=head, spread=self._member.following.spread))

    async def _until_stale(self, channel: Channel, version: object, moved: asyncio.Event) -> None:
        waiting = [
            asyncio.ensure_future(channel.closed()),
            asyncio.ensure_future(moved.wait()),
            asyncio.ensure_future(self._member.changed_from(Kind.CLIENT_TLS, version)),
        ]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def _pause(self, moved: asyncio.Event, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await moved.wait()
        except TimeoutError:
            return


async def _replace(channel: Channel) -> None:
    """End a link that another has taken the place of, once nothing is under way on it."""
    await channel.drain()
    channel.close(CloseCode.SUPERSEDED)


def _id(channel: Channel) -> bytes:
    return proven(channel).name.id
