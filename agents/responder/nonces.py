"""Nonces for signed requests: each for one identity key, one kind, one use, one minute.

A nonce is remembered, not computed, so it can be spent; what is remembered is bounded, and the
oldest is forgotten first: its owner asks again.

1. A link has `MAX_HELD` of them, so whoever asks for many on one link forgets its own.
2. All links together have `MAX_NONCES`. To push somebody's out between its question and its
   request, a round trip, takes thousands of new links in that time: more than a port takes.

Network time: a minute of patience is not a matter of policy.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable

from agents.runtime.clock import Clock

__all__ = ["LIFETIME", "MAX_HELD", "MAX_NONCES", "Nonces"]

LIFETIME = 60.0
"""Seconds a nonce is good for (*Signed requests* 2)."""
MAX_NONCES = 20_000
"""Nonces outstanding at once; about 5 MiB."""
MAX_HELD = 8
"""Nonces of one link, which asks for one at a time."""


class Nonces:
    """The nonces handed out and not yet spent."""

    def __init__(
        self, clock: Clock, *, random: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._clock = clock
        self._random = random
        self._given: OrderedDict[bytes, tuple[float, bytes, str, str]] = OrderedDict()
        self._held: dict[str, list[bytes]] = {}

    def __len__(self) -> int:
        return len(self._given)

    def give(self, spki: bytes, kind: str, holder: str) -> bytes:
        """A fresh nonce for one request of this identity key, for who asks on the link `holder`."""
        now = self._clock.monotonic()
        while self._given:
            oldest, (until, *_) = next(iter(self._given.items()))
            if until >= now and len(self._given) < MAX_NONCES:
                break
            self._forget(oldest)
        if len(self._held.get(holder, ())) >= MAX_HELD:
            self._forget(self._held[holder][0])
        nonce = self._random(32)
        self._given[nonce] = (now + LIFETIME, spki, kind, holder)
        self._held.setdefault(holder, []).append(nonce)
        return nonce

    def spend(self, nonce: bytes, spki: bytes, kind: str) -> bool:
        """Use a nonce up; False if it was never given to this key for this kind, or is old."""
        if nonce not in self._given:
            return False
        until, owner, asked = self._forget(nonce)
        return until >= self._clock.monotonic() and owner == spki and asked == kind

    def _forget(self, nonce: bytes) -> tuple[float, bytes, str]:
        until, spki, kind, holder = self._given.pop(nonce)
        held = self._held[holder]
        held.remove(nonce)
        if not held:
            del self._held[holder]
        return until, spki, kind
