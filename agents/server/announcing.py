"""Telling everybody: heads to every standing link, settings to hubs.

An announcement is a request under a hold, so policy time waits until it is answered; who does
not answer is told by its next link or registration. After a rotation the announcement says over
how many seconds the renewals that follow are to be spread (B13): fleet over issuing capacity,
at most a quarter of the shortest window.
"""

from agents.member.links import Links
from agents.member.telling import tell
from agents.responder.enrolment import Enrolment
from agents.responder.registry import Registry
from agents.runtime.channel import Channel
from agents.runtime.tasks import Spawn
from agents.server.settings import Settings as InForce
from pki.names import Role
from protocol.access import LinkClass
from protocol.messages import HeadNotice, Settings

__all__ = ["Announcing"]


class Announcing:
    """Speaks to the links that stand."""

    def __init__(
        self,
        links: Links,
        settings: InForce,
        registry: Registry,
        enrolment: Enrolment,
        spawn: Spawn,
    ) -> None:
        self._links = links
        self._settings = settings
        self._registry = registry
        self._enrolment = enrolment
        self._spawn = spawn
        self._spread = 0.0

    @property
    def spread(self) -> float:
        """Seconds over which renewals after the last rotation are spread."""
        return self._spread

    def head(self, head: bytes) -> None:
        """Announce a HEAD on every member link."""
        notice = HeadNotice(head=head, spread=self._spread)
        members = [c for c in self._links if c.link_class is LinkClass.MEMBER]
        self._spawn(tell(members, notice))

    def rotated(self, head: bytes) -> None:
        """Announce the HEAD of a new root: renewals are to be spread."""
        shortest = min(policy.window for policy in self._settings.policies().values())
        fleet = len(self._registry.rows())
        self._spread = min(fleet / self._enrolment.capacity, shortest.total_seconds() / 4)
        self.head(head)

    def revoked(self, head: bytes) -> None:
        """Announce the HEAD of a revocation: nothing is spread, admission control is the brake."""
        self._spread = 0.0
        self.head(head)

    def settings(self) -> None:
        """Tell every hub the settings in force."""
        self._spawn(tell(self._links.find(Role.HUB), self._message()))

    def greet(self, hub: Channel, head: bytes | None) -> None:
        """Tell a hub that has just come everything that it passes on."""
        self._spawn(self._greet(hub, head))

    async def _greet(self, hub: Channel, head: bytes | None) -> None:
        await tell([hub], self._message())
        if head is not None:
            await tell([hub], HeadNotice(head=head, spread=self._spread))

    def _message(self) -> Settings:
        return Settings(revision=self._settings.revision, values=self._settings.shared())
