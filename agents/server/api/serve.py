"""The API on its Unix socket, in the daemon's own loop.

uvicorn's protocol is used without uvicorn's server: that one takes over the process's signals
and looks ten times a second whether it should stop. Here the loop owns the socket, and a
connection is closed when its answer is out.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from agents.runtime.address import MAX_SOCKET_PATH
from agents.runtime.errors import StateError, reason_of
from agents.server.api.app import make_app
from agents.server.api.operations import Operations
from agents.server.api.peer import read_credentials

__all__ = ["listening"]

MAX_CONNECTIONS = 64
MAX_HEAD = 16 * 1024
"""Bytes of a request before its body."""
PATIENCE = 5.0
"""Seconds that answers under way have when the server stops."""


@contextlib.asynccontextmanager
async def listening(operations: Operations, path: Path) -> AsyncIterator[None]:
    """Serve the API inside the context; the socket can be used as soon as it is entered.

    Raises:
        StateError: The socket cannot be made.
    """
    # What uvicorn has to say about a bad request is the sender's fault, and no line of ours.
    for name in ("uvicorn.error", "uvicorn.access"):
        quiet = logging.getLogger(name)
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
    config = Config(
        make_app(operations),
        http=_PeerProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        # Headers of proxies would be believed: here the kernel says who is there.
        proxy_headers=False,
        server_header=False,
        date_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        h11_max_incomplete_event_size=MAX_HEAD,
    )
    config.load()
    state = ServerState()
    own = _bind(path)
    place = _inode(path)
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(
        lambda: _PeerProtocol(config, state, {}), sock=own, backlog=MAX_CONNECTIONS
    )
    try:
        yield
    finally:
        server.close()
        await _drain(state)
        if _inode(path) == place:
            _remove(path)


class _PeerProtocol(H11Protocol):
    """HTTP whose requests carry what the kernel says of the peer, as `state["credentials"]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        credentials: Any = None
        with contextlib.suppress(OSError):
            credentials = read_credentials(transport.get_extra_info("socket"))
        self.app_state = {"credentials": credentials}


async def _drain(state: ServerState) -> None:
    """Let answers under way go out, for a moment."""
    for connection in list(state.connections):
        connection.shutdown()
    if state.tasks:
        await asyncio.wait(set(state.tasks), timeout=PATIENCE)
    for connection in list(state.connections):
        connection.transport.close()


def _bind(path: Path) -> socket.socket:
    """Make the socket, for us and root alone before anybody can connect."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise StateError(
            f"cannot make the API socket {path}: its path has {len(os.fsencode(path))} bytes",
            hint=f"name one of at most {MAX_SOCKET_PATH} (socket = ...)",
        )
    own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _clear(path)
        own.bind(str(path))
        path.chmod(0o600)
        own.listen(MAX_CONNECTIONS)
        own.setblocking(False)
    except OSError as exc:
        own.close()
        raise StateError(
            f"cannot make the API socket {path}: {reason_of(exc)}",
            hint="name a path in a folder that the user of the service may write to (socket = ...)",
        ) from exc
    except StateError:
        own.close()
        raise
    return own


def _clear(path: Path) -> None:
    """Remove what a crash has left; never what somebody uses, or what is no socket."""
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_socket() or path.is_symlink():
        raise StateError(f"{path} is in the way of the API socket", hint="move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # somebody whose backlog is full is there too
        code = probe.connect_ex(str(path))
    if code != errno.ECONNREFUSED:
        raise StateError(
            f"the API socket {path} is in use by another process",
            hint="stop the other server, or name another path (socket = ...)",
        )
    path.unlink()


def _inode(path: Path) -> int | None:
    """Which file is there now: a socket that somebody else has made is not ours to remove."""
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
