"""The program `anchorline` as processes of their own, forked from one with warm imports.

A server's imports take 1.7 s of processor time; a fork takes 10 ms. Everything after the imports
is the real thing: `agents.cli.main.main` with words, two streams and an exit code.

    test ──words, descriptors──► nursery ──fork──► anchorline server run --config ...

The lab's own nursery does the forking, and ends with the test process, however that went.
"""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from agents.lab import nursery

__all__ = ["Nursery", "Process", "nurse", "run"]

PATIENCE: Final = 30.0
"""Seconds after which a test that waits for a process has failed."""

WARM: Final = (
    "agents.cli.approvals",
    "agents.cli.bundle",
    "agents.cli.clients",
    "agents.cli.health",
    "agents.cli.main",
    "agents.cli.pki",
    "agents.cli.roles",
    "agents.cli.root",
    "agents.cli.rotation",
    "agents.cli.settings",
    "agents.cli.status",
    "agents.client.app",
    "agents.hub.app",
    "agents.runtime.lifecycle",
    "agents.server.api.app",
    "agents.server.api.serve",
    "agents.server.app",
    "agents.zone_server.app",
)
"""Imported once, for whatever will be run."""


class Process:
    """One program that was started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended = threading.Event()
        self._code: int | None = None

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self._ended.is_set()

    def signal(self, number: int) -> None:
        """Send a signal; one that has ended gets none."""
        if self.running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for its end; returns its exit code, or minus the signal that ended it."""
        assert self._ended.wait(PATIENCE), f"process {self.pid} has not ended"
        assert self._code is not None
        return self._code

    def end(self, code: int) -> None:
        """The nursery says that it has ended."""
        self._code = code
        self._ended.set()


class Nursery:
    """Starts programs. May be used by several threads.

    Args:
        module: what forks them: this one, or one that does it in another way.
    """

    def __init__(self, module: str = __name__) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._program = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._socket = ours
        self._lock = threading.Lock()
        self._known = threading.Condition()
        self._started: dict[int, Process] = {}
        self._processes: dict[int, Process] = {}
        self._number = 0
        self._gone = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(
        self,
        words: Sequence[str],
        *,
        out: int,
        err: int,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Run `anchorline` with these words; the descriptors are its output."""
        with self._known:
            self._number += 1
            number = self._number
        request = {"number": number, "words": list(words), "environment": dict(environment or {})}
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], [out, err])
        with self._known:
            arrived = self._known.wait_for(lambda: self._gone or number in self._started, PATIENCE)
            assert arrived, "the nursery does not answer"
            assert not self._gone, "the nursery has ended: see its words above"
            return self._started.pop(number)

    def close(self) -> None:
        """End whatever still runs."""
        with self._known:
            left = list(self._processes.values())
        for process in left:
            process.signal(signal.SIGKILL)
        for process in left:
            process.wait()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._program.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self._socket.close()

    def _read(self) -> None:
        while data := self._receive():
            message = json.loads(data)
            pid = message["pid"]
            with self._known:
                if "number" in message:
                    process = self._processes[pid] = Process(pid)
                    self._started[message["number"]] = process
                    self._known.notify_all()
                else:
                    self._processes.pop(pid).end(message["code"])
        with self._known:
            self._gone = True
            self._known.notify_all()

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(nursery.MAX_PACKET)
        except OSError:
            return b""


def run(words: list[str]) -> int:
    """Run `anchorline` in this process."""
    from agents.cli.main import main

    sys.argv = ["anchorline", *words]
    return main()


def nurse(program: Callable[[list[str]], int], descriptor: int) -> None:
    """Be the nursery's process: import once, then fork and run `program` whenever asked to."""
    for name in WARM:
        importlib.import_module(name)

    def live(request: Mapping[str, Any], fds: Sequence[int]) -> int:
        out, err = fds
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.environ.update(request["environment"])
        return program(request["words"])

    nursery.nurse(socket.socket(fileno=descriptor), live)


if __name__ == "__main__":
    nurse(run, int(sys.argv[1]))
