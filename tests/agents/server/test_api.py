"""The API over a real Unix socket: what it answers, and to whom."""

import asyncio
import contextlib
import json
import os
import pwd
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from agents.runtime import logs
from agents.runtime.errors import StateError
from agents.server.api.app import make_app
from agents.server.api.peer import Credentials, may_administer, read_credentials
from agents.server.api.serve import listening, serve
from agents.server.errors import OperationError
from tests.agents.cli.fake_server import FINGERPRINT, NEWEST, OLD, SECRET, FakeOperations, serving

ME = f"unix:{pwd.getpwuid(os.geteuid()).pw_name}"


@pytest.fixture
def records() -> Iterator[list[dict[str, object]]]:
    found: list[dict[str, object]] = []
    logs.capture(found)
    yield found
    logs.silence()


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture
def api(operations: FakeOperations, records: list[dict[str, object]]) -> Iterator[Path]:
    with serving(operations) as path:
        yield path


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


# --- what it does


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("target", "call"),
    [
        ("/v1/status", ("status",)),
        ("/v1/roots", ("roots",)),
        ("/v1/roots/log", ("root_log",)),
        (f"/v1/roots/{quote(OLD)}/coverage", ("coverage", OLD)),
        ("/v1/rotation", ("rotation", False)),
        ("/v1/rotation?behind=true", ("rotation", True)),
        ("/v1/rotation?behind=false", ("rotation", False)),
        ("/v1/approvals", ("approvals",)),
        ("/v1/approvals/log", ("approvals_log",)),
        ("/v1/clients", ("clients",)),
        ("/v1/settings", ("settings",)),
    ],
)
def test_a_question_is_one_call(
    api: Path, operations: FakeOperations, target: str, call: tuple[object, ...]
) -> None:
    status, _ = ask(api, "GET", target)
    assert status == 200
    assert operations.calls[0] == call


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("method", "target", "body", "call"),
    [
        ("POST", "/v1/roots", None, ("root_new", ME, False)),
        ("POST", "/v1/roots", {"confirmed": True}, ("root_new", ME, True)),
        (
            "POST",
            f"/v1/roots/{quote(OLD)}/revoke",
            {"reason": "lost laptop", "key_in_doubt": True, "confirmed": True},
            ("root_revoke", ME, OLD, True, "lost laptop", True, None),
        ),
        (
            "POST",
            f"/v1/roots/{quote(OLD)}/revoke",
            # Everybody of a large fleet.
            {"reason": "x", "confirmed": True, "shown": ["0a" * 16] * 50_000},
            ("root_revoke", ME, OLD, False, "x", True, [b"\n" * 16] * 50_000),
        ),
        (
            "POST",
            f"/v1/approvals/{FINGERPRINT[:16].upper()}/deny",
            {"reason": "not ours"},
            ("approvals_decide", ME, FINGERPRINT[:16], "deny", "not ours"),
        ),
        (
            "PUT",
            "/v1/settings/pki_client_tls_key_duration_days",
            {"value": "48"},
            ("setting_set", ME, "pki_client_tls_key_duration_days", "48"),
        ),
    ],
)
def test_a_change_names_its_actor_by_what_the_kernel_says(
    api: Path,
    operations: FakeOperations,
    method: str,
    target: str,
    body: object,
    call: tuple[object, ...],
) -> None:
    status, _ = ask(api, method, target, body)
    assert status == 200
    assert operations.calls == [call]


@pytest.mark.sockets
def test_a_bundle_is_bytes_with_its_fingerprint_and_count(
    api: Path, operations: FakeOperations
) -> None:
    body = json.dumps({"settings": {"ServerNameList": "a.example, b.example"}}).encode()
    status, headers, data = raw(
        api,
        b"POST /v1/bundle HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body,
    )
    assert (status, data) == (200, b"\x00bundle\xff")
    assert headers["x-anchorline-fingerprint"] == "ef" * 32
    assert headers["x-anchorline-count"] == "3"
    assert operations.calls == [("bundle", ME, {"ServerNameList": "a.example, b.example"})]


