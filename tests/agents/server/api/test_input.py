"""What must not come in through the API."""

import asyncio
import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from agents.server.api.app import make_app
from agents.server.api.peer import Credentials
from tests.agents.cli.fake_server import FINGERPRINT, OLD, SECRET, FakeOperations
from tests.agents.server.api.asking import ME, ask, raw, refused

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
