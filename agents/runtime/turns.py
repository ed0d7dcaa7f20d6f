"""Two pieces of heavy work in each turn of the loop, so that nothing light waits for many.

A handshake or a signature takes half a millisecond. When hundreds of clients come at once, all
that has arrived would be done in one turn, and the ping of a client that has long been there
waits until the last. Here heavy work stands in line, in the order in which it came: a turn of
the loop does `MOST` pieces of it, then everything that is light, and looks at the sockets again.
Alone, nothing waits: the first pieces in a turn are done at once. (More than one, for what is done
together is cheaper: one commit for several certificates, one look at all sockets.) What is
cheaper still for many turns together, a commit, waits for a `lull`: a turn without heavy work.

The line needs no bound of its own. Of a handshake a connection is read no further while its piece
waits, and connections are bounded (`admission`); requests are counted before they stand here, all
those for a certificate together, others a link (`inbox`).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["MOST", "PATIENCE", "Turns"]

MOST: Final = 2
"""Pieces in a turn: a millisecond."""
PATIENCE: Final = 16
"""Turns that something waits for a lull: up to 20 milliseconds of a loop that is never idle."""


class Turns:
    """The line of one event loop. Not safe for use by several threads."""

    __slots__ = ("_done", "_ends", "_line", "_lulls")

    def __init__(self) -> None:
        self._line: deque[Callable[[], None]] = deque()
        self._done = 0
        """Pieces that this turn has done."""
        self._ends = False
        """Whether the end of this turn is to be seen."""
        self._lulls: list[tuple[int, Callable[[], None]]] = []
        """What waits for a lull, each with the turns that it has left."""

    def __len__(self) -> int:
        """Pieces that wait."""
        return len(self._line)

    def run(self, work: Callable[[], None]) -> bool:
        """Do this now, or in a later turn; True if it is done on return."""
        if not self._take():
            self._line.append(work)
            return False
        work()
        return True

    async def wait(self) -> None:
        """Return when it is the caller's turn."""
        if self._take():
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(lambda: None if mine.done() else mine.set_result(None))
        await mine

    def lull(self, work: Callable[[], None]) -> None:
        """Do this after a turn that had no heavy work, or after `PATIENCE` turns.

        A lull may be this turn; then it is done at its end.
        """
        loop = asyncio.get_running_loop()
        if self._line or self._done:
            self._lulls.append((PATIENCE, work))
            self._see_the_end(loop)
        else:
            loop.call_soon(work)

    def _take(self) -> bool:
        """Take one of this turn's pieces, if there is one left."""
        if self._done >= MOST:
            return False
        self._see_the_end(asyncio.get_running_loop())
        self._done += 1
        return True

    def _see_the_end(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._ends:
            self._ends = True
            loop.call_soon(self._next)

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        self._ends = False
        before, self._done = self._done, 0
        while self._line and self._done < MOST:
            self._done += 1
            try:
                self._line.popleft()()
            except Exception as exc:
                loop.call_exception_handler({"message": "work in line failed", "exception": exc})
        if self._lulls:
            self._look_for_a_lull(loop, busy=bool(before or self._done))
        if self._done or self._lulls:
            self._see_the_end(loop)  # after whom the work has woken

    def _look_for_a_lull(self, loop: asyncio.AbstractEventLoop, *, busy: bool) -> None:
        # `call_soon`: behind those whom the last pieces have woken.
        lulls, self._lulls = self._lulls, []
        for left, work in lulls:
            if left > 1 and busy:
                self._lulls.append((left - 1, work))
            else:
                loop.call_soon(work)
