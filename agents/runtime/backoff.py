"""How long to wait before trying again.

The bound doubles from `first` to `last`; the wait is drawn uniformly from [bound/2, bound], so
that a thousand clients that lost the same server do not come back in the same second, and none
comes back at once. A "retry after" of the peer is a lower bound: it knows its load.

A link that ends was no failure, and is made again at once. One after the other that ends as soon as
it stands is: a peer that is wrong about us, or takes every link for its last, and we would make
links as fast as both can. `Pace` waits then.
"""

import secrets
from collections.abc import Callable

__all__ = ["MAX_RETRY_AFTER", "STEADY", "Backoff", "Pace"]

_RESOLUTION = 1 << 32

MAX_RETRY_AFTER = 600.0
"""Seconds. Whoever answers at an address may be nobody we trust, and must not silence us."""
STEADY = 5.0
"""Seconds after which a link has stood."""


def _uniform() -> float:
    """Draw from [0, 1); the jitter needs no seed, and a seed would be one more setting."""
    return secrets.randbelow(_RESOLUTION) / _RESOLUTION


class Backoff:
    """The waits between attempts. One a peer; not safe for concurrent use.

    Args:
        first: Seconds of the first bound.
        last: Seconds that no bound passes.
        uniform: Draws from [0, 1).
    """

    __slots__ = ("_failures", "_first", "_last", "_uniform")

    def __init__(
        self, first: float = 0.5, last: float = 60.0, *, uniform: Callable[[], float] = _uniform
    ) -> None:
        if not 0 < first <= last:
            raise ValueError(f"first {first} must be above 0 and at most last {last}")
        self._first = first
        self._last = last
        self._uniform = uniform
        self._failures = 0

    @property
    def failures(self) -> int:
        """Attempts that failed since the last success."""
        return self._failures

    def next(self, retry_after: float | None = None) -> float:
        """Count a failure; return the seconds to wait, jittered, and not below `retry_after`.

        A peer is believed for `MAX_RETRY_AFTER` at the most: it need not be who it seems.
        """
        bound = self._last
        if self._failures < 64:  # 2 ** 64 seconds is beyond any `last`, and floats end somewhere
            bound = min(self._first * 2.0**self._failures, self._last)
        self._failures += 1
        wait = bound * (0.5 + self._uniform() / 2)
        return wait if retry_after is None else min(retry_after, MAX_RETRY_AFTER) + wait

    def reset(self) -> None:
        """Count a success: the next failure starts from the first bound."""
        self._failures = 0


class Pace:
    """The waits before a link is made in place of one that has ended. One a peer."""

    __slots__ = ("_backoff", "_brief")

    def __init__(self) -> None:
        self._backoff = Backoff(first=0.5, last=5.0)
        self._brief = 0

    def after(self, stood: float) -> float:
        """Return the seconds to wait after a link that has stood for `stood` seconds.

        None after the first one that was brief: a change of trust or of a certificate ends links.
        """
        if stood >= STEADY:
            self._brief = 0
            self._backoff.reset()
            return 0.0
        self._brief += 1
        return 0.0 if self._brief == 1 else self._backoff.next()