@pytest.mark.sockets
def test_one_setting(api: Path) -> None:
    status, row = ask(api, "GET", "/v1/settings/pki_client_tls_key_duration_days")
    assert (status, row["value"]) == (200, 7)
    status, answer = ask(api, "GET", "/v1/settings/Unknown")
    assert (status, refused(answer)[0]) == (404, "not-found")


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("bad-input", 400),
        ("forbidden", 403),
        ("not-found", 404),
        ("confirm", 409),
        ("reason", 409),
        ("refused", 409),
    ],
)
def test_a_refusal_has_code_text_and_hint(
    api: Path,
    operations: FakeOperations,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    status: int,
) -> None:
    async def refuse() -> None:
        raise OperationError(code, "the text", "the hint")

    monkeypatch.setattr(operations, "clients", refuse)
    assert ask(api, "GET", "/v1/clients") == (
        status,
        {"error": {"code": code, "text": "the text", "hint": "the hint"}},
    )


# --- who may


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


# --- what must not come in


HOSTILE_NAMES = {
    "nul": "Root%00",
    "5000 bytes": "x" * 5000,
    "path": "..%2F..%2Fetc%2Fpasswd",
    "dots": "..",
    "line feed": "Root%0aforged",
    "escape": "%1b%5b2J",
    "not utf-8": "%ff%fe",
    "right to left": quote("\u202eRoot"),
}


@pytest.mark.sockets
@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES.keys())
@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/v1/roots/{}/coverage", None),
        ("POST", "/v1/roots/{}/revoke", {"reason": "x", "confirmed": True}),
        ("POST", "/v1/approvals/{}/approve", {}),
        ("POST", f"/v1/approvals/{FINGERPRINT}/{{}}", {}),
        ("GET", "/v1/settings/{}", None),
        ("PUT", "/v1/settings/{}", {"value": "1"}),
        ("GET", "/v1/{}", None),
    ],
    ids=["coverage", "revoke", "fingerprint", "verb", "get", "set", "path"],
)
def test_a_hostile_name_changes_nothing(
    api: Path, operations: FakeOperations, method: str, target: str, body: object, name: str
) -> None:
    status, answer = ask(api, method, target.format(name), body)
    assert status in (400, 404)
    code, text = refused(answer)
    assert code in ("bad-input", "not-found")
    assert text.isprintable()
    assert len(text) < 400
    assert operations.revoked == []
    assert operations.values == {"pki_client_tls_key_duration_days": "7"}
    assert operations.approval_state == "pending"
    assert not [call for call in operations.calls if call[0] in ("setting_set", "approvals_decide")]


BODIES = {
    "unknown field": {"reason": "x", "force": True},
    "wrong type": {"reason": 1},
    "number for a flag": {"reason": "x", "confirmed": 1},
    "missing": {},
    "list": [],
    "not json": b"reason=x",
    "not utf-8": b'{"reason": "\xff"}',
    "two objects": b'{"reason": "x"}{}',
    "deep": b"[" * 30_000,
    "nul": {"reason": "x\0y"},
    "an id that is none": {"reason": "x", "shown": ["xyz"]},
    "an id in capitals": {"reason": "x", "shown": ["AB" * 16]},
    "line feed": {"reason": "x\n2026-01-01 forged"},
    "long": {"reason": "x" * 1001},
    "surrogate": b'{"reason": "\\ud800"}',
}


@pytest.mark.sockets
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_body_that_is_not_known_is_refused(
    api: Path, operations: FakeOperations, body: object
) -> None:
    status, answer = ask(api, "POST", f"/v1/roots/{quote(OLD)}/revoke", body)
    assert status == 400
    code, text = refused(answer)
    assert code == "bad-input"
    assert text.isprintable()
    assert len(text) < 400
    assert operations.calls == []


@pytest.mark.sockets
def test_a_name_of_an_unknown_field_is_cut(api: Path) -> None:
    _, answer = ask(api, "POST", "/v1/roots", {"\x1b[2J" + "x" * 5000: True})
    _, text = refused(answer)
    assert text.isprintable()
    assert len(text) < 400


