"""What a client remembers beside its keys and its ledger: how it last registered.

The token of the last registration shows that the next one comes from the same machine (F1). It
is written when the answer has come; a crash before that leaves the one before, which the
responder still accepts.
"""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agents.runtime.errors import MissingError, StateError
from agents.runtime.files import Files

__all__ = ["Memory", "Registration"]

MAX_FILE = 64 << 10


@dataclass(frozen=True, slots=True)
class Registration:
    """What the last registration left."""

    responder: str = ""
    """Hex id of the responder that gave the token."""
    token: str = field(default="", repr=False)
    settings: dict[str, str] = field(default_factory=dict)
    """Client settings as the responder gave them (J1)."""


class Memory:
    """Keeps the last registration in a file."""

    def __init__(self, path: Path, files: Files) -> None:
        self._path = path
        self._files = files
        self.last = self._read()

    def keep(self, registration: Registration) -> None:
        """Remember this one; durable on return."""
        if registration != self.last:
            self._files.write_atomic(self._path, msgspec.json.encode(registration))
            self.last = registration

    def _read(self) -> Registration:
        try:
            data = self._files.read_file(self._path, max_bytes=MAX_FILE)
        except MissingError:
            return Registration()
        try:
            found = msgspec.json.decode(data, type=Registration)
            bytes.fromhex(found.responder + found.token)
        except (msgspec.DecodeError, ValueError, RecursionError) as exc:
            raise StateError(
                f"{self._path} is damaged: {exc}",
                hint="remove it: the client registers again, as one that was copied if it must",
            ) from exc
        return found
