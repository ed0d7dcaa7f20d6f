"""Waits that differ from one component to the next, so that a fleet does not act as one."""

import secrets

__all__ = ["between"]

RESOLUTION = 1 << 32


def between(low: float, high: float) -> float:
    """A number drawn uniformly from [low, high)."""
    return low + (high - low) * (secrets.randbelow(RESOLUTION) / RESOLUTION)
