"""Renewing certificates for ever, without anybody's help.

`pki.rotation.next_step` decides: wait until a date, or obtain now. This room waits and obtains,
one task a kind. Between two attempts it waits for a *policy* date too, so that a component that
cannot reach its issuer does not hold up a clock that is stepped; and any change of trust or of
policy is looked at without waiting. So is a clock that was set back (`look_again`): what was
computed while it was ahead would last for as long as it was ahead.

After a rotation every certificate under an older root is renewed, at a time drawn once from the
component's id and the new root within the spread that the responder announced (B13).
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from hashlib import sha256

from agents.member.keyring import Keyring
from agents.member.trust import Trust
from agents.runtime.clock import Clock, look_again
from agents.runtime.errors import UnavailableError
from agents.runtime.logs import Logger
from agents.runtime.tasks import first_of
from agents.runtime.trace import tracing
from agents.runtime.trouble import Trouble
from pki import rotation
from pki.certificates import Kind
from pki.keys import KeyId
from pki.rotation import Held, Obtain, Policy, Wait

__all__ = ["Renewal"]

FIRST_RETRY = timedelta(seconds=2)
LAST_RETRY = timedelta(minutes=10)


class Renewal:
    """Keeps one credential of a kind in date and under the newest root.

    Args:
        obtain: gets and activates a new certificate; raises UnavailableError.
        policy: the validity and window in force.
        spread: seconds over which renewals after a rotation are spread, at this moment.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        keyring: Keyring,
        trust: Trust,
        clock: Clock,
        log: Logger,
        obtain: Callable[[Kind, str], Awaitable[None]],
        policy: Callable[[], Policy],
        spread: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.kind = kind
        self._keyring = keyring
        self._trust = trust
        self._clock = clock
        self._log = log
        self._obtain = obtain
        self._policy = policy
        self._spread = spread
        self._poked = asyncio.Event()
        self._trouble = Trouble()
        self._asked = False
        self._root_seen: KeyId | None = None
        self._not_before: datetime | None = None
        self._drawn = timedelta()
        self.next_at: datetime | None = None
        """When the next renewal is due, for status."""

    def poke(self, *, renew: bool = False) -> None:
        """Look again now: trust or policy changed, or a renewal is asked for."""
        self._asked |= renew
        self._poked.set()

    async def run(self) -> None:
        """Renew until cancelled."""
        delay = FIRST_RETRY
        while True:
            self._poked.clear()
            step = self._step()
            if isinstance(step, Wait):
                delay = FIRST_RETRY
                self.next_at = step.until
                await self._until(step.until)
                continue
            if await self._attempt(step):
                delay = FIRST_RETRY
                continue
            await self._until(self._clock.now() + delay)
            # What changed before that was a reason to try again, and none to wait longer after:
            # a hub that comes and goes a dozen times would cost ten minutes.
            if not self._poked.is_set():
                delay = min(delay * 2, LAST_RETRY)

    async def follow(self) -> None:
        """Look again whenever trust changes, until cancelled."""
        revision = self._trust.revision
        while True:
            revision = await self._trust.changed(revision)
            self.poke()

    def _step(self) -> Wait | Obtain:
        if self._asked:
            return Obtain("asked")
        return rotation.next_step(
            self._held(),
            policy=self._policy(),
            now=self._clock.now(),
            newest_root=self._trust.newest_root,
            holder_id=self._keyring.id,
            not_before=self._draw(),
        )

    async def _attempt(self, step: Obtain) -> bool:
        """One try; True if the credential is now as it should be."""
        try:
            cause = self._trust.cause if step.reason == "older root" else ""
            with self._clock.hold(), tracing(cause):
                await self._obtain(self.kind, step.reason)
        except UnavailableError as exc:
            if self._trouble.is_news(exc):
                self._log.warning(
                    "key.renewal_failed", kind=self.kind.value, reason=str(exc), hint=exc.hint
                )
            return False
        self._trouble.over()
        self._asked = False
        held = self._held()
        # The issuer's own CA may still be under an older root: it is asked again, not at once.
        return held is not None and held.root == self._trust.newest_root

    async def _until(self, date: datetime) -> None:
        await first_of(look_again(self._clock, date), self._poked.wait())

    def _held(self) -> Held | None:
        credential = self._keyring.credential(self.kind)
        if credential is None:
            return None
        leaf = credential.leaf
        return Held(self.kind, leaf.not_before, leaf.not_after, leaf.serial, credential.root)

    def _draw(self) -> datetime | None:
        """The date of the renewal after a rotation, drawn once a newest root."""
        newest = self._trust.newest_root
        if newest != self._root_seen:
            first = self._root_seen is None
            self._root_seen = newest
            share = int.from_bytes(sha256(self._keyring.id + newest).digest()[:8]) / 2**64
            self._drawn = timedelta(seconds=share * self._spread())
            self._not_before = None if first else self._clock.now() + self._drawn
        if self._not_before is not None:
            # Drawn while the clock was ahead: its distance counts, not its date.
            self._not_before = min(self._not_before, self._clock.now() + self._drawn)
        return self._not_before
