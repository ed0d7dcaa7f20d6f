"""What a state directory says of its component, read from outside.

Whether the daemon runs is known from the kernel: it holds `flock` on `<state>/lock` for as long
as it lives, and /proc/locks lists it. Asking by trying the lock would keep a daemon that is just
starting from its own state; a pid alone may be anybody's after a reboot.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.runtime.errors import AgentError, reason_of
from agents.runtime.statefiles import LOCK, STATUS

__all__ = ["Report", "read_report", "running"]

MAX_REPORT = 64 << 20
"""Bytes of a report; one of a server with 10,000 links has 4 MB."""
LOCKS = Path("/proc/locks")


@dataclass(frozen=True, slots=True)
class Report:
    """A report as a component wrote it, and who did."""

    pid: int | None
    """The process that holds the state directory; None when none does."""
    written: dict[str, Any] | None
    """Its last report; None before the first."""


def read_report(folder: Path) -> Report:
    """Read what is in a state directory.

    Raises:
        AgentError: It may not be read, or what is there is no report.
    """
    try:
        path = folder / STATUS
        data = path.read_bytes() if path.stat().st_size <= MAX_REPORT else b""
        pid = running(folder)
    except FileNotFoundError:
        return Report(running(folder), None)
    except OSError as exc:
        raise _unreadable(folder, exc) from exc
    try:
        written = json.loads(data)
    except ValueError as exc:
        raise AgentError(f"{path} is no report") from exc
    if not isinstance(written, dict):
        raise AgentError(f"{path} is no report")
    return Report(pid, written)


def running(folder: Path, locks: Path = LOCKS) -> int | None:
    """Return the process that uses a state directory, or None.

    Raises:
        AgentError: The directory may not be entered.
    """
    try:
        inode = os.stat(folder / LOCK).st_ino
        listed = locks.read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise _unreadable(folder, exc) from exc
    # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:9977903 0 EOF
    for line in listed.splitlines():
        words = line.split()
        # A line of one who waits has an arrow. The device is not compared: that of a file in an
        # overlay is another one here than in `stat`.
        if len(words) == 8 and words[1:4] == ["FLOCK", "ADVISORY", "WRITE"]:
            place = words[5].rpartition(":")[2]
            if place == str(inode) and words[4].isdecimal():
                return int(words[4])
    return None


def _unreadable(folder: Path, exc: OSError) -> AgentError:
    return AgentError(
        f"cannot read {folder}: {reason_of(exc)}",
        hint="state directories are readable by root and by the user of the service",
    )
