"""What a service tells systemd: that it is ready, reloads, stops, and is alive.

The protocol is that of sd_notify(3): datagrams of `NAME=value` lines to the Unix socket that
`NOTIFY_SOCKET` names. A plain socket, not an asyncio one: a datagram to systemd does not block
for longer than systemd takes to empty its queue, and readiness is said before there is traffic.
Telling never fails: without the variable nothing is sent, and a socket that has gone is no
reason for a daemon to stop.
"""

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Self

__all__ = ["Notifier"]


class Notifier:
    """Tells whoever supervises this process, if anybody does.

    Args:
        address: Path of the socket, "@name" for an abstract one, or None: tell nobody.
        watchdog: Seconds after which a silent service is restarted, or None.
    """

    def __init__(self, address: str | None, watchdog: float | None = None) -> None:
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self.interval = watchdog / 2 if address and watchdog else None
        """Seconds between two signs of life, or None where nobody waits for them."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, pid: int | None = None) -> Self:
        """Read `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, as sd_watchdog_enabled(3).

        Args:
            environ: Usually `os.environ`.
            pid: The own process number, where it is not the caller's.
        """
        own = str(os.getpid() if pid is None else pid)
        usec = environ.get("WATCHDOG_USEC", "")
        meant = environ.get("WATCHDOG_PID", own) == own
        watchdog = int(usec) / 1e6 if meant and usec.isascii() and usec.isdigit() else None
        return cls(environ.get("NOTIFY_SOCKET") or None, watchdog)

    def ready(self, status: str = "") -> None:
        """Say that start, or a reload, is complete."""
        self._send("READY=1", *_status(status))

    def reloading(self, monotonic: float) -> None:
        """Say that a reload began.

        Args:
            monotonic: CLOCK_MONOTONIC, in seconds: it tells systemd which reload that is.
        """
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(monotonic * 1e6)}")

    def stopping(self) -> None:
        """Say that the service stops by itself, or as asked."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Show one line of text in `systemctl status`."""
        self._send(*_status(text))

    def watchdog(self) -> None:
        """Give a sign of life."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self._address is None or not lines:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        ):
            sock.sendto("\n".join(lines).encode(), self._address)


def _status(text: str) -> list[str]:
    # A line end would begin another assignment.
    return [f"STATUS={' '.join(text.split())}"] if text else []
