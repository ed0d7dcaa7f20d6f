"""Work that a handler leaves behind: it goes on by itself, held, and never dies unheard.

The long-lived loops of a daemon are tasks of its `TaskGroup`, and their failure ends it. What
is started here is short: a relay, a catch-up, a report. Its failure is a log line.
"""

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from contextlib import nullcontext
from typing import Any, Protocol

from agents.runtime.clock import Clock
from agents.runtime.errors import UnavailableError
from agents.runtime.lifecycle import Stop
from agents.runtime.logs import Logger

__all__ = ["Spawn", "Tasks", "first_of", "until_stopped", "within"]


class Spawn(Protocol):
    """Runs a coroutine beside everything else, as `Tasks.spawn` does."""

    def __call__(self, work: Coroutine[Any, Any, None], *, hold: bool = True) -> None:
        """Start it."""


async def until_stopped(stop: Stop, loops: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run a daemon's loops, say that it is ready, and cancel them when it is asked to stop.

    A loop that fails ends the others and the daemon, with its error; one that returns does not.
    """
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(loop) for loop in loops]
        stop.ready()
        await stop.wait()
        for task in running:
            task.cancel()


async def first_of(*work: Awaitable[Any]) -> None:
    """Wait until one of these ends, and end the others; its failure is raised."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def within(seconds: float, event: asyncio.Event) -> bool:
    """Wait for an event, so many seconds of network time at the most; whether it came."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


class Tasks:
    """Runs short work beside the rest, each under a hold of its own."""

    def __init__(self, clock: Clock, log: Logger) -> None:
        self._clock = clock
        self._log = log
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], *, hold: bool = True) -> None:
        """Start it; the hold is taken now, before the caller goes on (clock, rule 3).

        Args:
            work: what is to be done.
            hold: whether policy time waits for it; a probe that never ends must not.
        """
        held = self._clock.hold() if hold else nullcontext()
        held.__enter__()

        def ended(task: asyncio.Task[None]) -> None:
            # Also of a task that was cancelled before it ran.
            work.close()
            held.__exit__(None, None, None)
            self._running.discard(task)

        task = asyncio.get_running_loop().create_task(self._run(work))
        self._running.add(task)
        task.add_done_callback(ended)

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except UnavailableError as exc:
            self._log.info("task.unavailable", reason=str(exc), hint=exc.hint)
        except Exception:
            self._log.exception("task.failed")

    async def close(self) -> None:
        """Cancel what still runs, and wait for its end."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
