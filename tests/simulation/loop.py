"""An event loop without a clock, without sockets and without threads.

Time stands while anything can run, and then leaps to the next timer. What the product asks of a
loop beyond that, connections and listeners, it gets from the simulated network. What it gives to
another thread is done at once, at some later moment, and is heard of another moment later: in
between nobody knows whether it was done.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from tests.simulation.chance import Random, drawn

if TYPE_CHECKING:
    from tests.simulation.network import Network

__all__ = ["SimLoop", "StandstillError"]

LONGEST = 0.01
"""Seconds that a thread may take to begin, and to be heard: a disk that has to do."""

Spawned = Callable[[asyncio.Task[Any]], None]


class StandstillError(Exception):
    """Nothing can run, and no timer is set: the world has ended."""


class _Leap:
    """Stands where a loop has its selector: waiting is over at once, and time has passed."""

    def __init__(self, loop: "SimLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise StandstillError("nothing can run and no timer is set")
        self._loop.now += max(timeout, 0.0)
        return []


class SimLoop(asyncio.BaseEventLoop):
    """Runs one simulated world.

    Args:
        spawned: is told of each new task, in the context that made it.
    """

    def __init__(self, spawned: Spawned = lambda _task: None) -> None:
        super().__init__()
        self.now = 0.0
        """Seconds since the world began."""
        self.network: Network
        """Set by who makes one: connections are made there (`agents.runtime.tcp`)."""
        self.threads: Random = drawn(0, "threads")
        """Draws how long they take."""
        self._selector = _Leap(self)
        self._spawned = spawned
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """Return the seconds since the world began."""
        return self.now

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        context: Context | None = None,
    ) -> asyncio.Future[Any]:
        task = asyncio.Task(cast(Coroutine[Any, Any, Any], coroutine), loop=loop, context=context)
        self._spawned(task)
        return task

    # --- what `BaseEventLoop` asks of the loop that it is a part of

    def _process_events(self, events: list[object]) -> None:
        """Nothing: there are no sockets."""

    def _write_to_self(self) -> None:
        """Nothing: there is no thread to wake it from."""

    # --- what the product asks

    def run_in_executor(  # type: ignore[override] # the product's threads are its own
        self,
        executor: Any,  # noqa: ANN401
        func: Callable[..., Any],
        *args: Any,  # noqa: ANN401
    ) -> asyncio.Future[Any]:
        """Have it done by a thread that is none; the caller's context goes with it."""
        done: asyncio.Future[Any] = self.create_future()
        self.call_later(self.threads.uniform(0.0, LONGEST), self._work, done, func, args)
        return done

    def _work(
        self, done: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        try:
            answer = partial(_settle, done, func(*args), None)
        except BaseException as exc:  # whatever a thread raises is for who waits
            answer = partial(_settle, done, None, exc)
        self.call_later(self.threads.uniform(0.0, LONGEST), answer)


def _settle(done: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
