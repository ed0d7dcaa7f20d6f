"""What may come in: every body, query and name of the API, and what they are held to.

What is not known is refused: a field, a query parameter, a character that does not print. A body
is measured before it is parsed, a name before it is looked up.
"""

import re
from collections.abc import Sequence
from typing import Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request

from agents.server.errors import OperationError

__all__ = [
    "MAX_BODY",
    "MAX_REVOKE_BODY",
    "BundleBody",
    "DecideBody",
    "RevokeBody",
    "RootBody",
    "SettingBody",
    "component_ids",
    "fingerprint",
    "flag",
    "no_query",
    "read_body",
    "receive",
    "root_name",
    "setting_name",
    "text",
]

MAX_BODY: Final = 64 * 1024
"""Bytes of a request's body."""
MAX_REVOKE_BODY: Final = 8 * 1024 * 1024
"""Bytes of the one that names everybody who has not moved: 200,000 components."""
MAX_NAME: Final = 300
"""Characters of a root's name; an FQDN has at most 253."""
MAX_REASON: Final = 1000
MAX_VALUE: Final = 4096
MAX_SETTINGS: Final = 256

T = TypeVar("T", bound="Body")


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A JSON object of known fields."""


class RootBody(Body, frozen=True, kw_only=True):
    """POST /v1/roots."""

    confirmed: bool = False


class RevokeBody(Body, frozen=True, kw_only=True):
    """POST /v1/roots/{name}/revoke."""

    reason: str
    key_in_doubt: bool = False
    confirmed: bool = False
    shown: list[str] | None = None
    """Ids of those who were shown as not moved; null: whoever it is."""


class DecideBody(Body, frozen=True, kw_only=True):
    """POST /v1/approvals/{fingerprint}/{verb}."""

    reason: str = ""


class BundleBody(Body, frozen=True, kw_only=True):
    """POST /v1/bundle."""

    settings: dict[str, str] = {}


class SettingBody(Body, frozen=True, kw_only=True):
    """PUT /v1/settings/{name}."""

    value: str


async def receive(request: Request, most: int = MAX_BODY) -> bytes:
    """Read the body of a request: whole, before anything is refused, so that the answer arrives.

    Args:
        request: The request.
        most: Bytes that it may have.

    Raises:
        OperationError: It is too large.
    """
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:12]) > most:
        raise _too_large(most)
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > most:
            raise _too_large(most)
    return bytes(data)


def read_body(request: Request, kind: type[T]) -> T:
    """Return what was received as `request.state.body`; nothing is an object without fields.

    Raises:
        OperationError: Not JSON, or not of this form.
    """
    data: bytes = request.state.body
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if data and media_type != "application/json":
        raise _bad(f"body is {media_type!r:.60}, expected application/json")
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _bad(f"body: {ascii(str(exc))[1:-1]:.200}") from exc


def flag(request: Request, name: str) -> bool:
    """Return a query parameter that is true or false, the only one allowed.

    Raises:
        OperationError: It is something else, or there is another.
    """
    found = _query(request)
    if not found:
        return False
    if len(found) > 1 or found[0][0] != name or found[0][1] not in ("true", "false"):
        raise _bad(f"query is {request.url.query!r:.60}, expected {name}=true or {name}=false")
    return found[0][1] == "true"


def no_query(request: Request) -> None:
    """Refuse a query.

    Raises:
        OperationError: There is one.
    """
    if request.url.query:
        raise _bad(f"query is {request.url.query!r:.60}, expected none")


def root_name(request: Request) -> str:
    """Return the root that the path names."""
    name = text(request.path_params["name"], "name of a root", MAX_NAME)
    if not name or "/" in name:
        raise _bad(f"name of a root is {name!r:.60}")
    return name


def setting_name(request: Request) -> str:
    """Return the setting that the path names."""
    return _setting(request.path_params["name"])


def fingerprint(request: Request) -> str:
    """Return the fingerprint, or its beginning, that the path names; lower case."""
    found: str = request.path_params["fingerprint"]
    if not re.fullmatch("[0-9a-fA-F]{16,64}", found):
        raise _bad(f"fingerprint is {found!r:.80}, expected 16 to 64 hex digits")
    return found.lower()


def settings(body: BundleBody) -> dict[str, str]:
    """Return the settings that a bundle is to carry."""
    if len(body.settings) > MAX_SETTINGS:
        raise _bad(f"{len(body.settings)} settings, at most {MAX_SETTINGS}")
    return {_setting(name): text(value, name, MAX_VALUE) for name, value in body.settings.items()}


def component_ids(texts: Sequence[str]) -> list[bytes]:
    """Return component ids.

    Raises:
        OperationError: One is none.
    """
    wrong = [one for one in texts if not re.fullmatch("[0-9a-f]{32}", one)]
    if wrong:
        raise _bad(f"shown: {wrong[0]!r:.60} is no id of 32 hex digits")
    return [bytes.fromhex(one) for one in texts]


def text(value: str, what: str, maximum: int) -> str:
    """Return a text that people will read in a log or a table.

    Raises:
        OperationError: Too long, or it holds what does not print.
    """
    if len(value) > maximum:
        raise _bad(f"{what} of {len(value)} characters, at most {maximum}")
    if not value.isprintable():
        raise _bad(f"{what} holds a character that does not print: {value!r:.60}")
    return value


def _setting(name: str) -> str:
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,63}", name):
        raise _bad(f"name of a setting is {name!r:.80}, expected letters, digits and _")
    return name


def _query(request: Request) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            request.url.query, keep_blank_values=True, strict_parsing=True, max_num_fields=8
        )
    except ValueError as exc:
        if not request.url.query:
            return []
        raise _bad(f"query is {request.url.query!r:.60}") from exc


def _bad(problem: str) -> OperationError:
    return OperationError("bad-input", problem)


def _too_large(most: int) -> OperationError:
    return _bad(f"body of more than {most} bytes")
