"""The administration API: HTTP in, one call of `Operations` out.

    GET  /v1/status                            everything on one screen
    GET  /v1/roots                             every root
    POST /v1/roots                             {"confirmed": bool}
    GET  /v1/roots/log                         who made and revoked which, newest first
    GET  /v1/roots/{name}/coverage             who has followed to it
    POST /v1/roots/{name}/revoke               {"reason", "key_in_doubt", "confirmed",
                                               "shown": [id]}
    GET  /v1/rotation?behind=                  coverage of the newest, and the policies
    GET  /v1/approvals                         hubs and zone servers that asked
    GET  /v1/approvals/log                     every request and decision, newest first
    POST /v1/approvals/{fingerprint}/{verb}    {"reason"}; approve, deny or revoke
    GET  /v1/clients                           every client
    POST /v1/bundle                            {"settings": {name: text}}; the bundle's bytes
    GET  /v1/settings, /v1/settings/{name}     values, defaults, what the rules make of them
    PUT  /v1/settings/{name}                   {"value"}

1. The peer is known before the request is looked at: no credentials, no answer but 403.
2. A refusal is `{"error": {"code", "text", "hint"}}` and its status; `code` is for programs.
3. A fault of ours is logged with its traceback and answered with a constant text: what an
   exception says may hold what the asker must not read.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agents.runtime import logs
from agents.runtime.errors import StateError, UnavailableError
from agents.server.api import input as incoming
from agents.server.api.operations import Operations
from agents.server.api.peer import Credentials, may_administer
from agents.server.errors import OperationError

__all__ = ["make_app"]

log = logs.get_logger()

STATUSES: Final = {
    "bad-input": 400,
    "forbidden": 403,
    "not-found": 404,
    "confirm": 409,
    "reason": 409,
    "refused": 409,
}
VERBS: Final = ("approve", "deny", "revoke")

Call: TypeAlias = Callable[[Request], Awaitable[Any]]


def make_app(operations: Operations) -> ASGIApp:
    """Return the API over the operations of one server."""
    api = _Calls(operations)
    app = Starlette(
        routes=[
            _route("/v1/status", "GET", api.status),
            _route("/v1/roots", "GET", api.roots),
            _route("/v1/roots", "POST", api.root_new),
            _route("/v1/roots/log", "GET", api.root_log),
            _route("/v1/roots/{name}/coverage", "GET", api.coverage),
            _route("/v1/roots/{name}/revoke", "POST", api.root_revoke),
            _route("/v1/rotation", "GET", api.rotation),
            _route("/v1/approvals", "GET", api.approvals),
            _route("/v1/approvals/log", "GET", api.approvals_log),
            _route("/v1/approvals/{fingerprint}/{verb}", "POST", api.decide),
            _route("/v1/clients", "GET", api.clients),
            _route("/v1/bundle", "POST", api.bundle),
            _route("/v1/settings", "GET", api.settings),
            _route("/v1/settings/{name}", "GET", api.setting),
            _route("/v1/settings/{name}", "PUT", api.setting_set),
        ],
        exception_handlers={HTTPException: _no_route},
    )
    app.router.redirect_slashes = False
    return _Guard(app)


class _Guard:
    """Lets in only whom the kernel vouches for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer: Credentials | None = scope.get("state", {}).get("credentials")
        if may_administer(peer):
            await self._app(scope, receive, send)
            return
        uid = "unknown" if peer is None else peer.uid
        log.warning("api.refused", uid=uid)
        refusal = _error(
            "forbidden",
            f"uid {uid} may not administer this server",
            "run this as root or as the user of the service",
        )
        await refusal(scope, receive, send)


