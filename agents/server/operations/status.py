"""Everything on one screen."""

from datetime import timedelta

from agents.member.keyring import Credential
from agents.member.status import credential_row, link_row
from agents.server.operations.desk import Desk, Row, iso, newest_created
from agents.server.operations.roots import root_row
from agents.server.settings import ROOT_AGE_WARNING
from agents.server.store import approvals
from pki.names import Role
from pki.rotation import root_age_warning

__all__ = ["StatusOperations"]


class StatusOperations(Desk):
    """How the deployment is."""

    async def status(self) -> Row:
        """Everything on one screen."""
        server = self._server
        authority = server.authority
        coverage = self._cover(authority.chain.current_root.key_id)
        rows = server.registry.rows()
        behind = [
            f"{r.component.role} {r.component.host or r.component.id.hex()}"
            for r in coverage.behind
        ]
        age = server.clock.now() - newest_created(server)
        limit = timedelta(days=server.settings.days(ROOT_AGE_WARNING))
        last = authority.chain.last
        head = server.trust.head(authority.slot)
        listener = server.listener
        return {
            "role": Role.SERVER.value,
            "id": server.member.id.hex(),
            "deployment": server.trust.deployment.hex(),
            "fingerprint": server.trust.state.fingerprint,
            "time": iso(server.clock.now()),
            "server": {
                "fqdn": server.fqdn,
                "listen": f"{listener.host}:{listener.port}" if listener else None,
            },
            "roots": [
                root_row(server, root)
                for root in authority.chain.roots
                if root.key_id not in authority.chain.revoked
            ],
            "root_age": {
                "days": age.days,
                "warning": root_age_warning(newest_created(server), server.clock.now(), limit),
            },
            "keys": [self._key(held) for held in server.keyring.credentials],
            "ledger": {
                "slot": authority.slot.hex(),
                "n": last.n,
                "entry_id": last.id.hex(),
                "head_time": None if head is None else head.time,
            },
            "links": [link_row(channel) for channel in server.links],
            "components": await self._components(),
            "clients": {
                "total": len(rows),
                "present": sum(row.present for row in rows),
                "behind": sum(r.component.role == Role.CLIENT for r in coverage.behind),
            },
            "behind": behind,
            "signatures": await self._signatures(),
            "can_sign": authority.can_sign,
        }

    def _key(self, held: Credential) -> Row:
        """A certificate in use: the row of its report, with dates as they are here."""
        next_at = self._server.renewals[held.kind].next_at
        return {**credential_row(held, next_at), "next_renewal": iso(next_at)}

    async def _components(self) -> list[Row]:
        known = {c.id: c for c in self._server.approved_components()}
        rows = []
        for one in await self._server.store.read(approvals.every):
            component = known.get(one.component)
            rows.append(
                {
                    "role": one.role,
                    "id": one.component.hex(),
                    "host": one.host,
                    "fingerprint": one.identity.hex(),
                    "state": one.state.value,
                    "connected": component is not None and component.present,
                    "last_seen": iso(one.last_seen),
                }
            )
        return rows

    async def _signatures(self) -> Row:
        """Certificates signed by each kind of issuer (A6)."""
        counts = await self._server.issued.count_by_issuer()
        zones = sum(zone.issued for zone in self._server.infrastructure.zones.values())
        return {
            "root": counts.get("root", 0),
            "client_ca": counts.get("client-ca", 0),
            "zone_client_ca": zones,
        }
