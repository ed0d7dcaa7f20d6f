"""What the API answers."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from agents.server.errors import OperationError
from tests.agents.cli.fake_server import FINGERPRINT, OLD, FakeOperations
from tests.agents.server.api.asking import ME, ask, raw, refused


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


def test_an_error_has_a_known_code() -> None:
    with pytest.raises(ValueError, match="code is 'other'"):
        OperationError("other", "text")
