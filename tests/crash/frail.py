"""Real daemons on a machine that fails on request: a wrong clock, a bad disk, death at a write.

Beside the configuration of a daemon may lie

    clock    seconds by which the wall clock of its machine is wrong; looked at at every reading
    doom     a number: at this step to the disk, counted from now on, the daemon is killed
    refusal  an errno: each step to the disk fails with it, for as long as the file is there
    steps    which the machine writes itself: a byte for each step that was taken

A *step* is a call that changes what the disk has, or makes it last: a write, of which half is
done, an fsync, a rename, a cut. Dying at each of them in turn is dying before, in the middle of
and after each durable write. What the kernel was told survives a kill; that the order of calls
is right for a machine without power is shown by `test_order` and `tests.support.files`.

The program is the real one, forked as by `tests.support.nursery`. What else is different: it
looks at the wall clock again, and at who was not there, after a moment instead of a minute.
"""

import errno
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from agents.cli import roles
from agents.member import following, member
from agents.runtime import clock
from agents.runtime.backoff import Backoff
from agents.runtime.clock import SystemClock
from tests.support.daemons import Daemon
from tests.support.nursery import Nursery, nurse, run

__all__ = ["doom", "nursery", "refuse", "relent", "set_clock", "steps"]

CLOCK: Final = "clock"
DOOM: Final = "doom"
REFUSAL: Final = "refusal"
TAKEN: Final = "steps"
WRITES: Final = ("write", "pwrite")
STEPS: Final = ("fsync", "fdatasync", "replace", "ftruncate")
REPORT: Final = "status.json"
"""No state: it is written when the second turns, and so at any step."""
MOMENT: Final = 0.3
"""Seconds, instead of the minutes of a real machine."""


def nursery() -> Nursery:
    """Where such machines are made."""
    return Nursery(__name__)


def set_clock(daemon: Daemon, wrong: timedelta) -> None:
    """Set the wall clock of a machine, whether its daemon runs or not."""
    _put(daemon.folder / CLOCK, str(wrong.total_seconds()))


def doom(daemon: Daemon, step: int) -> None:
    """Let a daemon die at this step to its disk, from now or from its start on."""
    _put(daemon.folder / DOOM, str(step))


def refuse(daemon: Daemon, error: int) -> None:
    """Let every step to its disk fail with this errno, whether its daemon runs or not."""
    _put(daemon.folder / REFUSAL, str(error))


def relent(daemon: Daemon) -> None:
    """The disk is sound again."""
    (daemon.folder / REFUSAL).unlink()


def steps(daemon: Daemon) -> int:
    """How many it has taken in all of its runs."""
    taken = daemon.folder / TAKEN
    return taken.stat().st_size if taken.exists() else 0


def _put(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.replace(path)


@dataclass
class Machine:
    """What the forked program stands on."""

    folder: Path
    left: int | None = None
    """Steps that it has left; None: as many as it likes."""
    counter: int = -1
    real: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def wall(self) -> float:
        """The wall clock."""
        try:
            return time.time() + float((self.folder / CLOCK).read_text())  # noqa: TID251
        except FileNotFoundError:
            return time.time()  # noqa: TID251

    def fail(self) -> None:
        """Put the calls of this process under our control."""
        self.counter = os.open(self.folder / TAKEN, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for name in (*WRITES, *STEPS):
            self.real[name] = getattr(os, name)
            call = self._write if name in WRITES else self._step
            patch.object(os, name, partial(call, name)).start()

    def _write(self, name: str, handle: int, data: bytes, *where: int) -> Any:  # noqa: ANN401
        if stat.S_ISREG(os.fstat(handle).st_mode) and self._is_last():
            self.real[name](handle, bytes(data)[: len(data) // 2], *where)
            die()
        return self.real[name](handle, data, *where)

    def _step(self, name: str, *args: Any, **named: Any) -> Any:  # noqa: ANN401
        if name == "ftruncate" and self._refusal() == errno.ENOSPC:
            return self.real[name](*args)  # a full disk has room for less
        if not str(args[-1]).endswith(REPORT) and self._is_last():
            die()
        return self.real[name](*args, **named)

    def _refusal(self) -> int:
        """What the disk says to everything; 0 if it is sound."""
        try:
            return int((self.folder / REFUSAL).read_text())
        except FileNotFoundError:
            return 0

    def _is_last(self) -> bool:
        """Take one more step; whether it is the last.

        Raises:
            OSError: the disk refuses.
        """
        error = self._refusal()
        if error:
            raise OSError(error, os.strerror(error))
        self.real["write"](self.counter, b".")
        with suppress(FileNotFoundError):
            self.left = int((self.folder / DOOM).read_text())
            (self.folder / DOOM).unlink()
        if self.left is None:
            return False
        self.left -= 1
        return self.left <= 0


def die() -> None:
    """kill -9, by our own hand."""
    os.kill(os.getpid(), signal.SIGKILL)


def _soon(_self: Backoff, _retry_after: float | None = None) -> float:
    return MOMENT


def _run(words: list[str]) -> int:
    """The program `anchorline`, on a machine that fails."""
    machine = Machine(Path(words[words.index("--config") + 1]).parent)
    patch.object(roles, "SystemClock", partial(SystemClock, wall=machine.wall)).start()
    patch.object(clock, "MAX_PAUSE", MOMENT).start()
    patch.object(member, "LOOK_AGAIN", MOMENT).start()
    patch.object(following, "UNVERIFIED_INTERVAL", MOMENT).start()
    patch.object(Backoff, "next", _soon).start()
    machine.fail()
    return run(words)


if __name__ == "__main__":
    nurse(_run, int(sys.argv[1]))
