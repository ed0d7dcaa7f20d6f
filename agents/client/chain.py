"""Standing in the line: one link to the forward neighbour, one from the backward one (G1).

A client dials its forward neighbour and accepts its backward one. The place in the line comes
with each registration, and nobody else has a word in it: who claims to stand behind us, and is
not whom our plan names, is told to come back in a moment, and we register. If the answer names
it, the next attempt is taken, a registration after the first; if not, it is refused. So any
client of our responder may cost us a registration, and none can cut the line.

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
from agents.runtime.tasks import first_of, within
from pki.certificates import Kind
from pki.names import Role
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.messages import Done, Neighbour, PeerHello, Refused, Registered

__all__ = ["Chain", "Place"]

FAILURES = 2
"""Attempts in a row after which a neighbour counts as lost."""
GRACE = 1.0
"""Seconds in which a backward neighbour that went without a word may come again."""
REST = 0.2
"""Seconds before a forward link that was ended is dialled again."""
CLAIM_AGAIN = 0.25
"""Seconds after which who claims to stand behind us is to come again: we ask meanwhile."""
CLAIM_INTERVAL = 0.5
"""Seconds between two registrations that claims cost us, however many claim."""
MAX_CLAIMS = 16
"""Claims that are remembered; of more, the oldest is forgotten and starts anew."""
WORDLESS = frozenset({CloseCode.LOST, CloseCode.IDLE_TIMEOUT})


class PlaceTakenError(UnavailableError):
    """The neighbour is there, and its plan has another one behind it."""


class NotYetError(UnavailableError):
    """The neighbour is there, and asks the responder whether we are the one behind it."""


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
        self._placed = 0
        self._claims: dict[bytes, int] = {}
        self._claimed_at: float | None = None
        self._early: Channel | None = None
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
        self._placed += 1
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
        self._judge_early()

    def _judge_early(self) -> None:
        """Whoever was taken before there was a plan stays if a plan names it.

        The second plan decides: the first may have been drawn before that one had its place.
        """
        early, planned = self._early, self.place.backward
        if early is None:
            return
        if early is not self.backward or (planned is not None and planned.id == _id(early)):
            self._early = None
        elif self._placed == 1:
            self._poke()
        else:
            self._early = self.backward = None
            self._member.spawn(early.retire(CloseCode.SUPERSEDED))

    def accept(self, channel: Channel, hello: PeerHello) -> Done | Refused:
        """Take the sender as our backward neighbour, if it may be."""
        held = self.backward
        refused = self._refusal(_id(channel))
        if refused is not None:
            return refused
        self.backward = channel
        self._early = None if self._placed else channel
        channel.on_closed.add_done_callback(lambda _: self._backward_ended(channel))
        if held is not None and held is not channel:
            self._member.spawn(held.retire(CloseCode.SUPERSEDED))
        self._linked("backward", channel)
        return Done()

    def _linked(self, side: str, channel: Channel) -> None:
        self._member.log.info("neighbour.linked", side=side, peer=_id(channel), link=channel.id)
        self._member.spawn(self._member.following.greet(channel))

    def _refusal(self, id: bytes) -> Refused | None:
        """What to tell one that is not to stand behind us; None for one that is.

        Before the first answer of the responder there is no plan, and whoever comes is taken.
        """
        planned = self.place.backward
        if not self._placed or (planned is not None and planned.id == id):
            self._claims.pop(id, None)
            return None
        claimed = self._claims.setdefault(id, self._placed)
        if claimed != self._placed:
            del self._claims[id]
            return Refused(reason="place", text="the plan has another neighbour")
        if len(self._claims) > MAX_CLAIMS:
            del self._claims[next(iter(self._claims))]
        now = self._member.clock.monotonic()
        if self._claimed_at is None or now - self._claimed_at >= CLAIM_INTERVAL:
            self._claimed_at = now
            self._poke()
        return Refused(reason="retry", text="asking our responder", retry_after=CLAIM_AGAIN)

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
            self._member.spawn(held.retire(CloseCode.SUPERSEDED))
        self._linked("forward", channel)
        await self._until_stale(channel, version, moved)
        if channel.is_closed and not moved.is_set():
            # It may be going away, or gone: either way the responder hears of it soon.
            self._poke()
            await within(REST, moved)

    def _drop_forward(self) -> None:
        if self.forward is not None:
            self._member.spawn(self.forward.retire(CloseCode.SUPERSEDED))
            self.forward = None

    async def _reach(self, target: Neighbour, moved: asyncio.Event) -> Channel | None:
        """A link to this neighbour; None once the plan has changed."""
        backoff = Backoff(first=0.2, last=30.0)
        while not moved.is_set():
            try:
                return await self._dial(target)
            except UnavailableError as exc:
                self._failed(target, backoff.failures + 1, exc)
                await within(backoff.next(exc.retry_after), moved)
        return None

    def _failed(self, target: Neighbour, failures: int, error: UnavailableError) -> None:
        self._member.log.info(
            "neighbour.unreachable", peer=target.id, failures=failures, reason=str(error)
        )
        if isinstance(error, NotYetError):
            return
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
            if answer.reason == "retry":
                raise NotYetError(f"{channel.name} does not know us yet", CLAIM_AGAIN)
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

    async def _until_stale(self, channel: Channel, version: object, moved: asyncio.Event) -> None:
        await first_of(
            channel.closed(),
            moved.wait(),
            self._member.changed_from(Kind.CLIENT_TLS, version),
        )


def _id(channel: Channel) -> bytes:
    return proven(channel).name.id