@pytest.mark.sockets
@pytest.mark.parametrize(
    "head",
    ["content-length: 70000\r\n\r\n", "transfer-encoding: chunked\r\n\r\n11170\r\n"],
    ids=["declared", "chunked"],
)
def test_a_body_that_is_too_large_is_refused(
    api: Path, operations: FakeOperations, head: str
) -> None:
    request = (
        "POST /v1/roots HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        f"content-type: application/json\r\n{head}" + " " * 70_000 + "\r\n0\r\n\r\n"
    )
    status, _, body = raw(api, request.encode())
    assert status == 400
    assert refused(json.loads(body)) == ("bad-input", "body of more than 65536 bytes")
    assert operations.calls == []


@pytest.mark.sockets
def test_a_body_of_the_limit_is_read(api: Path, operations: FakeOperations) -> None:
    body = b'{"confirmed": true}'.ljust(64 * 1024)
    assert ask(api, "POST", "/v1/roots", body)[0] == 200
    assert operations.calls == [("root_new", ME, True)]


@pytest.mark.sockets
def test_a_form_is_refused(api: Path, operations: FakeOperations) -> None:
    status, _, body = raw(
        api,
        b"POST /v1/roots HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        b'content-type: text/plain\r\ncontent-length: 19\r\n\r\n{"confirmed": true}',
    )
    assert (status, refused(json.loads(body))[0]) == (400, "bad-input")
    assert operations.calls == []


@pytest.mark.sockets
@pytest.mark.parametrize(
    "target",
    [
        "/v1/rotation?behind=1",
        "/v1/rotation?behind=true&behind=false",
        "/v1/rotation?before=true",
        "/v1/rotation?behind",
        "/v1/rotation?" + "&".join(f"a{n}=1" for n in range(100)),
        "/v1/roots?all=true",
        "/v1/status?%00",
    ],
)
def test_a_query_that_is_not_known_is_refused(
    api: Path, operations: FakeOperations, target: str
) -> None:
    status, answer = ask(api, "GET", target)
    assert (status, refused(answer)[0]) == (400, "bad-input")
    assert operations.calls == []


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/roots/", 404),
        ("GET", "/v2/status", 404),
        ("GET", "/v1/status/../../etc/passwd", 404),
        ("DELETE", "/v1/roots", 405),
        ("POST", "/v1/status", 405),
        ("GET", "/v1/bundle", 405),
        ("PATCH", "/v1/settings/pki_client_tls_key_duration_days", 405),
    ],
)
def test_what_is_not_there_is_refused_in_the_same_form(
    api: Path, operations: FakeOperations, method: str, target: str, status: int
) -> None:
    got, answer = ask(api, method, target)
    assert (got, refused(answer)[0]) == (status, "not-found")
    assert operations.calls == []


@pytest.mark.sockets
@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GET /v1/roots\r\n\r\n", b"x" * 100_000, b"\r\n\r\n"],
    ids=["tls", "http/0.9", "endless", "empty"],
)
def test_garbage_costs_its_own_connection_only(
    api: Path, operations: FakeOperations, garbage: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as own:
        own.settimeout(30)
        own.connect(str(api))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            own.sendall(garbage)
            own.shutdown(socket.SHUT_WR)
            assert b" 200 " not in own.recv(65536)
    assert operations.calls == []
    assert ask(api, "GET", "/v1/roots")[0] == 200


@pytest.mark.sockets
@pytest.mark.parametrize("settings", [{"a b": "1"}, {"A": "1\n"}, {"": ""}, {"A" * 65: "1"}])
def test_a_bundle_carries_no_setting_of_another_form(
    api: Path, operations: FakeOperations, settings: dict[str, str]
) -> None:
    status, answer = ask(api, "POST", "/v1/bundle", {"settings": settings})
    assert (status, refused(answer)[0]) == (400, "bad-input")
    assert operations.calls == []


@pytest.mark.sockets
@pytest.mark.req("A4")
def test_what_an_exception_says_is_not_answered(
    api: Path, operations: FakeOperations, records: list[dict[str, object]]
) -> None:
    operations.broken = True
    status, answer = ask(api, "GET", "/v1/status")
    assert status == 500
    assert refused(answer) == ("internal", "the server failed at this")
    assert SECRET not in json.dumps(answer)
    (line,) = [r for r in records if r["event"] == "api.failed"]
    assert (line["method"], line["path"], line["actor"]) == ("GET", "/v1/status", ME)


FIELDS = st.sampled_from(["reason", "key_in_doubt", "confirmed", "shown", "force"])
# Names and values as a hostile program would choose them, and what is good among them.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=6,
)


