"""One question a while over each standing link, and none forgotten (B9).

Every ping has a number. It counts as sent when it is first due, and as answered once; if its
link ends before that, it is asked again over the next link to the same neighbour, or over any
other standing link if there is none. So `sent` equals `answered` whenever nothing is under way,
whatever was rotated, revoked or restarted in between; a lost message would show for ever.

A neighbour that takes pings and answers none has `MAX_OPEN` of them and no more. Then its link
is ended, so that it is made again, and the same ones are asked over the new one.

Network time, and no holds: the probes run beside the real work.
"""

from collections.abc import Callable, Mapping

from agents.member.member import Member
from agents.runtime.channel import Channel
from agents.runtime.errors import UnavailableError
from protocol.codes import CloseCode
from protocol.messages import Ping, Pong

__all__ = ["Pings"]

PATIENCE = 5.0
"""Seconds for an answer before the question is asked again."""
MAX_OPEN = 16
"""Pings of one place without an answer, after which its link is ended."""


class Pings:
    """The probes of one client.

    Args:
        links: the standing links by their place: `forward`, `backward`, `responder`.
        interval: seconds between two pings of a link.
    """

    def __init__(
        self,
        member: Member,
        *,
        links: Callable[[], Mapping[str, Channel]],
        interval: float,
    ) -> None:
        self._member = member
        self._links = links
        self._interval = interval
        self._next = 0
        self._open: dict[int, str] = {}
        self._asking: set[int] = set()
        self._asked: dict[str, Channel] = {}
        self.sent = 0
        self.answered = 0

    @property
    def unanswered(self) -> int:
        """Pings that have no answer yet."""
        return len(self._open)

    async def run(self) -> None:
        """Ping until cancelled."""
        while True:
            links = self._links()
            for place, channel in links.items():
                self._add(place, channel)
            self._ask({place: c for place, c in links.items() if c.is_open})
            await self._member.clock.sleep(self._interval)

    def _add(self, place: str, channel: Channel) -> None:
        """One more ping of a place, unless its link answers none."""
        waiting = [number for number, of in self._open.items() if of == place]
        if len(waiting) < MAX_OPEN:
            self._next += 1
            self.sent += 1
            self._open[self._next] = place
        elif self._asked.get(place) is channel and self._asking.isdisjoint(waiting):
            channel.close(CloseCode.IDLE_TIMEOUT, "no ping was answered")
        self._asked[place] = channel

    def _ask(self, links: Mapping[str, Channel]) -> None:
        """Ask every open question that is not being asked, over the link that it is for."""
        for number, place in self._open.items():
            channel = links.get(place) or next(iter(links.values()), None)
            if channel is not None and number not in self._asking:
                self._asking.add(number)
                self._member.tasks.spawn(self._question(number, channel), hold=False)

    async def _question(self, number: int, channel: Channel) -> None:
        ping = Ping(id=number, sender=self._member.id)
        try:
            answer = await channel.request(ping, timeout=PATIENCE, hold=False)
        except UnavailableError:
            return  # still open: asked again over the next link
        finally:
            self._asking.discard(number)
        if isinstance(answer, Pong) and self._open.pop(number, None) is not None:
            self.answered += 1
