"""An event loop whose time a test moves: for what is timed by the loop itself."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

from tests.support.clock import settle

__all__ = ["SteppedLoop", "stepped"]


class SteppedLoop(asyncio.SelectorEventLoop):
    """Its time is the machine's, and what was passed by hand."""

    _ahead = 0.0

    def time(self) -> float:
        return super().time() + self._ahead

    async def pass_time(self, seconds: float) -> None:
        """Have so many seconds pass at once, and let everybody run who is due."""
        self._ahead += seconds
        await settle()


def stepped(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on such a loop, which is its last argument."""

    @functools.wraps(test)
    def run(*args: object) -> None:
        loop = SteppedLoop()
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(test(*args, loop))

    run.__dict__.pop("__wrapped__")  # pytest would ask for a fixture called loop
    return run
