"""A zone server in a process of its own that notes each connection which it opens.

    python -m tests.agents.zone_server.watched STATE BUNDLE NOTES

It runs on the plain loop of asyncio, whose sockets are Python's own: each of their calls passes
the audit hook. Before it starts it opens one connection itself, to show that the hook sees it.
"""

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from agents.runtime import logs
from agents.runtime.address import HostPort
from agents.runtime.clock import SystemClock
from agents.runtime.lifecycle import Stop
from agents.runtime.notify import Notifier
from agents.zone_server.app import run
from agents.zone_server.config import Config

HOST = "127.0.0.1"
WATCHED = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "subprocess.Popen")


def main(state: str, bundle: str, notes: str) -> None:
    handle = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(event: str, args: tuple[object, ...]) -> None:
        if event in WATCHED:
            os.write(handle, f"{event} {args[1:]!r}\n".encode())

    sys.addaudithook(note)
    with socket.socket() as control, suppress(ConnectionError):
        control.connect((HOST, 9))
    os.write(handle, b"started\n")
    asyncio.run(serve(Path(state), Path(bundle)))
    os.write(handle, f"dialer {'agents.runtime.dialer' in sys.modules}\n".encode())


async def serve(state: Path, bundle: Path) -> None:
    clock = SystemClock()
    logs.configure("zone-server", path=state.parent / "zone.log", clock=clock)
    stop = Stop(clock, Notifier(None))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.request, "SIGTERM")
    config = Config(
        listen=HostPort(HOST, 0), hub_listen=HostPort(HOST, 0), state=state, bundle=bundle
    )
    await run(config, clock=clock, stop=stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
