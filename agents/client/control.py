"""A word to a running client from its own machine: `anchorline client renew --now`.

A Unix datagram socket in the state directory, which nobody else may enter. One word in, one
line out.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from agents.runtime.address import MAX_SOCKET_PATH
from agents.runtime.errors import StateError, reason_of
from agents.runtime.statefiles import CONTROL

__all__ = ["serve_control"]

MAX_WORD = 64

Command = Callable[[], Awaitable[None]]


async def serve_control(folder: Path, commands: Mapping[str, Command]) -> None:
    """Answer until cancelled. A command that fails answers with its error.

    Raises:
        StateError: the socket cannot be made.
    """
    path = folder / CONTROL
    path.unlink(missing_ok=True)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.setblocking(False)
        try:
            listening.bind(str(path))
        except OSError as exc:
            raise StateError(
                f"cannot listen on {path}: {reason_of(exc)}",
                hint=f"the path of a socket has {MAX_SOCKET_PATH} bytes at most:"
                " set a shorter state directory",
            ) from exc
        path.chmod(0o600)
        try:
            while True:
                word, sender = await _receive(loop, listening)
                if sender:
                    answer = await _carry_out(word, commands)
                    _answer(listening, answer, sender)
        finally:
            path.unlink(missing_ok=True)


async def _receive(
    loop: asyncio.AbstractEventLoop, listening: socket.socket
) -> tuple[str, str | None]:
    # uvloop has no recvfrom for Unix datagrams: wait until it is readable, then read.
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(listening, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(listening)
    data, sender = listening.recvfrom(MAX_WORD)
    return data.decode(errors="replace"), sender


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _carry_out(word: str, commands: Mapping[str, Command]) -> str:
    command = commands.get(word)
    if command is None:
        return f"error no command {word!r}; there are: {', '.join(sorted(commands))}"
    try:
        await command()
    except Exception as exc:
        return f"error {exc}"
    return "ok"


def _answer(listening: socket.socket, answer: str, sender: str) -> None:
    try:
        listening.sendto(answer.encode(), sender)
    except OSError:
        return  # whoever asked has gone
