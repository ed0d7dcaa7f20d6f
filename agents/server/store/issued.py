"""Every certificate that this server signed, recorded before it leaves.

Beside the rows stands a count for each signing key: rows go when their certificates have
expired, counts stay, and reading them costs nothing. A6 is measured by them: clients enrol,
and the root's count does not move.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Final

from sqlalchemy import Connection, RowMapping, delete, func, select

from agents.responder.records import IssuedRecord
from agents.server.store.insertion import Insertion
from agents.server.store.schema import issued as table
from agents.server.store.schema import issuer_count as counts
from agents.server.store.store import Store

__all__ = ["CLIENT_CA", "ROOT", "IssuedTable", "add", "count_by_issuer", "forget", "unexpired"]

ROOT: Final = "root"
CLIENT_CA: Final = "client-ca"

_ROWS: Final = Insertion(table)
_COUNTS: Final = Insertion(counts, {"signed": f"{counts.name}.signed + excluded.signed"})
_values: Final = attrgetter(*_ROWS.columns)


class IssuedTable:
    """The issuance record of a server: a table of its store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def record(self, issued: IssuedRecord) -> None:
        """Record an issue; returns when it is durable.

        Raises:
            StateError: the database refused it: no space, or the issuer used this serial
                number before. The certificate must not leave.
        """
        await self._store.put(add, issued)

    async def count_by_issuer(self) -> dict[str, int]:
        """How many certificates were signed ever, by kind of the key that signed."""
        return await self._store.read(count_by_issuer)

    async def unexpired(
        self, now: datetime, *, holders: Collection[bytes] | None = None
    ) -> list[IssuedRecord]:
        """Certificates that are not over, of one component or of all, oldest first."""
        return await self._store.read(
            lambda connection: unexpired(connection, now, holders=holders)
        )


def add(connection: Connection, records: Sequence[IssuedRecord]) -> None:
    """Record issues and count them."""
    _ROWS.put(connection, [_values(one) for one in records])
    kinds = {one.issuer: ROOT if one.issuer == one.root else CLIENT_CA for one in records}
    signed = Counter(one.issuer for one in records)
    _COUNTS.put(connection, [(issuer, kinds[issuer], more) for issuer, more in signed.items()])


def count_by_issuer(connection: Connection) -> dict[str, int]:
    """Signatures ever, by kind of signing key; both kinds are always there."""
    query = select(counts.c.kind, func.sum(counts.c.signed)).group_by(counts.c.kind)
    found = {kind: int(signed) for kind, signed in connection.execute(query)}
    return {ROOT: 0, CLIENT_CA: 0} | found


def unexpired(
    connection: Connection, now: datetime, *, holders: Collection[bytes] | None = None
) -> list[IssuedRecord]:
    """Certificates that are not over at `now`, of these holders or of all: what must be denied.

    All that are not over are looked at, once, for one holder too: an index of holders would cost
    each issue a page.
    """
    query = select(table).where(table.c.not_after > now).order_by(table.c.at, table.c.serial)
    if holders is not None:
        query = query.where(table.c.holder.in_(holders))
    return [_issued(row) for row in connection.execute(query).mappings()]


def forget(connection: Connection, before: datetime) -> int:
    """Drop the rows of certificates that were over before a date; returns how many."""
    return connection.execute(delete(table).where(table.c.not_after < before)).rowcount


def _issued(row: RowMapping) -> IssuedRecord:
    return IssuedRecord(**row)