@given(JSON)
def test_a_body_is_known_or_refused(body: Any) -> None:  # noqa: ANN401 - JSON
    operations = FakeOperations()
    status, answer = asyncio.run(directly(operations, f"/v1/roots/{OLD}/revoke", body))
    known = isinstance(body, dict) and set(body) <= {"reason", "key_in_doubt", "confirmed", "shown"}
    if status == 200:
        assert known
        assert operations.calls == [
            ("root_revoke", ME, OLD, body.get("key_in_doubt", False), body["reason"], ANY, ANY)
        ]
        assert type(operations.calls[0][3]) is bool
    else:
        code, text = refused(answer)
        assert (status, code) in ((400, "bad-input"), (409, "reason"))
        assert text.isprintable()
        assert operations.revoked == []


async def directly(operations: FakeOperations, path: str, body: object) -> tuple[int, Any]:
    """Ask the application itself, without a socket."""
    sent: list[Message] = []
    me = Credentials(os.getpid(), os.geteuid(), os.getegid())
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "state": {"credentials": me},
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await make_app(operations)(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


# --- the socket


@pytest.mark.sockets
async def test_what_a_crash_has_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with listening(FakeOperations(), path):
        status, _ = await asyncio.to_thread(ask, path, "GET", "/v1/roots")
        assert status == 200
    assert not path.exists()


@pytest.mark.sockets
async def test_a_socket_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    async with listening(FakeOperations(), path):
        with pytest.raises(StateError, match="in use by another process"):
            async with listening(FakeOperations(), path):
                raise AssertionError("two servers at one socket")
        status, _ = await asyncio.to_thread(ask, path, "GET", "/v1/roots")
        assert status == 200


@pytest.mark.sockets
@pytest.mark.parametrize("kind", ["file", "link"])
async def test_what_is_no_socket_is_not_removed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "server.sock"
    precious = tmp_path / "precious"
    precious.write_text("a ledger")
    if kind == "file":
        precious.rename(path)
        precious = path
    else:
        path.symlink_to(precious)
    with pytest.raises(StateError, match="is in the way"):
        async with listening(FakeOperations(), path):
            raise AssertionError("something was removed")
    assert precious.read_text() == "a ledger"


@pytest.mark.sockets
async def test_a_path_that_cannot_be_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot make the API socket") as found:
        async with listening(FakeOperations(), tmp_path / ("x" * 200)):
            raise AssertionError("no socket has such a name")
    assert "socket = ..." in found.value.hint


@pytest.mark.sockets
async def test_serve_ends_when_the_daemon_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    serving, stop = asyncio.Event(), asyncio.Event()

    class Stopping:
        async def wait(self) -> None:
            serving.set()
            await stop.wait()

    task = asyncio.create_task(serve(FakeOperations(), path, Stopping()))
    async with asyncio.timeout(30):
        await serving.wait()
        idle = socket.socket(socket.AF_UNIX)
        idle.connect(str(path))
        with idle:
            stop.set()
            await task
    assert not path.exists()


@pytest.mark.sockets
async def test_an_answer_under_way_goes_out_when_the_server_stops(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    operations = FakeOperations()
    asked, go = asyncio.Event(), asyncio.Event()
    roots = operations.roots

    async def slow() -> list[dict[str, Any]]:
        asked.set()
        await go.wait()
        return await roots()

    operations.roots = slow  # type: ignore[method-assign]
    async with asyncio.timeout(30), listening(operations, path):
        answer = asyncio.create_task(asyncio.to_thread(ask, path, "GET", "/v1/roots"))
        await asked.wait()
        asyncio.get_running_loop().call_soon(go.set)
    status, rows = await answer
    assert status == 200
    assert rows[1]["name"] == NEWEST


def test_an_error_has_a_known_code() -> None:
    with pytest.raises(ValueError, match="code is 'other'"):
        OperationError("other", "text")
