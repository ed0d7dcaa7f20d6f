"""Log lines as values.

with logged() as lines:
    ...
assert [line["event"] for line in lines] == ["daemon.started"]
"""

from collections.abc import Iterator
from contextlib import contextmanager

from agents.runtime import logs

__all__ = ["logged"]


@contextmanager
def logged() -> Iterator[list[dict[str, object]]]:
    """Collect what is logged, at every level, as records."""
    lines: list[dict[str, object]] = []
    logs.capture(lines)
    try:
        yield lines
    finally:
        logs.silence()