class _Calls:
    """Each route: read what came, call, and return what is to be said."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def status(self, _request: Request) -> Any:  # noqa: ANN401 - JSON
        return await self._operations.status()

    async def roots(self, _request: Request) -> Any:  # noqa: ANN401
        return await self._operations.roots()

    async def root_new(self, request: Request) -> Any:  # noqa: ANN401
        body = incoming.read_body(request, incoming.RootBody)
        return await self._operations.root_new(_actor(request), confirmed=body.confirmed)

    async def root_log(self, _request: Request) -> Any:  # noqa: ANN401
        return await self._operations.root_log()

    async def coverage(self, request: Request) -> Any:  # noqa: ANN401
        return await self._operations.coverage(incoming.root_name(request))

    async def root_revoke(self, request: Request) -> Any:  # noqa: ANN401
        name = incoming.root_name(request)
        body = incoming.read_body(request, incoming.RevokeBody)
        return await self._operations.root_revoke(
            _actor(request),
            name,
            key_in_doubt=body.key_in_doubt,
            reason=incoming.text(body.reason, "reason", incoming.MAX_REASON),
            confirmed=body.confirmed,
            shown=None if body.shown is None else incoming.component_ids(body.shown),
        )

    async def rotation(self, request: Request) -> Any:  # noqa: ANN401
        return await self._operations.rotation(behind=incoming.flag(request, "behind"))

    async def approvals(self, _request: Request) -> Any:  # noqa: ANN401
        return await self._operations.approvals()

    async def approvals_log(self, _request: Request) -> Any:  # noqa: ANN401
        return await self._operations.approvals_log()

    async def decide(self, request: Request) -> Any:  # noqa: ANN401
        fingerprint = incoming.fingerprint(request)
        verb = request.path_params["verb"]
        if verb not in VERBS:
            raise OperationError("not-found", f"no decision {verb!r:.40}")
        body = incoming.read_body(request, incoming.DecideBody)
        reason = incoming.text(body.reason, "reason", incoming.MAX_REASON)
        return await self._operations.approvals_decide(_actor(request), fingerprint, verb, reason)

    async def clients(self, _request: Request) -> Any:  # noqa: ANN401
        return await self._operations.clients()

    async def bundle(self, request: Request) -> Response:
        body = incoming.read_body(request, incoming.BundleBody)
        data, fingerprint, count = await self._operations.bundle(
            _actor(request), incoming.settings(body)
        )
        headers = {"x-anchorline-fingerprint": fingerprint, "x-anchorline-count": str(count)}
        return Response(data, media_type="application/octet-stream", headers=headers)

    async def settings(self, _request: Request) -> Any:  # noqa: ANN401
        return await self._operations.settings()

    async def setting(self, request: Request) -> Any:  # noqa: ANN401
        name = incoming.setting_name(request)
        for row in await self._operations.settings():
            if row["name"] == name:
                return row
        raise OperationError("not-found", f"no setting {name!r}", "see: anchorline settings list")

    async def setting_set(self, request: Request) -> Any:  # noqa: ANN401
        name = incoming.setting_name(request)
        body = incoming.read_body(request, incoming.SettingBody)
        value = incoming.text(body.value, "value", incoming.MAX_VALUE)
        return await self._operations.setting_set(_actor(request), name, value)


def _route(path: str, method: str, call: Call) -> Route:
    takes_query = path == "/v1/rotation"
    most = incoming.MAX_REVOKE_BODY if path.endswith("/revoke") else incoming.MAX_BODY

    async def endpoint(request: Request) -> Response:
        try:
            request.state.body = await incoming.receive(request, most)
            if not takes_query:
                incoming.no_query(request)
            answer = await call(request)
        except OperationError as exc:
            return _error(exc.code, exc.text, exc.hint)
        except (UnavailableError, StateError) as exc:
            # A full disk, say, or a root without its private half: it says what to do.
            return _error("unavailable", exc.text, exc.hint, status=503)
        except Exception:
            log.exception("api.failed", method=method, path=path, actor=_actor(request))
            return _error("internal", "the server failed at this", "its log says why", status=500)
        return answer if isinstance(answer, Response) else _json(answer)

    return Route(path, endpoint, methods=[method], name=call.__name__)


def _actor(request: Request) -> str:
    peer: Credentials = request.state.credentials
    return peer.actor


async def _no_route(_request: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else 404
    text = "no such method here" if status == 405 else "no such path"
    return _error("not-found", text, status=status)


def _error(code: str, text: str, hint: str = "", *, status: int | None = None) -> Response:
    return _json(
        {"error": {"code": code, "text": text, "hint": hint}},
        status=STATUSES[code] if status is None else status,
    )


def _json(value: object, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
