"""Nonces for signed requests: each for one identity key, one kind, one use, one minute.

A nonce is remembered, not computed, so it can be spent; the table is bounded, and a full one
forgets the oldest first: its owner asks again, and nobody can fill it for longer than a minute.
Network time: a minute of patience is not a matter of policy.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable

from agents.runtime.clock import Clock

__all__ = ["LIFETIME", "MAX_NONCES", "Nonces"]

LIFETIME = 60.0
"""Seconds a nonce is good for (ledger, section 5)."""
MAX_NONCES = 20_000
"""Nonces outstanding at once; about 3 MiB."""


class Nonces:
    """The nonces handed out and not yet spent."""

    def __init__(
        self, clock: Clock, *, random: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._clock = clock
        self._random = random
        self._given: OrderedDict[bytes, tuple[float, bytes, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._given)

    def give(self, spki: bytes, kind: str) -> bytes:
        """A fresh nonce for one request of this identity key."""
        now = self._clock.monotonic()
        while self._given and (
            len(self._given) >= MAX_NONCES or next(iter(self._given.values()))[0] < now
        ):
            self._given.popitem(last=False)
        nonce = self._random(32)
        self._given[nonce] = (now + LIFETIME, spki, kind)
        return nonce

    def spend(self, nonce: bytes, spki: bytes, kind: str) -> bool:
        """Use a nonce up; False if it was never given to this key for this kind, or is old."""
        held = self._given.pop(nonce, None)
        if held is None:
            return False
        until, owner, asked = held
        return until >= self._clock.monotonic() and owner == spki and asked == kind
