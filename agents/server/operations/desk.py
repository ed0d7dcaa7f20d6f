"""What the operations of a server share: the server, the order of changes, and coverage."""

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agents.server.coverage import Component, Coverage, cover
from pki import certificates
from pki.keys import KeyId
from pki.names import Role

if TYPE_CHECKING:
    from agents.server.app import Server

__all__ = ["Desk", "Row", "coverage_row", "iso", "newest_created"]

Row = dict[str, Any]


class Desk:
    """Where an administrator is served; changes run one after the other."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._changing = asyncio.Lock()

    def _cover(self, root: KeyId) -> Coverage:
        server = self._server
        return cover(
            server.authority.chain,
            root,
            [*server.approved_components(), *self._clients()],
            server.acknowledgements.of(server.authority.slot),
        )

    def _clients(self) -> list[Component]:
        return [
            Component(
                Role.CLIENT.value,
                row.record.id,
                row.record.host,
                row.present,
                row.record.last_registration,
            )
            for row in self._server.registry.rows()
        ]


def newest_created(server: "Server") -> datetime:
    """When the newest root was made."""
    return certificates.created(server.authority.chain.current_root.der)


def coverage_row(coverage: Coverage) -> Row:
    """Coverage as JSON carries it."""
    rows = [
        {
            "role": row.component.role,
            "id": row.component.id.hex(),
            "host": row.component.host,
            "state": row.state.value,
            "why": row.why,
            "last_seen": iso(row.component.last_seen),
        }
        for row in coverage.rows
    ]
    return {
        "root": coverage.name,
        "counts": {role: dict(count) for role, count in coverage.counts().items()},
        "rows": rows,
        "behind": [row for row in rows if row["state"] != "moved"],
    }


def iso(date: datetime | None) -> str | None:
    """A date as JSON carries it: to the second, whatever more is known of it."""
    return None if date is None else date.isoformat(timespec="seconds")
