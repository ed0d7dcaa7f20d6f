"""The administration API, from the side of the command line: HTTP over a Unix socket."""

import contextlib
import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agents.cli.sockets import check_path
from agents.runtime.errors import AgentError, Exit, UnavailableError

__all__ = ["ApiError", "Client"]

MAX_ANSWER = 256 << 20
"""Bytes; a list of 100,000 clients has 60 MB."""
TIMEOUT = 120.0
"""Seconds for an answer: a revocation waits for the disk, a list of clients for the database."""


class ApiError(AgentError):
    """The server has refused, and says why.

    `code` is one of `agents.server.errors.CODES`, "unavailable" or "internal".
    """

    def __init__(self, code: str, text: str, hint: str = "") -> None:
        super().__init__(text, hint)
        self.code = code


class ForbiddenError(ApiError):
    """The server talks to others only."""

    exit_code = Exit.REFUSED


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of to a port."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """One server's API; each call is a connection of its own.

    Args:
        path: The socket.
        timeout: Seconds for one answer.
    """

    def __init__(self, path: Path, *, timeout: float = TIMEOUT) -> None:
        self._path = path
        self._timeout = timeout

    def get(self, *words: str, query: str = "") -> Any:  # noqa: ANN401 - JSON
        """Return what a path says: `get("roots", "log")` is GET /v1/roots/log.

        Raises:
            ApiError: The server has refused.
            UnavailableError: There is no server, or no answer.
            SocketPathError: No socket can have that path.
        """
        return self._json("GET", words, query=query)

    def post(self, *words: str, **body: object) -> Any:  # noqa: ANN401
        """Ask for a change; `body` is the JSON object. Raises as `get`."""
        return self._json("POST", words, body)

    def put(self, *words: str, **body: object) -> Any:  # noqa: ANN401
        """Ask for a change; `body` is the JSON object. Raises as `get`."""
        return self._json("PUT", words, body)

    def download(self, *words: str, **body: object) -> tuple[bytes, Mapping[str, str]]:
        """Return the bytes of an answer, and its headers in lower case. Raises as `get`."""
        return self._exchange("POST", words, body)

    def _json(
        self, method: str, words: tuple[str, ...], body: object = None, query: str = ""
    ) -> Any:  # noqa: ANN401
        data, _ = self._exchange(method, words, body, query)
        try:
            return json.loads(data)
        except ValueError as exc:
            raise UnavailableError(f"what answers at {self._path} is no server of ours") from exc

    def _exchange(
        self, method: str, words: tuple[str, ...], body: object = None, query: str = ""
    ) -> tuple[bytes, Mapping[str, str]]:
        check_path(self._path, "the API socket", "--socket")
        target = "/".join(["/v1", *(quote(word, safe="") for word in words)])
        connection = _Connection(self._path, self._timeout)
        try:
            # A refusal may come before we have said everything: then it is there to be read.
            with contextlib.suppress(BrokenPipeError):
                connection.request(
                    method,
                    f"{target}?{query}" if query else target,
                    body=None if body is None else json.dumps(body).encode(),
                    headers={"content-type": "application/json", "connection": "close"},
                )
            answer = connection.getresponse()
            data = answer.read(MAX_ANSWER + 1)
        except TimeoutError as exc:
            raise UnavailableError(f"no answer from {self._path} in {self._timeout:g} s") from exc
        except PermissionError as exc:
            raise ForbiddenError(
                "forbidden",
                f"cannot open {self._path}: permission denied",
                hint="run this as root or as the user of the server",
            ) from exc
        except (OSError, http.client.HTTPException) as exc:
            reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
            raise UnavailableError(
                f"no server answers at {self._path}: {reason.lower()}",
                hint="run this on the server's host while it runs, or name its socket (--socket)",
            ) from exc
        finally:
            connection.close()
        if len(data) > MAX_ANSWER:
            raise UnavailableError(f"answer of more than {MAX_ANSWER} bytes")
        if answer.status != 200:
            raise _refusal(answer.status, data)
        return data, {name.lower(): value for name, value in answer.getheaders()}


def _refusal(status: int, data: bytes) -> ApiError:
    try:
        error = json.loads(data)["error"]
        code, text, hint = (str(error[key]) for key in ("code", "text", "hint"))
    except (ValueError, KeyError, TypeError):
        return ApiError("internal", f"the server answers with status {status}")
    kind = ForbiddenError if code == "forbidden" else ApiError
    return kind(code, text, hint)
