"""What a client remembers beside its keys and its ledger: how it last registered.

The token of the last registration shows that the next one comes from the same machine (F1). It
is written when the answer has come; a crash before that leaves the one before, which the
responder still accepts. A token is kept for each responder: a client that goes from one to
another and back is asked for the one that it was given there.

What a responder says is kept within bounds, so that none can write a file that the next start
does not read: the last `MAX_RESPONDERS` of them, and of settings those that are known.
"""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agents.member.shared_settings import known_settings
from agents.runtime.errors import MissingError, StateError
from agents.runtime.files import Files

__all__ = ["MAX_RESPONDERS", "Memory", "Registration"]

MAX_RESPONDERS = 8
"""Responders whose token is kept; of more, the one that was not used for longest is forgotten."""
MAX_FILE = 64 << 10


@dataclass(frozen=True, slots=True)
class Registration:
    """What the last registration left."""

    responder: str = ""
    """Hex id of the responder that gave the token."""
    token: str = field(default="", repr=False)
    settings: dict[str, str] = field(default_factory=dict)
    """Client settings as the responder gave them (J1)."""


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tokens: dict[str, str]
    """Hex ids of responders and what each gave last, the one used last at the end."""
    settings: dict[str, str]


class Memory:
    """Keeps the last registration at each responder in a file."""

    def __init__(self, path: Path, files: Files) -> None:
        self._path = path
        self._files = files
        self._kept = self._read()

    @property
    def last(self) -> Registration:
        """The last registration, at whichever responder."""
        responder, token = next(reversed(self._kept.tokens.items()), ("", ""))
        return Registration(responder, token, self._kept.settings)

    def token(self, responder: bytes) -> bytes:
        """What this responder gave last; empty where nothing is remembered."""
        return bytes.fromhex(self._kept.tokens.get(responder.hex(), ""))

    def keep(self, registration: Registration) -> None:
        """Remember this one; durable on return.

        Raises:
            StateError: it cannot be written; what was remembered before still is.
        """
        tokens = dict(self._kept.tokens)
        tokens.pop(registration.responder, None)
        tokens[registration.responder] = registration.token
        for oldest in list(tokens)[:-MAX_RESPONDERS]:
            del tokens[oldest]
        self._write(_Kept(tokens, known_settings(registration.settings)))

    def forget(self) -> None:
        """Remember nothing: whoever we were, we are another now."""
        self._write(_Kept({}, {}))

    def _write(self, kept: _Kept) -> None:
        if kept != self._kept or list(kept.tokens) != list(self._kept.tokens):
            self._files.write_atomic(self._path, msgspec.json.encode(kept))
            self._kept = kept

    def _read(self) -> _Kept:
        try:
            data = self._files.read_file(self._path, max_bytes=MAX_FILE)
        except MissingError:
            return _Kept({}, {})
        try:
            kept = msgspec.json.decode(data, type=_Kept)
            for text in (*kept.tokens, *kept.tokens.values()):
                bytes.fromhex(text)
        except (msgspec.DecodeError, ValueError, RecursionError) as exc:
            raise StateError(
                f"{self._path} is damaged: {exc}",
                hint="remove it: the client registers again, as one that was copied if it must",
            ) from exc
        return kept
