"""Clients: every one that reports here or to a zone server of ours (F3, F4)."""

from agents.server.operations.desk import Desk, Row, iso
from pki.names import Role

__all__ = ["ClientOperations"]


class ClientOperations(Desk):
    """What may be asked about clients."""

    async def clients(self) -> list[Row]:
        """Every client of this server and of its zone servers (F3).

        Its key is the one that its link has proven when it registered last: what was issued to it
        since may not have reached it.
        """
        server = self._server
        trusted = server.trust.trusted
        rows: list[Row] = []
        for row in server.registry.rows():
            record, position = row.record, row.position
            own = record.responder == server.member.id
            rows.append(
                {
                    "id": record.id.hex(),
                    "host": record.host,
                    "address": record.claimed,
                    "seen": record.seen,
                    "port": record.port,
                    "protocol": record.protocol,
                    "version": record.version,
                    "last_registration": iso(record.last_registration),
                    "key_not_after": iso(record.key_not_after),
                    "root": None if record.root is None else record.root.hex(),
                    "valid_key": record.root in trusted
                    and record.key_not_after is not None
                    and record.key_not_after > server.clock.now(),
                    "responder": record.responder.hex(),
                    "responder_role": (Role.SERVER if own else Role.ZONE_SERVER).value,
                    "chain": position.chain if position else None,
                    "index": position.index if position else None,
                    "leader": position.leader if position else None,
                    "forward": position.forward.id.hex() if position and position.forward else None,
                    "backward": position.backward.id.hex()
                    if position and position.backward
                    else None,
                    "status": "present" if row.present else "offline",
                }
            )
        return rows
