"""How long to wait before trying again.

The bound doubles from `first` to `last`; the wait is drawn uniformly from [bound/2, bound], so
that a thousand clients that lost the same server do not come back in the same second, and none
comes back at once. A "retry after" of the peer is a lower bound: it knows its load.
"""

import secrets
from collections.abc import Callable

__all__ = ["MAX_RETRY_AFTER", "Backoff"]

_RESOLUTION = 1 << 32

MAX_RETRY_AFTER = 600.0
"""Seconds. Whoever answers at an address may be nobody we trust, and must not silence us."""


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
