"""The open links of a component, and the end of those that trust no longer covers (*Effect* 2).

    a link whose own chain ends at a root that is no longer trusted,
    or shows a key that is denied                                        closed at once
    any other link that was made under an older state of trust           closed after a minute
    a link that was made to us while we showed another certificate       made again at once

Only the side that dialled can make a link again, and it does not see that our certificate is
another; so we end the link, once nothing is under way on it, and are dialled again.

The minute is for the side that dialled: it hears of the change too, and makes a new link before
it gives up the old one. It is network time, and each link's own.
"""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from agents.member.trust import Trust
from agents.runtime.channel import Channel
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.link import Closed

if TYPE_CHECKING:
    from agents.member.member import Member

__all__ = ["REMAKE_WITHIN", "Links"]

REMAKE_WITHIN = 60.0
"""Seconds after which a link that was not re-made is closed."""


SETTLED = 1.0
"""Seconds after our certificate changed: what belongs together has been renewed by then."""


class Links:
    """Every open link of one component."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._links: dict[asyncio.Future[Closed], tuple[Channel, int, bool]] = {}
        """By how each will end: the link, the trust it was made under, whether it came to us."""
        self._ending: set[asyncio.Future[None]] = set()

    def __iter__(self) -> Iterator[Channel]:
        return iter([channel for channel, _, _ in self._links.values()])

    def __len__(self) -> int:
        return len(self._links)

    def add(self, channel: Channel) -> None:
        """Watch over this link until it ends; at once, if trust changed while it was made."""
        self._watch_over(channel, accepted=False)

    def accept(self, channel: Channel) -> None:
        """Watch over a link that a peer has made to us."""
        self._watch_over(channel, accepted=True)

    def _watch_over(self, channel: Channel, *, accepted: bool) -> None:
        self._links[channel.on_closed] = channel, self._trust.revision, accepted
        channel.on_closed.add_done_callback(self._end)
        self._close_if_uncovered(channel)

    def _end(self, closed: asyncio.Future[Closed]) -> None:
        channel, _, _ = self._links.pop(closed)
        # Only until its last words are read: a link that is gone is nobody's.
        if not channel.on_gone.done():
            self._ending.add(channel.on_gone)
            channel.on_gone.add_done_callback(self._ending.discard)

    def of(self, id: bytes) -> list[Channel]:
        """The links to one component."""
        return [c for c in self if c.peer is not None and c.peer.name.id == id]

    def find(self, role: str) -> list[Channel]:
        """The member links to components of a role."""
        return [
            channel
            for channel in self
            if channel.link_class is LinkClass.MEMBER
            and channel.peer is not None
            and channel.peer.name.role == role
        ]

    async def close(self) -> None:
        """End every link, and wait until the peers may have read why; for the end of a program."""
        channels = list(self)
        for channel in channels:
            channel.close(CloseCode.GOING_AWAY)
        for gone in {*self._ending, *(channel.on_gone for channel in channels)}:
            await asyncio.shield(gone)

    async def watch(self) -> None:
        """Close what trust no longer covers, until cancelled."""
        revision = self._trust.revision
        while True:
            revision = await self._trust.changed(revision)
            self._close_uncovered()
            self._spare_the_rest(revision)

    async def follow(self, member: "Member") -> None:
        """Have links that were made to us made again when our certificate changes."""
        version = member.version(member.kind)
        while True:
            await member.changed_from(member.kind, version)
            before, version = version, member.version(member.kind)
            if before[1] != version[1]:
                old = self._accepted_members()
                await member.clock.sleep(SETTLED)
                for channel in old:
                    renewed = channel.retire(CloseCode.TRUST_CHANGED, "our certificate was renewed")
                    member.tasks.spawn(renewed, hold=False)

    def _accepted_members(self) -> list[Channel]:
        return [
            channel
            for channel, _, accepted in self._links.values()
            if accepted and channel.link_class is LinkClass.MEMBER
        ]

    def _close_uncovered(self) -> None:
        for channel in self:
            self._close_if_uncovered(channel)

    def _close_if_uncovered(self, channel: Channel) -> None:
        peer = channel.peer
        if peer is None:
            return
        denied = self._trust.denied
        shown_denied = peer.leaf.key_id in denied or peer.ca in denied
        if shown_denied or peer.root not in self._trust.trusted:
            channel.close(CloseCode.REVOKED, "the chain of this link is no longer trusted")

    def _spare_the_rest(self, revision: int) -> None:
        old = [channel for channel, made, _ in self._links.values() if made < revision]
        if old:
            asyncio.get_running_loop().call_later(REMAKE_WITHIN, self._close_old, old)

    @staticmethod
    def _close_old(old: list[Channel]) -> None:
        for channel in old:
            channel.close(CloseCode.TRUST_CHANGED, "this link was made under an older trust")
