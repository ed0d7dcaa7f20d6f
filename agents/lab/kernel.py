"""Which process talks to which, as the kernel's own tables say.

    /proc/net/tcp        every TCP connection: both addresses, state, inode of its socket
    /proc/<pid>/fd       the descriptors of a process: socket:[inode]

Both ends of a connection over loopback are on this machine, so a connection of the table whose
mirror image is in the table as well connects two processes. Nobody is asked what it believes.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Connection", "Tables", "read_tables"]

ESTABLISHED: Final = "01"
LISTEN: Final = "0A"

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Connection:
    """One end of an established connection."""

    pid: int
    local: Address
    remote: Address
    peer: int | None
    """The process at the other end, where it is one of those that were asked for."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What was there at one moment."""

    connections: tuple[Connection, ...]
    listening: frozenset[tuple[int, Address]]
    """Process, address."""

    def of(self, pid: int) -> tuple[Connection, ...]:
        """The connections of one process."""
        return tuple(c for c in self.connections if c.pid == pid)

    def pairs(self, pids: Iterable[int]) -> frozenset[frozenset[int]]:
        """The pairs of these processes that are connected with each other."""
        wanted = set(pids)
        return frozenset(
            frozenset((c.pid, c.peer))
            for c in self.connections
            if c.pid in wanted and c.peer in wanted
        )

    def dialled(self, pid: int) -> frozenset[Address]:
        """Where a process has connected to: its connections from no port that it listens on."""
        ports = {address[1] for owner, address in self.listening if owner == pid}
        return frozenset(c.remote for c in self.of(pid) if c.local[1] not in ports)


def read_tables(pids: Iterable[int], *, proc: Path = Path("/proc")) -> Tables:
    """Read the connections of these processes; one that is gone has none."""
    owners = {inode: pid for pid in pids for inode in _sockets(proc, pid)}
    ends: list[tuple[Address, Address, int]] = []
    listening: set[tuple[int, Address]] = set()
    for local, remote, state, inode in _rows(proc / "net" / "tcp"):
        pid = owners.get(inode)
        if pid is None:
            continue
        if state == LISTEN:
            listening.add((pid, local))
        elif state == ESTABLISHED:
            ends.append((local, remote, pid))
    holder = {(local, remote): pid for local, remote, pid in ends}
    return Tables(
        tuple(Connection(pid, lo, re, holder.get((re, lo))) for lo, re, pid in ends),
        frozenset(listening),
    )


def _sockets(proc: Path, pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    found = set()
    with suppress(OSError):  # it has exited
        for entry in os.scandir(proc / str(pid) / "fd"):
            with suppress(OSError):  # it has just closed that one
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    return found


def _rows(table: Path) -> Iterable[tuple[Address, Address, str, str]]:
    for line in table.read_text().splitlines()[1:]:
        words = line.split()
        yield _address(words[1]), _address(words[2]), words[3], words[9]


def _address(text: str) -> Address:
    """Read `0100007F:1F90`: the address as the machine keeps it, here little-endian."""
    host, _, port = text.partition(":")
    return ".".join(str(octet) for octet in reversed(bytes.fromhex(host))), int(port, 16)
