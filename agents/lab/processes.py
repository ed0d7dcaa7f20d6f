"""The lab's processes: forked from one that has done the imports, started and stopped by name.

    lab ──────────────► nursery ──fork──► server, hub, zone server, client-01 ...
     │  SOCK_SEQPACKET     (no loop, no thread, never runs a daemon itself)
     │  request + page and socket descriptors
     │  answer: pid            later: pid and how it ended
     └── signals, by pid

1. The nursery is forked before the lab has a loop or a thread, and imports every daemon. A
   child of it begins with warm imports: 64 in 0.6 s instead of 6.
2. It is a session of its own, so that the terminal's interrupt reaches the lab alone, which
   then stops its components in order.
3. When the lab's end of the socket closes, however the lab ended, it kills what it has left.

With `Separate` each component is a fresh interpreter instead: `anchorline lab --exec`.
"""

import asyncio
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from agents.lab.layout import Place
from agents.runtime.errors import AgentError

__all__ = ["Forked", "Nursery", "Process", "Separate", "Spawner"]

MAX_PACKET: Final = 16 * 1024

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
                code = _nurse(theirs, run)
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


def _nurse(sock: socket.socket, run: Run) -> int:
    """Fork children on request and report their ends, until the lab is gone."""
    # Signals only interrupt the read; the handler itself has nothing to do.
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: set[int] = set()
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(wake, select.POLLIN)
    try:
        while True:
            ready = dict(poll.poll())
            if wake in ready:
                with suppress(BlockingIOError):
                    os.read(wake, 4096)
                _report_ended(sock, children)
            if sock.fileno() in ready:
                data, fds, _, _ = socket.recv_fds(sock, MAX_PACKET, 2)
                if not data:
                    return 0
                children.add(_fork(sock, run, json.loads(data), fds, (wake, woken)))
    except (BrokenPipeError, ConnectionError):
        return 0
    finally:
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _fork(
    sock: socket.socket, run: Run, request: dict[str, Any], fds: list[int], pipe: tuple[int, int]
) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sock.close()
            for fd in pipe:
                os.close(fd)
            _redirect(Path(request["output"]))
            page, end = fds
            code = run(request["role"], Path(request["config"]), page, end)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    for fd in fds:
        os.close(fd)
    sock.send(json.dumps({"started": request["number"], "pid": pid}).encode())
    return pid


def _redirect(path: Path) -> None:
    """What a daemon says to people, and a traceback, belong beside its log."""
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)
    os.close(nothing)


def _report_ended(sock: socket.socket, children: set[int]) -> None:
    while children:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        children.discard(pid)
        code = os.waitstatus_to_exitcode(status)
        sock.send(json.dumps({"ended": pid, "code": code}).encode())


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
            if "started" in message:
                self._starting.pop(message["started"]).set_result(message["pid"])
            else:
                self._end(message["ended"], message["code"])

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
