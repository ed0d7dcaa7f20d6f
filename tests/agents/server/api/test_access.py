"""Whom the API answers: who may is said by the kernel, not by the request."""

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from agents.server.api.app import make_app
from agents.server.api.peer import Credentials, may_administer, read_credentials
from tests.agents.cli.fake_server import FakeOperations
from tests.agents.server.api.asking import refused


@pytest.mark.sockets
def test_only_its_user_can_open_the_socket(api: Path) -> None:
    assert stat.S_IMODE(api.stat().st_mode) == 0o600


STRANGER = """
import os, socket, sys
path, uid = sys.argv[1], int(sys.argv[2])
if uid >= 0:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
own = socket.socket(socket.AF_UNIX)
try:
    own.connect(path)
except PermissionError:
    sys.exit(77)
own.sendall(sys.stdin.buffer.read())
while data := own.recv(65536):
    sys.stdout.buffer.write(data)
"""


def as_uid(uid: int, path: Path, request: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", STRANGER, str(path), str(uid)],
        input=request,
        capture_output=True,
        check=False,
        timeout=60,
    )


GET_ROOTS = b"GET /v1/roots HTTP/1.1\r\nhost: x\r\nconnection: close\r\n%s\r\n"
NOBODY = 65534


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> int:
    """The uid for a process that is nobody's; without root, one that the server takes for it."""
    if os.geteuid() == 0:
        return NOBODY

    def lie(connection: socket.socket) -> Credentials:
        true = read_credentials(connection)
        return Credentials(true.pid, NOBODY, NOBODY)

    monkeypatch.setattr("agents.server.api.serve.read_credentials", lie)
    return -1


@pytest.mark.sockets
def test_another_user_is_refused_even_where_the_socket_is_open_to_all(
    api: Path, operations: FakeOperations, records: list[dict[str, object]], stranger: int
) -> None:
    api.chmod(0o666)
    forged = b"x-forwarded-for: root\r\nforwarded: for=root\r\nauthorization: Basic cm9vdDo=\r\n"
    answer = as_uid(stranger, api, GET_ROOTS % forged)
    assert answer.stdout.startswith(b"HTTP/1.1 403 ")
    body = json.loads(answer.stdout.partition(b"\r\n\r\n")[2])
    assert refused(body) == ("forbidden", f"uid {NOBODY} may not administer this server")
    assert operations.calls == []
    (line,) = [r for r in records if r["event"] == "api.refused"]
    assert (line["level"], line["uid"]) == ("warning", NOBODY)


@pytest.mark.sockets
def test_another_user_does_not_get_through_the_mode_of_the_socket(
    api: Path, operations: FakeOperations, stranger: int
) -> None:
    if stranger == NOBODY:
        assert as_uid(stranger, api, GET_ROOTS % b"").returncode == 77
    assert operations.calls == []


@pytest.mark.parametrize(
    ("uid", "own", "may"), [(0, 900, True), (900, 900, True), (901, 900, False), (1, 0, False)]
)
def test_root_and_the_daemons_own_user_may(uid: int, own: int, may: bool) -> None:
    assert may_administer(Credentials(1, uid, uid), own) is may


def test_nobody_may_of_whom_the_kernel_says_nothing() -> None:
    assert not may_administer(None)


async def test_without_credentials_nothing_is_called(records: list[dict[str, object]]) -> None:
    operations = FakeOperations()
    sent: list[Any] = []

    async def receive() -> Message:
        raise AssertionError("a body is not read")

    async def send(message: Message) -> None:
        sent.append(message)

    for state in ({}, {"credentials": None}):
        scope = {"type": "http", "method": "GET", "path": "/v1/roots", "headers": []}
        await make_app(operations)({**scope, "state": state}, receive, send)
        assert sent[0]["status"] == 403
        sent.clear()
    assert operations.calls == []


def test_a_user_without_name_is_a_number() -> None:
    assert Credentials(1, 3_999_999_999, 0).actor == "unix:3999999999"
