"""The lab's processes: forked from one that has done the imports, started and stopped by name.

    lab ──page and socket──► nursery ──fork──► server, hub, zone server, client-01 ...
     └── signals, by pid

1. The nursery (`nursery`) is forked before the lab has a loop or a thread, imports every daemon
   and never runs one itself: 64 children begin in 0.6 s instead of 6.
2. It is a session of its own, so that the terminal's interrupt reaches the lab alone, which
   then stops its components in order.

With `Separate` each component is a fresh interpreter instead: `anchorline lab --exec`.
"""

import asyncio
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agents.lab.layout import Place
from agents.lab.nursery import MAX_PACKET, nurse
from agents.runtime.errors import AgentError

__all__ = ["Forked", "Nursery", "Process", "Separate", "Spawner"]

Run = Callable[[str, Path, int, int], int]
"""Role, configuration, page, socket -> exit code: `node.run_node`."""


@dataclass(slots=True)
class Process:
    """A component that was started."""

    name: str
    pid: int
    ended: "asyncio.Future[int]" = field(repr=False)
    """Its exit code; negative: the signal that ended it."""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self.ended.done()

    def signal(self, number: int) -> None:
        """Send a signal; one that has ended gets none."""
        if self.running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Spawner(Protocol):
    """Starts components."""

    async def start(self, place: Place, page_fd: int, sock: socket.socket) -> Process:
        """Start a component and hand it page and socket; the caller closes `sock` afterwards."""
        ...

    async def close(self) -> None:
        """End whatever still runs."""
        ...


class Nursery:
    """The process from which components are forked. Made before a loop or a thread exists.

    Args:
        run: what a child does.
        warm: imports what children need.
    """

    def __init__(self, run: Run, warm: Callable[[], None]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                ours.close()
                os.setsid()
                warm()
                nurse(theirs, _child(run))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        theirs.close()
        self.socket = ours

    def close(self) -> None:
        """Let it end, with whatever still runs, and wait for that."""
        self.socket.close()
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _child(run: Run) -> Callable[[Mapping[str, Any], Sequence[int]], int]:
    def live(request: Mapping[str, Any], fds: Sequence[int]) -> int:
        _redirect(Path(request["output"]))
        page, end = fds
        return run(request["role"], Path(request["config"]), page, end)

    return live


def _redirect(path: Path) -> None:
    """What a daemon says to people, and a traceback, belong beside its log."""
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)
    os.close(nothing)


class Forked:
    """Starts components from a nursery."""

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self._socket = nursery.socket
        self._socket.setblocking(False)
        self._number = 0
        self._starting: dict[int, asyncio.Future[int]] = {}
        self._running: dict[int, Process] = {}
        self._early: dict[int, int] = {}
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    async def start(self, place: Place, page_fd: int, sock: socket.socket) -> Process:
        """See `Spawner.start`."""
        self._number += 1
        number = self._number
        loop = asyncio.get_running_loop()
        started = self._starting[number] = loop.create_future()
        request = {
            "number": number,
            "role": place.role,
            "config": str(place.config),
            "output": str(place.folder / "output"),
        }
        socket.send_fds(self._socket, [json.dumps(request).encode()], [page_fd, sock.fileno()])
        process = Process(place.name, await started, loop.create_future())
        self._running[process.pid] = process
        if process.pid in self._early:
            self._end(process.pid, self._early.pop(process.pid))
        return process

    async def close(self) -> None:
        """See `Spawner.close`. The nursery itself is its owner's."""
        for process in list(self._running.values()):
            process.signal(signal.SIGKILL)
            await process.ended
        asyncio.get_running_loop().remove_reader(self._socket)

    def _read(self) -> None:
        while True:
            try:
                data = self._socket.recv(MAX_PACKET)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            if not data:
                self._lost()
                return
            message = json.loads(data)
            if "number" in message:
                self._starting.pop(message["number"]).set_result(message["pid"])
            else:
                self._end(message["pid"], message["code"])

    def _end(self, pid: int, code: int) -> None:
        process = self._running.pop(pid, None)
        if process is None:
            self._early[pid] = code
        else:
            process.ended.set_result(code)

    def _lost(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        for future in self._starting.values():
            future.set_exception(AgentError("the process that forks components has ended"))
        for process in self._running.values():
            process.ended.set_result(-signal.SIGKILL)
        self._starting.clear()
        self._running.clear()


class Separate:
    """Starts each component as an interpreter of its own."""

    def __init__(self) -> None:
        self._children: list[tuple[Process, asyncio.Task[None]]] = []

    async def start(self, place: Place, page_fd: int, sock: socket.socket) -> Process:
        """See `Spawner.start`."""
        with (place.folder / "output").open("ab") as output:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "agents.lab.node"),
                *(place.role, str(place.config), str(page_fd), str(sock.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(page_fd, sock.fileno()),
                start_new_session=True,
            )
        process = Process(place.name, child.pid, asyncio.get_running_loop().create_future())

        async def wait() -> None:
            process.ended.set_result(await child.wait())

        self._children.append((process, asyncio.create_task(wait())))
        return process

    async def close(self) -> None:
        """See `Spawner.close`."""
        for process, task in self._children:
            process.signal(signal.SIGKILL)
            await task
        self._children.clear()
