"""The disks of simulated machines, and how they fail.

A `Platter` outlives programs. A `Disk` is a program's view of it: when the program is killed, by
a write or otherwise, nothing that it still does reaches the platter.

A *strike* fails one write. What becomes of a whole file is said by `Failure`; where the disk lies
(`Failure.TORN`) only what is kept in two generations must survive it, so the ledger may be torn,
and any other file then keeps its old content. Of a file that grows (`SimTape`):

    BEFORE   nothing of it is written; the disk is full
    MIDDLE   a half is written; the disk is full, or the program is killed there
    TORN     all of it is, the sync fails: half of it is on the disk, and nothing where the rest is
    AFTER    all of it is on the disk, though the sync says that it failed

What was written and not synced is seen by who reads, and is gone with the power: all of it, or
all but a part.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agents.runtime.errors import MissingError, StateError
from agents.runtime.files import MAX_FILE, TwoGenerations
from tests.simulation.chance import Random
from tests.support.files import Crash, Failure, MemoryFiles

__all__ = ["Disk", "Failure", "Killed", "Platter", "SimTape", "Strike"]

LEDGER: Final = "ledger"


class Killed(BaseException):
    """The program is no more; nothing of it may catch this."""


@dataclass(frozen=True, slots=True)
class Strike:
    """What becomes of one of the next writes."""

    failure: Failure
    kill: bool
    """Whether the program is killed there; else it is told of an error."""

    def __str__(self) -> str:
        return f"{'killed' if self.kill else 'failed'}: on the disk is {self.failure.value}"


class Platter(MemoryFiles):
    """What is on the disk of one machine.

    Args:
        told: is called with the path after each change.
        chance: draws what is left of what was not synced.
    """

    def __init__(self, told: Callable[[Path], None], chance: Random) -> None:
        super().__init__()
        self.struck = ""
        """What the last strike did."""
        self.synced: dict[Path, bytes] = {}
        """Of a file that grows and was not synced since: what is sure to survive."""
        self.names: dict[Path, object] = {}
        """Which file has a name: another one after each whole write."""
        self._told = told
        self._chance = chance
        self._strikes: dict[int, Strike] = {}

    def strike(self, change: int, strike: Strike) -> None:
        """Let the `change`-th change from now on (1 is the next) fail so."""
        self._strikes[self.changes + change] = strike

    def spare(self) -> None:
        """Let nothing fail any more."""
        self._strikes.clear()

    def take_strike(self, path: Path) -> Strike | None:
        """What becomes of a write to a file that grows, which is one more change."""
        self.changes += 1
        strike = self._strikes.pop(self.changes, None)
        if strike is not None:
            self.struck = f"{path.name}: {strike.failure.value}"
        return strike

    def survives(self, path: Path) -> bytes:
        """What a loss of power now would surely leave of a file."""
        return self.synced.get(path, self.content.get(path, b""))

    def lose_power(self) -> None:
        """Forget what was not synced, or a part of it."""
        for path, kept in self.synced.items():
            written = self.content.get(path, kept)
            self.content[path] = kept + written[len(kept) : self._chance.randint(0, len(written))]
        self.synced.clear()

    def ledger(self, folder: Path) -> bytes | None:
        """The newest whole generation of the ledger there."""
        try:
            return TwoGenerations(folder / LEDGER, self).read()[0]
        except (MissingError, StateError):
            return None

    def _change(self, path: Path, data: bytes | None, mode: int) -> None:
        strike = self._strikes.pop(self.changes + 1, None)
        if strike is not None:
            failure = strike.failure
            if failure is Failure.TORN and not path.name.startswith(LEDGER):
                failure = Failure.MIDDLE
            self.struck = f"{path.name}: {failure.value}"
            self.fail(1, failure, crash=strike.kill)
        try:
            super()._change(path, data, mode)
        finally:
            self._told(path)

    def _put(self, path: Path, data: bytes | None, mode: int) -> None:
        super()._put(path, data, mode)
        self.synced.pop(path, None)
        self.names[path] = object()


class Disk:
    """A program's view of a platter; `agents.runtime.files.Files`.

    Args:
        alive: whether the program still is.
        kill: ends it, at a write.
    """

    def __init__(
        self, platter: Platter, *, alive: Callable[[], bool], kill: Callable[[str], None]
    ) -> None:
        self._platter = platter
        self._alive = alive
        self._kill = kill

    def read_file(self, path: Path, max_bytes: int = MAX_FILE) -> bytes:
        """See `Files.read_file`."""
        self._check()
        return self._platter.read_file(path, max_bytes)

    def exists(self, path: Path) -> bool:
        """See `Files.exists`."""
        self._check()
        return self._platter.exists(path)

    def write_atomic(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """See `Files.write_atomic`."""
        self._do(lambda: self._platter.write_atomic(path, data, mode))

    def write_new(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """See `Files.write_new`."""
        self._do(lambda: self._platter.write_new(path, data, mode))

    def remove(self, path: Path) -> None:
        """See `Files.remove`."""
        self._do(lambda: self._platter.remove(path))

    def tape(self, path: Path) -> "SimTape":
        """See `agents.runtime.tape.Tapes`."""
        self._check()
        if not self._platter.exists(path):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return SimTape(path, self._platter, self._check, self._kill)

    def _check(self) -> None:
        if not self._alive():
            raise Killed

    def _do(self, change: Callable[[], None]) -> None:
        self._check()
        try:
            change()
        except Crash as exc:
            self._kill(f"at a write of {self._platter.struck}")
            raise Killed from exc


class SimTape:
    """A program's view of a file that grows; `agents.runtime.tape.Tape`.

    Args:
        check: raises `Killed` if the program is no more.
        kill: ends it, at a write.
    """

    def __init__(
        self, path: Path, platter: Platter, check: Callable[[], None], kill: Callable[[str], None]
    ) -> None:
        self._path = path
        self._platter = platter
        self._check = check
        self._kill = kill
        self._name = platter.names.get(path)
        self._strike: Strike | None = None
        """What becomes of the next sync."""

    def write(self, data: bytes, place: int) -> None:
        """See `Tape.write`."""
        self._check()
        strike = self._platter.take_strike(self._path)
        match strike:
            case None:
                self._put(data, place)
            case Strike(failure=Failure.TORN | Failure.AFTER):
                self._put(data, place)
                self._strike = strike
            case Strike(failure=failure):
                self._put(data[: len(data) // 2 if failure is Failure.MIDDLE else 0], place)
                self._fail(strike, errno.ENOSPC, "No space left on device")

    def cut(self, place: int) -> None:
        """See `Tape.cut`."""
        self._check()
        if self.is_named():
            self._become(self._platter.content[self._path][:place])

    def sync(self) -> None:
        """See `Tape.sync`."""
        self._check()
        if not self.is_named():
            return
        strike, self._strike = self._strike, None
        kept = self._platter.synced.pop(self._path, None)
        if strike is None:
            return
        if strike.failure is Failure.TORN and kept is not None:
            written = self._platter.content[self._path]
            half = (len(kept) + len(written)) // 2
            self._platter.content[self._path] = written[:half] + bytes(len(written) - half)
        self._fail(strike, errno.EIO, "Input/output error")

    def is_named(self) -> bool:
        """See `Tape.is_named`."""
        return self._platter.names.get(self._path) is self._name

    def close(self) -> None:
        """See `Tape.close`."""

    def _put(self, data: bytes, place: int) -> None:
        if not self.is_named():
            return  # what goes to a file without a name is seen by nobody
        before = self._platter.content[self._path]
        self._become(before[:place] + data + before[place + len(data) :])

    def _become(self, content: bytes) -> None:
        self._platter.synced.setdefault(self._path, self._platter.content[self._path])
        self._platter.content[self._path] = content

    def _fail(self, strike: Strike, number: int, text: str) -> None:
        if strike.kill:
            self._kill(f"at a write of {self._platter.struck}")
            raise Killed
        raise OSError(number, text)
