"""The kernel's own account of what a daemon does to its files and sockets, in one order.

    with traced(daemon, path) as trace:
        ...
        trace.mark("asked")            # something that the test knows, put into the same account
        calls = trace.end()

Nothing of ours could make that up. A mark is a line that a helper process writes while it is
traced too; `mark` returns when it is written. So what the daemon had done before the test knew
of something is before the mark, and what follows from it is after.
"""

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.daemons import Daemon

__all__ = ["HEARD", "MARK", "SAID", "SYNCED", "Trace", "traced"]

HEARD: Final = ("read", "recvfrom", "recvmsg")
SAID: Final = ("write", "writev", "sendto", "sendmsg")
SYNCED: Final = ("fsync", "fdatasync")
MARK: Final = "mark"
CALLS: Final = ",".join([*HEARD, *SAID, *SYNCED])
LINE = re.compile(r"^\d+ +(?P<call>\w+)\(\d+<(?P<what>.*?)>(?:, .*)?\) += (?P<result>-?\d+)")
MARKED = re.compile(r'^\d+ +write\(.*"mark:(?P<what>[^"\\]*)')


class Trace:
    """What a process does, as the kernel saw it."""

    def __init__(self, daemon: Daemon, path: Path) -> None:
        self._path = path
        self._marker = subprocess.Popen(
            ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        # Without -f a worker thread's fsync would be missed; -yy names files and addresses.
        pids = [argument for pid in (daemon.pid, self._marker.pid) for argument in ("-p", str(pid))]
        self._process = subprocess.Popen(
            ["strace", "-f", "-yy", "-s", "64", "-e", CALLS, "-o", path, *pids],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        for _ in range(2):
            line = self._process.stderr.readline()
            assert "attached" in line, line
        self.mark("attached")

    def mark(self, what: str) -> None:
        """Put into the account that the test knows this now."""
        assert self._marker.stdin is not None
        assert self._marker.stdout is not None
        self._marker.stdin.write(f"mark:{what}\n".encode())
        assert self._marker.stdout.readline()

    def close(self) -> None:
        """Let the process alone. Idempotent."""
        for process in (self._process, self._marker):
            if process.poll() is None:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def end(self) -> list[tuple[str, str]]:
        """(call, file or address) of all that succeeded, and the marks, in order."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)
        found = []
        pending: dict[str, str] = {}
        for row in self._path.read_text(errors="replace").splitlines():
            pid, _, rest = row.partition(" ")
            if rest.rstrip().endswith("<unfinished ...>"):
                pending[pid] = rest.split(" <unfinished")[0]
                continue
            if "resumed>" in rest and pid in pending:
                row = f"{pid} {pending.pop(pid).lstrip()}{rest.partition('resumed>')[2]}"
            if marked := MARKED.match(row):
                found.append((MARK, marked["what"]))
                continue
            # Where strace was told to go while the call returned, the call was made all the same.
            match = LINE.match(re.sub(r" <(detached|unfinished) \.\.\.>$", ") = 0", row))
            if match and int(match["result"]) >= 0:
                found.append((match["call"], match["what"]))
        return found


@contextmanager
def traced(daemon: Daemon, path: Path) -> Iterator[Trace]:
    """Trace a daemon that runs, from now on."""
    trace = Trace(daemon, path)
    try:
        yield trace
    finally:
        trace.close()
