"""Processes of a benchmark: each on its own core, and what they have cost by the kernel's word.

CPU time is what the kernel's scheduler has counted, in nanoseconds, for all threads of a process
(`/proc/PID/task/*/schedstat`): unlike `stat` it is not in ticks of 10 ms. Memory is the resident
set (`VmRSS`, and `VmHWM` at its highest).
"""

import os
import resource
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

__all__ = ["BenchError", "Cores", "Load", "Process", "cores"]

PATIENCE = 120.0
"""Seconds after which a program that does not answer has failed."""


class BenchError(Exception):
    """A row cannot be measured; the text says why."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the two ends of a row run."""

    server: int
    load: int


def cores() -> Cores:
    """The first and the last core that we may use; the same one where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[0], usable[-1])


class Process:
    """A program at one core, ended when the block ends.

    Args:
        command: What to run.
        core: Where.
        log: Where its standard error goes.
        nice: Priority; negative only where we may.
    """

    def __init__(
        self, command: Sequence[str | Path], *, core: int, log: Path, nice: int = 0
    ) -> None:
        def settle() -> None:
            os.sched_setaffinity(0, {core})
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            if nice:
                os.nice(nice)

        self.name = Path(command[0]).name
        self.log = log
        with log.open("ab") as errors:
            self._child = subprocess.Popen(
                [os.fspath(part) for part in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                preexec_fn=settle,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self.pid = self._child.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Ask it to end, and see to it. Idempotent."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(10)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()

    def cpu(self) -> float:
        """Seconds of processor that it has used so far."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue  # a thread that has just ended
        return total / 1e9

    def memory(self, what: str = "VmRSS") -> float:
        """KiB, of the resident set now, or by another name of `/proc/PID/status`."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == what:
                return float(value.split()[0])
        raise BenchError(f"{self.name} has ended: see {self.log}")

    def mapped(self, *names: str) -> list[str]:
        """Those of these names that a file has which is mapped into it."""
        maps = Path(f"/proc/{self.pid}/maps").read_text()
        return [name for name in names if name in maps]

    def say(self, line: str = "go") -> None:
        """Give it a line."""
        assert self._child.stdin is not None
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def hear(self, word: str) -> list[str]:
        """Wait for a line that begins with this word, and return its other words.

        Raises:
            BenchError: It ended without saying so.
        """
        for line in self._stdout:
            first, *rest = line.split()
            if first == word:
                return rest
        raise BenchError(f"{self.name} ended before it said {word!r}: see {self.log}")

    def hear_all(self) -> list[str]:
        """Close its input, and return everything that it says until it ends."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        return self._stdout.read().split()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._child.poll() is None

    @property
    def _stdout(self) -> IO[str]:
        assert self._child.stdout is not None
        return self._child.stdout


@dataclass(frozen=True, slots=True)
class Load:
    """What a load program says at its end."""

    connections: int
    requests: int
    failed: int
    seconds: float

    @classmethod
    def of(cls, process: Process) -> Self:
        """Wait for the end of a load.

        Raises:
            BenchError: A connection failed: the row would compare apples with errors.
        """
        words: Mapping[int, str] = dict(enumerate(process.hear("done")))
        load = cls(int(words[0]), int(words[1]), int(words[2]), int(words[3]) / 1e6)
        if load.failed:
            raise BenchError(f"{load.failed} of {load.connections} connections failed")
        return load
