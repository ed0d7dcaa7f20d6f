"""Acknowledging until it is taken: of a component that stands on a link and registers nowhere.

A client acknowledges with every registration, so what was not taken is said again by itself. A
hub and a zone server have no such round. What they hold is news when a link is new, when trust
has changed and when a certificate was renewed, and at that moment the responder may have no
server behind it, or may be behind us in the ledger itself. Were it said just then, coverage (B12)
would name somebody who has moved as one who would be left behind, until the next rotation.
"""

import asyncio
from collections.abc import Callable

from agents.member.acknowledgement import Acknowledgement
from agents.member.trust import Trust
from agents.runtime.backoff import Backoff
from agents.runtime.channel import Channel
from agents.runtime.clock import Clock
from agents.runtime.errors import UnavailableError
from agents.runtime.logs import Logger
from agents.runtime.tasks import first_of
from agents.runtime.trouble import Trouble
from protocol.messages import Done, Refused

__all__ = ["Acknowledging"]

SOON = 0.2
"""Seconds in which several changes become one acknowledgement."""


class Acknowledging:
    """Sees to it that the responder has heard what we hold.

    Args:
        acknowledgement: what is to be said, and what was said.
        link: the newest member link to a responder, or None.
    """

    def __init__(
        self,
        acknowledgement: Acknowledgement,
        trust: Trust,
        *,
        link: Callable[[], Channel | None],
        clock: Clock,
        log: Logger,
    ) -> None:
        self._acknowledgement = acknowledgement
        self._trust = trust
        self._link = link
        self._clock = clock
        self._log = log
        self._poked = asyncio.Event()

    def poke(self) -> None:
        """Look again soon: there is a new link, or a new certificate."""
        self._poked.set()

    async def run(self) -> None:
        """Acknowledge until cancelled."""
        backoff, trouble = Backoff(first=1.0, last=60.0), Trouble()
        revision = self._trust.revision
        while True:
            await first_of(self._poked.wait(), self._trust.changed(revision))
            await self._clock.sleep(SOON)
            self._poked.clear()
            revision = self._trust.revision
            try:
                await self._say()
            except UnavailableError as exc:
                if trouble.is_news(exc):
                    self._log.info("acknowledgement.waiting", reason=str(exc))
                # A new link is another try, however long the old one was to be left alone.
                await first_of(self._clock.sleep(backoff.next(exc.retry_after)), self._poked.wait())
                self._poked.set()
            else:
                backoff.reset()
                trouble.over()

    async def _say(self) -> None:
        """Say what is due over the link that stands, if one does.

        Raises:
            UnavailableError: it was not taken, or the link broke.
        """
        while (link := self._link()) is not None and link.peer is not None:
            responder = link.peer.name.id
            if not self._acknowledgement.due(responder):
                return
            match await self._acknowledgement.send(link, responder):
                case Done():
                    continue
                case Refused(reason=reason, text=text, retry_after=retry_after):
                    raise UnavailableError(text or reason, retry_after)
                case answer:
                    raise UnavailableError(f"answered by {type(answer).__name__}")
