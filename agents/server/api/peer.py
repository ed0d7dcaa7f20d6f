"""Who is at the other end of a Unix socket.

The kernel says it (SO_PEERCRED, the credentials at the time of `connect`), so there is nothing
to forge and no password. Root and the daemon's own user may administer; nobody else, whatever
the mode of the socket's file has become.
"""

import os
import pwd
import socket
import struct
from dataclasses import dataclass
from typing import Any

__all__ = ["Credentials", "may_administer", "read_credentials"]

_UCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the kernel knows of a peer."""

    pid: int
    uid: int
    gid: int

    @property
    def actor(self) -> str:
        """The peer in activity logs: "unix:" and its user's name, or number without one."""
        try:
            return f"unix:{pwd.getpwuid(self.uid).pw_name}"
        except KeyError:
            return f"unix:{self.uid}"


def read_credentials(connection: Any) -> Credentials:  # noqa: ANN401 - uvloop's is no socket.socket
    """Ask the kernel about the peer of a connected Unix socket.

    Raises:
        OSError: The kernel does not say.
    """
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Credentials(*_UCRED.unpack(found))


def may_administer(peer: Credentials | None, own_uid: int | None = None) -> bool:
    """Whether a peer may use the API at all."""
    return peer is not None and peer.uid in (0, os.geteuid() if own_uid is None else own_uid)
