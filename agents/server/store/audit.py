"""The activity log: who did what, when and why. Appended to, never changed (J4).

A ledger entry names the record of the act behind it by a salted hash, because strangers
may read ledgers, and names and reasons stay on the server:

    audit field = SHA-256(salt || canonical(record))

The order is: make the `Act`, draw a salt, `record_hash` into the entry, sign it, and
`append` act and salt in the transaction that keeps the entry. `Record.is_intact` shows
later that a line is still the one that was named.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

from sqlalchemy import Connection, RowMapping, insert, select

from agents.server.store.schema import activity

__all__ = ["MIN_SALT", "Act", "Detail", "Record", "append", "find", "latest", "record_hash"]

MIN_SALT: Final = 16
"""Bytes of a salt; with less, who guesses a reason could confirm it in the ledger."""

Detail = str | int | bool | None | Sequence["Detail"] | Mapping[str, "Detail"]
"""What a detail may be; no floats, for a record has one text only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something that somebody did.

    Args:
        at: Policy time; kept to the second.
        actor: The Unix user, or the role for what a daemon does by itself.
        action: `noun.verb`, such as `root.revoke`.
        subject: What it was done to: a root's name, a setting, an id in hex.
        reason: What the actor gave as one; may be empty.
        details: More, by name. Never a secret.

    Raises:
        ValueError: a naive date.
        TypeError: details that JSON cannot say, or a float.
    """

    at: datetime
    actor: str
    action: str
    subject: str
    reason: str = ""
    details: Mapping[str, Detail] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ValueError(f"naive date {self.at.isoformat()}")
        _refuse_floats(self.details)

    def canonical(self) -> bytes:
        """The one text of this act: a JSON array, keys sorted, no spaces, UTF-8."""
        return _json(
            [
                "anchorline-activity-v1",
                int(self.at.timestamp()),
                self.actor,
                self.action,
                self.subject,
                self.reason,
                self.details,
            ]
        ).encode()


@dataclass(frozen=True, slots=True)
class Record:
    """A line of the log."""

    seq: int
    """Its number, growing with time."""
    act: Act
    salt: bytes | None
    """Of a line that a ledger entry names, else None."""
    hash: bytes | None
    """What the entry names it by, 32 bytes."""

    @property
    def is_intact(self) -> bool:
        """Whether the act is still the one that was hashed; true where none was."""
        if self.salt is None or self.hash is None:
            return self.salt is self.hash
        return record_hash(self.act, self.salt) == self.hash


def record_hash(act: Act, salt: bytes) -> bytes:
    """The `audit` field of the ledger entry behind an act (docs/spec/ledger.md, *Entry*): 32 bytes.

    Raises:
        ValueError: a salt of less than `MIN_SALT` bytes.
    """
    if len(salt) < MIN_SALT:
        raise ValueError(f"salt of {len(salt)} bytes, at least {MIN_SALT} are needed")
    return hashlib.sha256(salt + act.canonical()).digest()


def append(connection: Connection, act: Act, *, salt: bytes | None = None) -> int:
    """Add a line; returns its number.

    Args:
        connection: Of the transaction that does what the line says.
        act: What was done.
        salt: The one that went into the ledger entry; None where there is no entry.

    Raises:
        ValueError: a salt of less than `MIN_SALT` bytes.
    """
    result = connection.execute(
        insert(activity).values(
            at=act.at,
            actor=act.actor,
            action=act.action,
            subject=act.subject,
            reason=act.reason,
            details=_json(act.details),
            salt=salt,
            hash=None if salt is None else record_hash(act, salt),
        )
    )
    key = result.inserted_primary_key
    if key is None:  # pragma: no cover - a table with a counted key always has one
        raise AssertionError("the activity log counts its lines")
    return int(key[0])


def latest(
    connection: Connection, *, limit: int = 100, before: int | None = None, action: str = ""
) -> list[Record]:
    """The newest lines, newest first.

    Args:
        connection: A reader's.
        limit: At most so many.
        before: Only lines with a smaller number, to page on.
        action: Only actions that begin so: `root.` for all of roots.
    """
    query = select(activity).order_by(activity.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(activity.c.seq < before)
    if action:
        query = query.where(activity.c.action.startswith(action, autoescape=True))
    return [_record(row) for row in connection.execute(query).mappings()]


def find(connection: Connection, audit_hash: bytes) -> Record | None:
    """The line that a ledger entry names, or None."""
    query = select(activity).where(activity.c.hash == audit_hash).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else _record(row)


def _record(row: RowMapping) -> Record:
    act = Act(
        at=row["at"],
        actor=row["actor"],
        action=row["action"],
        subject=row["subject"],
        reason=row["reason"],
        details=json.loads(row["details"]),
    )
    return Record(seq=row["seq"], act=act, salt=row["salt"], hash=row["hash"])


def _json(value: object) -> str:
    return json.dumps(
        value,
        ensure_ascii=False,
        allow_nan=False,
        sort_keys=True,
        separators=(",", ":"),
        default=_plain,
    )


def _plain(value: object) -> dict[str, Detail]:
    """Mappings that are no dicts; everything else JSON must know itself."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a detail cannot be of type {type(value).__name__}")


def _refuse_floats(value: object) -> None:
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a detail's name is a text")
        for part in value.values():
            _refuse_floats(part)
    elif isinstance(value, list | tuple):
        for part in value:
            _refuse_floats(part)
    elif value is not None and not isinstance(value, str | int):
        raise TypeError(f"a detail cannot be of type {type(value).__name__}")
