"""What the kernel says of a process's sockets: nobody is asked what it believes."""

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Sockets", "sockets_of"]

ESTABLISHED = "01"
LISTEN = "0A"

Address = tuple[str, int]


@dataclass
class Sockets:
    """Internet sockets of one process, both families."""

    listening: set[Address] = field(default_factory=set)
    established: set[tuple[Address, Address]] = field(default_factory=set)
    datagram: set[Address] = field(default_factory=set)


def sockets_of(pid: int) -> Sockets:
    """Read the kernel's tables for one process."""
    inodes = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with suppress(OSError):  # it was closed meanwhile
            target = os.readlink(entry.path)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = Sockets()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        path = Path(f"/proc/{pid}/net/{table}")
        rows = path.read_text().splitlines()[1:] if path.exists() else []
        for words in (row.split() for row in rows):
            if words[9] not in inodes:
                continue
            local, remote = _address(words[1]), _address(words[2])
            if table.startswith("udp"):
                found.datagram.add(local)
            elif words[3] == LISTEN:
                found.listening.add(local)
            elif words[3] == ESTABLISHED:
                found.established.add((local, remote))
    return found


def _address(text: str) -> Address:
    host, _, port = text.partition(":")
    octets = bytes.fromhex(host)
    if len(octets) == 4:
        return ".".join(str(octet) for octet in reversed(octets)), int(port, 16)
    return host, int(port, 16)
