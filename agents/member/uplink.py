"""One component's way to its responder: whatever it takes to stand on a member link.

`connect` climbs: discovery if a strict handshake failed, enrolment if there is no certificate
that would be taken, then the member link. `keep` holds a standing link and re-makes it, new
one first, when trust, credential or link change (*Effect* 2, B9). `visit` runs one exchange over
the standing link, or over a short connection of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from agents.member.approach import Approach
from agents.member.member import Member
from agents.member.requesting import standing_of
from agents.runtime.backoff import Backoff, Pace
from agents.runtime.channel import Channel, Handler
from agents.runtime.dialer import DialError, dial
from agents.runtime.errors import UnavailableError
from agents.runtime.tasks import first_of
from agents.runtime.trouble import Trouble
from pki.certificates import Kind
from pki.names import Role
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.messages import Ping

__all__ = ["Address", "Uplink"]

T = TypeVar("T")
Address = tuple[str, int]
KEEP_ALIVE = 60.0
"""Seconds between two questions on a standing link that is otherwise silent."""
LONGEST_OF_STRANGERS = 60.0
"""Seconds for which one who has proven nothing can make us wait: a minute, as for discovery."""
MAX_STEPS = 6
"""Links tried in a row before backing off; one discovery among them at the most."""


class Uplink:
    """Reaches the responder of one member.

    Args:
        member: who we are.
        addresses: where responders listen, in the order to try.
        roles: what a responder may be.
        handler: answers what the responder asks on our links.
        kind: the certificate that we show.
        local_address: source address of our connections, or None.
    """

    def __init__(
        self,
        member: Member,
        *,
        addresses: Callable[[], Sequence[Address]],
        roles: frozenset[Role],
        handler: Handler,
        kind: Kind,
        local_address: str | None = None,
    ) -> None:
        self._member = member
        self._addresses = addresses
        self._roles = roles
        self._handler = handler
        self._kind = kind
        self._local_address = local_address
        self._approach = Approach()
        self._turn = 0
        self._climbing = asyncio.Lock()
        self._shown: object = None
        """The version of the certificate that the last link was made with, or an older one."""
        self._trouble = Trouble()
        self.link: Channel | None = None
        """The standing link, while there is one."""
        self.opened: Callable[[Channel], Awaitable[None]] | None = None
        """Called with each new standing link, before the one that it replaces is closed."""

    async def connect(self) -> Channel:
        """A new member link.

        Raises:
            PendingError: an administrator has to approve us first.
            UnavailableError: no responder could be reached now.
        """
        # One climb at a time: whoever waits finds the certificate that the first one got.
        async with self._climbing:
            return await self._climb()

    async def _climb(self) -> Channel:
        last: UnavailableError | None = None
        looked = False
        for _ in range(MAX_STEPS):
            tried = self._approach.choose(certified=self._member.certified(self._kind))
            if tried is LinkClass.DISCOVERY:
                if looked:
                    # The ledger did not help: this peer is merely wrong. Another may not be.
                    self._turn += 1
                    break
                looked = True
            try:
                channel = await self._step(tried)
            except DialError as exc:
                following = self._approach.choose(certified=self._member.certified(self._kind))
                if exc.retry_after is not None or following is tried:
                    # The same peer would say the same (unreachable, wrong clock): another may not.
                    self._turn += 1
                    if self._turn % max(len(self._addresses()), 1) == 0:
                        raise
                last = exc
                continue
            except UnavailableError:
                # It was reached, and did not do what it was for: who breaks off as often as he is
                # asked would keep us from the next one for ever.
                self._turn += 1
                raise
            if channel is not None:
                return channel
        raise last or UnavailableError("no responder could be reached")

    async def visit(self, exchange: Callable[[Channel], Awaitable[T]]) -> T:
        """Run one exchange over the standing link, or over a short connection.

        Raises:
            UnavailableError: no link, or it broke.
        """
        if self.link is not None and not self.link.is_closed:
            return await exchange(self.link)
        with self._member.clock.hold():
            channel = await self.connect()
            try:
                return await exchange(channel)
            finally:
                channel.close(CloseCode.NORMAL)

    async def obtain(self, kind: Kind, reason: str) -> None:
        """Get a new certificate of this kind, over whichever link we may have.

        Raises:
            UnavailableError: not now.
        """
        if self.link is not None and not self.link.is_closed:
            await self._enrol(self.link, kind, reason)
        elif (
            self._approach.choose(certified=self._member.certified(self._kind)) is LinkClass.MEMBER
        ):
            await self.visit(lambda channel: self._enrol(channel, kind, reason))
        else:
            # `connect` enrols on its way when there is no certificate to show.
            (await self.connect()).close(CloseCode.NORMAL)

    async def keep(self) -> None:
        """Hold a standing link until cancelled."""
        backoff, pace = Backoff(), Pace()
        try:
            while True:
                try:
                    with self._member.clock.hold():
                        channel = await self.connect()
                        version = self._shown  # not that of before: who had to enrol has a new one
                        await self._stand(channel)
                except UnavailableError as exc:
                    if self._trouble.is_news(exc):
                        self._member.log.warning(
                            "uplink.unavailable", reason=str(exc), hint=exc.hint
                        )
                    await self._member.clock.sleep(backoff.next(exc.retry_after))
                    continue
                backoff.reset()
                self._trouble.over()
                began = self._member.clock.monotonic()
                await self._until_stale(channel, version)
                if channel.is_closed:
                    stood = self._member.clock.monotonic() - began
                    await self._member.clock.sleep(pace.after(stood))
        finally:
            if self.link is not None:
                self.link.close(CloseCode.GOING_AWAY)
                self.link = None

    async def _stand(self, channel: Channel) -> None:
        old, self.link = self.link, channel
        try:
            if self.opened is not None:
                await self.opened(channel)
        finally:
            if old is not None:
                await old.retire(CloseCode.SUPERSEDED)

    async def _until_stale(self, channel: Channel, version: object) -> None:
        await first_of(
            channel.closed(),
            self._member.changed_from(self._kind, version),
            self._keep_alive(channel),
        )

    async def _keep_alive(self, channel: Channel) -> None:
        """Ask now and then whether the responder is there; returns when it is not."""
        while True:
            await self._member.clock.sleep(KEEP_ALIVE)
            try:
                await channel.request(Ping(id=0, sender=self._member.id), hold=False)
            except UnavailableError:
                channel.close(CloseCode.IDLE_TIMEOUT)
                return

    async def _step(self, tried: LinkClass) -> Channel | None:
        """Try one link: a member link is returned, what the others are for is done."""
        try:
            channel = await self._dial(tried)
        except DialError as exc:
            self._approach.failed(tried, exc.code, by_peer=exc.by_peer)
            if tried is LinkClass.DISCOVERY and exc.retry_after is not None:
                exc.retry_after = min(exc.retry_after, LONGEST_OF_STRANGERS)
            raise
        if tried is LinkClass.MEMBER:
            return channel
        try:
            if tried is LinkClass.DISCOVERY:
                await self._member.following.catch_up(channel)
            else:
                await self._enrol(channel, self._kind, "enrolment")
        finally:
            if tried is LinkClass.DISCOVERY:
                self._approach.discovered()
            channel.close(CloseCode.NORMAL)
        return None

    async def _dial(self, link_class: LinkClass) -> Channel:
        addresses = self._addresses()
        if not addresses:
            raise UnavailableError("no server is configured")
        host, port = addresses[self._turn % len(addresses)]
        self._shown = self._member.version(self._kind)
        return await dial(
            host,
            port,
            endpoint=self._member.endpoint,
            link_class=link_class,
            verify=self._member.verifier(roles=self._roles),
            handler=self._handler,
            local_address=self._local_address,
        )

    async def _enrol(self, channel: Channel, kind: Kind, reason: str) -> None:
        await self._member.enrol(channel, kind, standing_of(channel), reason=reason)
        self._approach.enrolled()
