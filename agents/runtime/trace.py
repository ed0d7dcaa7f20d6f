"""The thread of a message: one id on every component that it passes.

Whoever starts something draws a trace id; every message that follows from it carries the same
one. While a handler runs, `current_trace` is the trace of the message that it handles, so log
lines and the handler's own requests continue it without anybody passing it on.
"""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final

__all__ = ["current_trace", "new_trace", "tracing"]

current_trace: Final[ContextVar[str]] = ContextVar("current_trace", default="")
"""The trace of what this task works on, or an empty text."""


def new_trace() -> str:
    """Draw a trace id: 16 hexadecimal digits."""
    return os.urandom(8).hex()


@contextlib.contextmanager
def tracing(trace: str = "") -> Iterator[str]:
    """Run a block under `trace`, or under a new one; gives the id."""
    trace = trace or new_trace()
    token = current_trace.set(trace)
    try:
        yield trace
    finally:
        current_trace.reset(token)
