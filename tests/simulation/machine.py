"""Machines, and the programs that run on them, are killed, and are started again.

A *program* runs in a context of its own, which everything that it starts inherits: that is how
the world knows whose disk, whose tasks and whose connections these are. Killing it ends all
three at once; what it still tries on its way out reaches nobody.

A machine whose program has ended by itself, well or not, starts it again after a while, as
systemd does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any, TypeVar

from agents.runtime.errors import AgentError
from tests.simulation.clock import SimClock
from tests.simulation.disk import Disk, Killed, Platter
from tests.simulation.loop import SimLoop
from tests.simulation.network import Network

__all__ = ["PORT", "GoneError", "Machine", "Program", "Stop", "current"]

T = TypeVar("T")

PORT = 14172
RESTART = 2.0
"""Seconds after which a program that has ended is started again."""

current: ContextVar["Program | None"] = ContextVar("current", default=None)
"""The program that this task or callback is a part of."""

Note = Callable[[str, str], None]


class GoneError(Exception):
    """The program was killed before it had done what it was asked."""


class Stop:
    """What a daemon has to do with its process, as `agents.runtime.lifecycle.Stop` is."""

    def __init__(self) -> None:
        self.is_ready = asyncio.Event()
        self._asked = asyncio.Event()

    @property
    def requested(self) -> bool:
        """Whether it was asked to stop."""
        return self._asked.is_set()

    def ready(self, status: str = "") -> None:
        """The daemon can be used."""
        self.is_ready.set()

    async def wait(self) -> None:
        """Return when it is asked to stop."""
        await self._asked.wait()

    def request(self, reason: str) -> None:
        """Ask it to stop."""
        self._asked.set()


class Program:
    """One run of a machine's program."""

    def __init__(self, machine: "Machine", number: int) -> None:
        self.machine = machine
        self.number = number
        self.alive = True
        self.stop = Stop()
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.disk = Disk(machine.platter, alive=lambda: self.alive, kill=self.die)
        self.part: Any = None
        """What the daemon is made of, for those who look on."""

    def die(self, how: str) -> None:
        """Be killed, here and now."""
        self.machine.kill(how)


class Machine:
    """A host with a disk, a clock, and a program to run.

    Args:
        main: the program.
        note: takes what is worth a line of the trace: who, and what.
        broken: takes what must never happen.
    """

    def __init__(
        self,
        name: str,
        address: str,
        *,
        folder: Path,
        main: Callable[[Program], Awaitable[None]],
        platter: Platter,
        clock: SimClock,
        loop: SimLoop,
        network: Network,
        note: Note,
        broken: Note,
    ) -> None:
        self.name = name
        self.address = address
        self.folder = folder
        self.platter = platter
        self.clock = clock
        self.program: Program | None = None
        self.runs = 0
        self.port = PORT
        """Where its program listens, as its configuration says."""
        self._main = main
        self._loop = loop
        self._network = network
        self._note = note
        self._broken = broken
        self._wanted = False

    @property
    def part(self) -> Any:  # noqa: ANN401 - a server or a client
        """What the running program is made of, or None."""
        return self.program.part if self.program is not None else None

    def start(self) -> None:
        """Switch on, and start the program. Idempotent."""
        self._wanted = True
        self._network.host(self.address).on = True
        if self.program is None:
            self._run()

    def kill(self, how: str, *, power: bool = False) -> None:
        """End the program at once; it is started again in a while.

        Args:
            how: for the trace.
            power: whether the whole machine goes, so that nobody is told.
        """
        program = self.program
        if program is None:
            return
        self._note(self.name, f"killed {how}")
        self._network.host(self.address).on = not power
        program.alive = False
        if power:
            self.platter.lose_power()
        self._network.kill(program, silent=power)
        self._ended(program)
        for task in list(program.tasks):
            task.cancel()

    async def shut_down(self) -> None:
        """Ask the program to stop, wait for it, and switch off."""
        self._wanted = False
        program = self.program
        if program is not None:
            program.stop.request("shut down")
            for _ in range(300):
                if self.program is not program:
                    break
                await asyncio.sleep(0.1)
            else:
                self._broken(self.name, "does not stop within 30 s of being asked")
                self.kill("as it did not stop")
        self._network.host(self.address).on = False

    async def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run something as a part of the program.

        Raises:
            GoneError: there is no program, or it was killed meanwhile.
        """
        program = self.program
        if program is None:
            raise GoneError(self.name)
        task = self._spawn(program, work())
        await asyncio.wait([task])
        if task.cancelled() or not program.alive:
            raise GoneError(self.name)
        return task.result()

    def _run(self) -> None:
        self.runs += 1
        self.program = Program(self, self.runs)
        self._spawn(self.program, self._live(self.program))

    def _spawn(self, program: Program, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        context = copy_context()
        context.run(current.set, program)
        # The factory of the loop asks whose task it is before it runs.
        return context.run(self._loop.create_task, work)

    async def _live(self, program: Program) -> None:
        try:
            await self._main(program)
        except asyncio.CancelledError:
            if program.alive:
                self._broken(self.name, "was cancelled, and nobody did")
            raise
        except BaseException as exc:  # a process has ended, whatever it was
            self._say_why(program, exc)
        self._ended(program)

    def _say_why(self, program: Program, error: BaseException) -> None:
        for one in _leaves(error):
            if isinstance(one, AgentError):
                self._note(self.name, f"ended: {one}")
            elif program.alive and not isinstance(one, Killed):
                self._broken(self.name, f"ended: {type(one).__name__}: {one}")

    def _ended(self, program: Program) -> None:
        if self.program is not program:
            return
        program.alive = False
        self.program = None
        self._network.kill(program, silent=not self._network.host(self.address).on)
        for task in list(program.tasks):
            task.cancel()
        if self._wanted:
            self._loop.call_later(RESTART, self._again)

    def _again(self) -> None:
        if self._wanted:
            self.start()


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in _leaves(one)]
    return [error]
