"""The deployment of a lab while it runs: its processes, its time, and means to look at it.

Nothing here knows what a component thinks. What a step of the story claims to have seen comes
from `kernel`, `observer` and `operator`, and a step waits for it with `until`: it looks again
and again, in network time, and gives up aloud.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any, Final

from agents.lab import observer
from agents.lab.kernel import Tables, read_tables
from agents.lab.layout import Layout, Place
from agents.lab.observer import Logs, Shown
from agents.lab.operator import Operator
from agents.lab.page import Page
from agents.lab.processes import Process, Spawner
from agents.lab.time import Conductor
from agents.runtime.clock import Clock
from agents.runtime.errors import AgentError
from pki.bundle import Bundle, open_bundle

__all__ = ["Deployment", "NotObservedError"]

PATIENCE: Final = 60.0
"""Seconds of network time after which a step gives up. What it waits for takes one or two; a
machine that does other things at the same time takes longer."""
LOOK: Final = 0.1
STOP_WITHIN: Final = 20.0

Look = Callable[[], Awaitable[str]]
"""Returns what is still missing, or nothing."""


class NotObservedError(AgentError):
    """What a step of the story claims was not seen."""


class Deployment:
    """The running lab.

    Args:
        layout: where everything is.
        conductor: moves policy time.
        page: on which it moves it.
        spawner: starts processes.
        clock: network time, for patience.
    """

    def __init__(
        self,
        layout: Layout,
        conductor: Conductor,
        page: Page,
        spawner: Spawner,
        clock: Clock,
    ) -> None:
        self.layout = layout
        self.conductor = conductor
        self.operator = Operator(layout.socket)
        self.clock = clock
        self._page = page
        self._spawner = spawner
        self._processes: dict[str, Process] = {}
        self._asked: set[str] = set()
        self._exports = 0

    # --- processes

    async def start(self, *places: Place) -> None:
        """Start components; a failure to start shows when they are waited for."""
        for place in places:
            sock = self.conductor.enlist(place.name)
            try:
                process = await self._spawner.start(place, self._page.fd, sock)
            finally:
                sock.close()
            self._processes[place.name] = process
            self._asked.discard(place.name)

    async def stop(self, *places: Place) -> None:
        """Stop components as a supervisor does; their state stays.

        Raises:
            NotObservedError: one does not end, or ends with an error.
        """
        for place in places:
            self._asked.add(place.name)
            self._processes[place.name].signal(signal.SIGTERM)
        for place in places:
            code = await self._ended(place.name)
            if code != 0:
                raise NotObservedError(f"{place.name} was stopped and ended with code {code}")

    async def kill(self, place: Place) -> None:
        """End a component without a word, as a power cut does."""
        self._asked.add(place.name)
        self._processes[place.name].signal(signal.SIGKILL)
        await self._ended(place.name)

    def freeze(self, place: Place) -> None:
        """Let a process stand still: it has not died, and does nothing."""
        self._processes[place.name].signal(signal.SIGSTOP)

    def thaw(self, place: Place) -> None:
        """Let it go on."""
        self._processes[place.name].signal(signal.SIGCONT)

    async def _ended(self, name: str) -> int:
        try:
            async with asyncio.timeout(STOP_WITHIN):
                return await asyncio.shield(self._processes[name].ended)
        except TimeoutError:
            raise NotObservedError(f"{name} has not ended in {STOP_WITHIN:g} s") from None

    async def stop_all(self) -> dict[str, int]:
        """Stop everything, clients first; returns the exit codes that are not 0."""
        order = [*reversed(self._processes.values())]
        self._asked.update(self._processes)
        for process in order:
            process.signal(signal.SIGTERM)
        codes: dict[str, int] = {}
        for process in order:
            try:
                codes[process.name] = await self._ended(process.name)
            except NotObservedError:
                process.signal(signal.SIGKILL)
                codes[process.name] = -int(signal.SIGKILL)
        return {name: code for name, code in codes.items() if code != 0}

    def runs(self, place: Place) -> bool:
        """Whether a component's process is there."""
        process = self._processes.get(place.name)
        return process is not None and process.running

    def pid(self, place: Place) -> int:
        """The process of a component."""
        return self._processes[place.name].pid

    def fallen(self) -> list[str]:
        """Those that have ended though nobody asked them to, with their exit codes."""
        return [
            f"{name} (code {process.ended.result()})"
            for name, process in self._processes.items()
            if not process.running and name not in self._asked
        ]

    @property
    def running(self) -> list[Place]:
        """The components whose processes are there."""
        return [place for place in self.layout.places if self.runs(place)]

    @property
    def clients(self) -> list[Place]:
        """The clients whose processes are there."""
        return [place for place in self.layout.clients if self.runs(place)]

    # --- looking

    async def until(self, what: str, look: Look, *, within: float = PATIENCE) -> None:
        """Wait until nothing is missing any more.

        Raises:
            NotObservedError: something still is, after `within` seconds; or a component that
                should run has ended.
        """
        end = self.clock.monotonic() + within
        while True:
            try:
                missing = await look()
            except AgentError as exc:
                missing = str(exc)
            except LookupError as exc:  # nothing reported yet
                missing = f"no {exc}"
            if not missing:
                return
            if fallen := self.fallen():
                raise NotObservedError(
                    f"{what}: {', '.join(fallen)} ended; its last words are in {self.layout.root}"
                )
            if self.clock.monotonic() > end:
                standing = self.conductor.standing()
                held = f"; policy time stands: {', '.join(standing)}" if standing else ""
                raise NotObservedError(f"{what}: not in {within:g} s: {missing}{held}")
            await self.clock.sleep(LOOK)

    def tables(self) -> Tables:
        """The kernel's view of all running components."""
        return read_tables(self.pid(place) for place in self.running)

    def status(self, place: Place) -> dict[str, Any]:
        """What a component has last reported."""
        return observer.status(place)

    def key(self, place: Place, kind: str) -> dict[str, Any]:
        """The key of a kind that a component has last reported."""
        return observer.key_row(self.status(place), kind)

    def logs(self) -> Logs:
        """Whatever is logged from now on."""
        return Logs([*self.layout.places, self.layout.newcomer()])

    async def shown(self, place: Place, roots: Iterable[bytes]) -> Shown:
        """What a component shows at its port, verified against these roots only."""
        return await observer.handshake(place.address, place.port, list(roots))

    async def bundle(self) -> Bundle:
        """A fresh init bundle, exported as an operator would: the ledger as it is now."""
        self._exports += 1
        path = self.layout.root / f"export-{self._exports}.dat"
        await self.operator.json("bundle", "export", str(path))
        return open_bundle(path.read_bytes())

    @property
    def now(self) -> datetime:
        """Policy time."""
        return self.conductor.now()
