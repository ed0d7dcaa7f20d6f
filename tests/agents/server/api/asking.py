"""Asking the API as programs do, and as no program should."""

import contextlib
import json
import os
import pwd
import socket
from pathlib import Path
from typing import Any

__all__ = ["ME", "ask", "raw", "refused"]

ME = f"unix:{pwd.getpwuid(os.geteuid()).pw_name}"


def raw(path: Path, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes, read to the end, and take the answer apart."""
    with socket.socket(socket.AF_UNIX) as own:
        own.settimeout(30)
        own.connect(str(path))
        # An answer before the end of what we send is a refusal, and it is there to be read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            own.sendall(request)
        pieces = []
        with contextlib.suppress(ConnectionResetError):
            while data := own.recv(65536):
                pieces.append(data)
    head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in rest)
    return int(first.split()[1]), headers, body


def ask(
    path: Path, method: str, target: str, body: object = None, *, headers: str = ""
) -> tuple[int, Any]:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = "" if body is None else "content-type: application/json\r\n"
    request = (
        f"{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        f"{kind}{headers}content-length: {len(data)}\r\n\r\n"
    )
    status, _, answer = raw(path, request.encode() + data)
    return status, json.loads(answer)


def refused(answer: dict[str, dict[str, str]]) -> tuple[str, str]:
    assert list(answer) == ["error"]
    assert list(answer["error"]) == ["code", "text", "hint"]
    return answer["error"]["code"], answer["error"]["text"]
