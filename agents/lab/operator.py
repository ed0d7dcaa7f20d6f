"""What an operator does: commands of the real command line, in processes of their own.

Only what is asked again and again while something is on its way goes to the administration API
directly: a process a look would be most of the lab's work.
"""

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agents.runtime.errors import AgentError, UnavailableError

__all__ = ["Operator", "Result"]

COMMAND: Final = (sys.executable, "-m", "agents.cli.main")
TIMEOUT: Final = 60.0
ERROR: Final = "anchorline: error: "
REQUEST: Final = "GET /v1/{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Result:
    """What a command has said."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The command, as somebody would type it."""
        return " ".join(("anchorline", *self.words))

    @property
    def problem(self) -> str:
        """The error that it reported, in one line."""
        for line in self.err.splitlines():
            if line.startswith(ERROR):
                return line.removeprefix(ERROR)
        return self.err.strip()


class Operator:
    """Somebody at the server's machine.

    Args:
        socket: of the server's API.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def run(self, *words: str) -> Result:
        """Run `anchorline` without a terminal, and return what it says.

        Raises:
            UnavailableError: it does not end.
        """
        child = await asyncio.create_subprocess_exec(
            *COMMAND,
            *("--socket", str(self._socket)),
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(TIMEOUT):
                out, err = await child.communicate()
        except TimeoutError as exc:
            child.kill()
            await child.wait()
            raise UnavailableError(f"no end of: anchorline {' '.join(words)}") from exc
        assert child.returncode is not None  # it has ended
        return Result(words, child.returncode, out.decode(), err.decode())

    async def json(self, *words: str) -> Any:  # noqa: ANN401
        """Run a command that must succeed, and return its result.

        Raises:
            AgentError: it fails.
        """
        result = await self.run(*words, "--json")
        if result.code != 0:
            raise AgentError(f"{result.line}: {result.problem}")
        return json.loads(result.out)

    async def get(self, path: str) -> Any:  # noqa: ANN401
        """Ask the API: `get("clients")` is GET /v1/clients.

        Raises:
            UnavailableError: there is no server, or it does not answer with what was asked for.
        """
        try:
            async with asyncio.timeout(TIMEOUT):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    writer.write(REQUEST.format(path=path).encode())
                    answer = await reader.read(-1)
                finally:
                    writer.close()
                    await writer.wait_closed()
        except (OSError, TimeoutError) as exc:
            raise UnavailableError(f"no server answers at {self._socket}: {exc}") from exc
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise UnavailableError(f"GET /v1/{path}: {head[:80]!r}")
        return json.loads(body)
