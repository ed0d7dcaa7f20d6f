"""One piece of heavy work in each turn of the loop, so that nothing light waits for many.

A handshake or a signature takes half a millisecond. When hundreds of clients come at once, all
that has arrived would be done in one turn, and the ping of a client that has long been there
waits until the last. Here heavy work stands in line, in the order in which it came: a turn of
the loop does one piece of it, then everything that is light, and looks at the sockets again.
Alone, nothing waits: the first piece in a turn is done at once.

The line needs no bound of its own: a connection is read no further while its piece waits, and
connections are bounded (`admission`).
"""

import asyncio
from collections import deque
from collections.abc import Callable

__all__ = ["Turns"]


class Turns:
    """The line of one event loop. Not safe for use by several threads."""

    __slots__ = ("_line", "_taken")

    def __init__(self) -> None:
        self._line: deque[Callable[[], None]] = deque()
        self._taken = False

    def __len__(self) -> int:
        """Pieces that wait."""
        return len(self._line)

    def run(self, work: Callable[[], None]) -> bool:
        """Do this now, or in a later turn; True if it is done on return."""
        if self._taken:
            self._line.append(work)
            return False
        self._do(work)
        return True

    async def wait(self) -> None:
        """Return when it is the caller's turn."""
        if not self._taken:
            self._do(lambda: None)
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(lambda: None if mine.done() else mine.set_result(None))
        await mine

    def _do(self, work: Callable[[], None]) -> None:
        self._taken = True
        try:
            work()
        finally:
            # After the work: whom it has woken goes before the next one.
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._taken = False
        if self._line:
            self._do(self._line.popleft())
