"""Every init bundle that was ever exported, by whom and when (D1).

The content is kept too: it holds no secret (D3), and before a revoke the catch-up is to be
rehearsed from every bundle that somebody may still start from. Equal contents are kept once
and counted.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, func, insert, select

from agents.server.store import audit
from agents.server.store.schema import bundle as table
from agents.server.store.schema import bundle_export as exports

__all__ = ["Export", "contents", "count", "every", "export"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A download of an init bundle."""

    seq: int
    """Its number: the first download is 1."""
    at: datetime
    actor: str
    digest: bytes
    """SHA-256 of the file, 32 bytes: what `sha256sum` prints of it."""
    fingerprint: bytes
    """The deployment fingerprint that it shows, 32 bytes."""


def export(
    connection: Connection, *, content: bytes, fingerprint: bytes, actor: str, at: datetime
) -> Export:
    """Record a download, with a line in the activity log, before the file is handed out."""
    digest = hashlib.sha256(content).digest()
    known = connection.execute(select(table.c.digest).where(table.c.digest == digest)).first()
    if known is None:
        row = {"digest": digest, "fingerprint": fingerprint, "content": content}
        connection.execute(insert(table).values(**row))
    connection.execute(insert(exports).values(digest=digest, at=at, actor=actor))
    act = audit.Act(
        at=at,
        actor=actor,
        action="bundle.export",
        subject=digest.hex(),
        details={"fingerprint": fingerprint.hex(), "bytes": len(content)},
    )
    audit.append(connection, act)
    query = _joined().order_by(exports.c.seq.desc()).limit(1)
    return _export(connection.execute(query).mappings().one())


def every(connection: Connection) -> list[Export]:
    """Every download, oldest first."""
    rows = connection.execute(_joined().order_by(exports.c.seq)).mappings()
    return [_export(row) for row in rows]


def count(connection: Connection) -> int:
    """How many downloads there were."""
    return int(connection.execute(select(func.count()).select_from(exports)).scalar_one())


def contents(connection: Connection) -> list[bytes]:
    """Every different bundle that was ever handed out."""
    return list(connection.execute(select(table.c.content).order_by(table.c.digest)).scalars())


def _joined() -> Select[*tuple[Any, ...]]:
    """Downloads with the fingerprint of what was downloaded."""
    return select(exports, table.c.fingerprint).join(table, table.c.digest == exports.c.digest)


def _export(row: RowMapping) -> Export:
    return Export(**row)
