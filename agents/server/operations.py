"""What an administrator may ask of a server, each as one call (J6).

The HTTP API and, behind it, the command line and a console call these and nothing else. Every
change names its actor, is written to the activity log before it happens, and goes through the
same rooms as what the server does by itself.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from agents.member.status import credential_row, link_row
from agents.runtime import logs
from agents.runtime.errors import AgentError
from agents.runtime.trace import tracing
from agents.server import bundling, lineage
from agents.server.coverage import Component, Coverage, cover
from agents.server.errors import OperationError
from agents.server.gate import Confirmation, Judgement, Verdict, judge_revoke
from agents.server.settings import ROOT_AGE_WARNING, ROOT_INTERVAL
from agents.server.store import approvals, audit
from agents.server.store.approvals import Approval, State
from pki import certificates, rotation
from pki.certificates import Kind
from pki.entries import Root
from pki.keys import KeyId
from pki.names import Role
from pki.rotation import Raise, root_age_warning, too_soon

if TYPE_CHECKING:
    from agents.server.app import Server

__all__ = ["ServerOperations"]

log = logs.get_logger()

Row = dict[str, Any]


class ServerOperations:
    """The operations of one server; changes run one after the other."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._changing = asyncio.Lock()

    # --- roots

    async def roots(self) -> list[Row]:
        """Every root that there ever was, oldest first."""
        authority = self._server.authority
        chain = authority.chain
        return [self._root_row(root) for root in chain.roots]

    async def root_new(self, actor: str, *, confirmed: bool) -> Row:
        """Create a further root (B1)."""
        async with self._changing:
            server = self._server
            now = server.clock.now()
            limit = timedelta(days=server.settings.days(ROOT_INTERVAL))
            if too_soon(self._newest_created(), now, limit) and not confirmed:
                raise OperationError(
                    "confirm",
                    f"the newest root is younger than {limit.days} days: rotating more often than"
                    " that costs every component a renewal and gains little",
                    "confirm to go on",
                )
            name = f"{server.fqdn} Root {len(server.authority.chain.roots)}"
            with tracing() as trace:
                audit_hash = await self._note(actor, "root.new", name, "")
                root = await server.new_root(audit_hash)
                log.info("root.created", name=name, fingerprint=root.fingerprint, actor=actor)
            return {
                "root": self._root_row(self._by_id(root.key_id)),
                "coverage": await self.coverage(None),
                "trace": trace,
            }

    async def root_revoke(
        self,
        actor: str,
        name: str,
        *,
        key_in_doubt: bool,
        reason: str,
        confirmed: bool,
        shown: Sequence[bytes] | None = None,
    ) -> Row:
        """Revoke a root (B2, B3).

        Args:
            actor: who asks for it.
            name: the root.
            key_in_doubt: whether others may have its key.
            reason: why.
            confirmed: whether it may be done although somebody has not moved.
            shown: the ids of those he knows of; None: whoever it is.
        """
        async with self._changing:
            server = self._server
            root = self._by_name(name)
            coverage = self._cover(server.authority.chain.current_root.key_id)
            judgement = judge_revoke(
                server.authority.chain,
                root.key_id,
                newest_created=self._newest_created(),
                now=server.clock.now(),
                in_doubt=key_in_doubt,
                behind=coverage.behind,
                confirmed=Confirmation(None if shown is None else frozenset(shown))
                if confirmed
                else None,
            )
            if judgement.verdict is Verdict.REFUSED:
                raise OperationError("refused", f"{name}: {judgement.why}")
            if judgement.verdict is Verdict.ONLY_IN_DOUBT:
                raise OperationError(
                    "refused", f"{name}: {judgement.why}", "if the key is in doubt, say so"
                )
            if not reason.strip():
                raise OperationError("reason", "a revocation needs a reason")
            if judgement.verdict is Verdict.CONFIRM:
                raise OperationError("confirm", judgement.why, "look again, and confirm to go on")
            with tracing() as trace:
                audit_hash = await self._note(actor, "root.revoke", name, reason)
                server.revoke([root.key_id], audit_hash)
                log.info(
                    "root.revoked",
                    name=name,
                    fingerprint=root.key_id.hex(),
                    actor=actor,
                    reason=reason,
                )
            return {"revoked": [name], "coverage": coverage_row(coverage), "trace": trace}

    async def coverage(self, root_name: str | None) -> Row:
        """Who has moved to a root; the newest if none is named."""
        chain = self._server.authority.chain
        root = self._by_name(root_name) if root_name else chain.current_root
        return coverage_row(self._cover(root.key_id))

    async def root_log(self) -> list[Row]:
        """Who made and revoked which root, and when (J4)."""
        chain = self._server.authority.chain
        done = lineage.audits(chain)
        records = await self._server.store.read(partial(audit.latest, limit=10_000, action="root."))
        return [
            {
                "at": record.act.at.isoformat(),
                "actor": record.act.actor,
                "action": record.act.action,
                "subject": record.act.subject,
                "reason": record.act.reason,
                "result": "done" if record.hash in done else "not completed",
            }
            for record in records
        ]

    async def rotation(self, *, behind: bool) -> Row:
        """Coverage of the newest root, and the policies in force."""
        row = await self.coverage(None)
        if behind:
            row["rows"] = row["behind"]
        settings = self._server.settings
        raised = _raised(settings.raises)
        row["settings"] = [
            {
                "kind": kind.value,
                "validity": int(policy.validity.total_seconds()),
                "window": int(policy.window.total_seconds()),
                "raised": raised.get(kind, []),
            }
            for kind, policy in settings.policies().items()
        ]
        return row

    # --- approvals

    async def approvals(self) -> list[Row]:
        """Every hub and zone server that asked."""
        return [approval_row(one) for one in await self._server.store.read(approvals.every)]

    async def approvals_decide(self, actor: str, fingerprint: str, verb: str, reason: str) -> Row:
        """Approve, deny or revoke one (I2)."""
        state = {"approve": State.APPROVED, "deny": State.DENIED, "revoke": State.REVOKED}.get(verb)
        if state is None:
            raise OperationError("bad-input", f"no decision {verb!r:.40}")
        async with self._changing:
            identity = await self._identity(fingerprint)
            server = self._server
            try:
                decided = await server.store.write(
                    partial(
                        approvals.decide,
                        identity=identity,
                        state=state,
                        actor=actor,
                        at=server.clock.now(),
                        reason=reason,
                    )
                )
            except AgentError as exc:
                raise OperationError("refused", str(exc), exc.hint) from exc
            log.info(
                "approval.decided",
                fingerprint=identity.hex(),
                state=state.value,
                actor=actor,
                reason=reason,
            )
            await server.approvals_changed()
            return approval_row(decided)

    async def approvals_log(self) -> list[Row]:
        """Every request and decision, oldest first."""
        events = await self._server.store.read(approvals.history)
        return [
            {
                "at": e.at.isoformat(),
                "actor": e.actor,
                "state": e.state.value,
                "fingerprint": e.identity.hex(),
                "host": e.host,
                "address": e.address,
                "reason": e.reason,
            }
            for e in events
        ]

    # --- clients

    async def clients(self) -> list[Row]:
        """Every client of this server and of its zone servers (F3)."""
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
                    "last_registration": _iso(record.last_registration),
                    "key_not_after": _iso(record.key_not_after),
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

    # --- bundle, settings, status

    async def bundle(self, actor: str, settings: Mapping[str, str]) -> tuple[bytes, str, int]:
        """The init bundle, its deployment fingerprint, and how often one was handed out (D1)."""
        return await bundling.export(self._server, actor, settings)

    async def settings(self) -> list[Row]:
        """Every setting."""
        return self._server.settings.rows()

    async def setting_set(self, actor: str, name: str, value: str) -> Row:
        """Change a setting; says what the rules raise because of it (B8)."""
        async with self._changing:
            server = self._server
            raised = await server.settings.set(name, value, actor=actor, at=server.clock.now())
            log.info("setting.changed", name=name, value=value, actor=actor)
            return {"name": name, "value": value, "raises": [one.why for one in raised]}

    async def status(self) -> Row:
        """Everything on one screen."""
        server = self._server
        authority = server.authority
        coverage = self._cover(authority.chain.current_root.key_id)
        rows = server.registry.rows()
        behind = [r.component.host or r.component.id.hex() for r in coverage.behind]
        age = server.clock.now() - self._newest_created()
        limit = timedelta(days=server.settings.days(ROOT_AGE_WARNING))
        last = authority.chain.last
        head = server.trust.head(authority.slot)
        listener = server.listener
        return {
            "role": Role.SERVER.value,
            "id": server.member.id.hex(),
            "deployment": server.trust.deployment.hex(),
            "fingerprint": server.trust.state.fingerprint,
            "time": server.clock.now().isoformat(),
            "server": {
                "fqdn": server.fqdn,
                "listen": f"{listener.host}:{listener.port}" if listener else None,
            },
            "roots": [
                {**self._root_row(root)}
                for root in authority.chain.roots
                if root.key_id not in authority.chain.revoked
            ],
            "root_age": {
                "days": age.days,
                "warning": root_age_warning(self._newest_created(), server.clock.now(), limit),
            },
            "keys": [
                credential_row(held, server.renewals[held.kind].next_at)
                for held in server.keyring.credentials
            ],
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

    # --- inside

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

    async def _components(self) -> list[Row]:
        known = {c.id: c for c in self._server.approved_components()}
        rows = []
        for one in await self._server.store.read(approvals.every):
            component = known.get(one.identity[:16])
            rows.append(
                {
                    "role": one.role,
                    "id": one.identity[:16].hex(),
                    "host": one.host,
                    "fingerprint": one.identity.hex(),
                    "state": one.state.value,
                    "connected": component is not None and component.present,
                    "last_seen": one.last_seen.isoformat(),
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

    async def _note(self, actor: str, action: str, subject: str, reason: str) -> bytes:
        """Write the act down before it happens; the ledger entry names it by this hash."""
        act = audit.Act(
            at=self._server.clock.now(), actor=actor, action=action, subject=subject, reason=reason
        )
        salt = secrets.token_bytes(audit.MIN_SALT)
        await self._server.store.write(lambda c: audit.append(c, act, salt=salt))
        return audit.record_hash(act, salt)

    async def _identity(self, fingerprint: str) -> bytes:
        """The identity that a fingerprint, or the beginning of one, names."""
        text = fingerprint.lower()
        if len(text) < 16 or not set(text) <= set("0123456789abcdef"):
            raise OperationError(
                "bad-input", "a fingerprint is 64 hex digits; its first 16 are enough"
            )
        every = await self._server.store.read(approvals.every)
        found = [one.identity for one in every if one.identity.hex().startswith(text)]
        if len(found) != 1:
            raise OperationError(
                "not-found",
                f"{len(found)} requests have fingerprint {text:.64}",
                "see: anchorline approvals list",
            )
        return found[0]

    def _by_name(self, name: str) -> Root:
        for root in self._server.authority.chain.roots:
            if root.name == name:
                return root
        raise OperationError("not-found", f"no root {name!r:.200}", "see: anchorline root list")

    def _by_id(self, key_id: KeyId) -> Root:
        chain = self._server.authority.chain
        return chain.roots[lineage.place(chain, key_id)]

    def _newest_created(self) -> datetime:
        return certificates.created(self._server.authority.chain.current_root.der)

    def _judge(self, root: Root, *, in_doubt: bool) -> Judgement:
        """Whether a root could be revoked now, whoever has not moved."""
        return judge_revoke(
            self._server.authority.chain,
            root.key_id,
            newest_created=self._newest_created(),
            now=self._server.clock.now(),
            in_doubt=in_doubt,
        )

    def _root_row(self, root: Root) -> Row:
        server = self._server
        chain = server.authority.chain
        judgement = self._judge(root, in_doubt=False)
        in_doubt = self._judge(root, in_doubt=True)
        return {
            "name": root.name,
            "fingerprint": root.key_id.hex(),
            "created": certificates.created(root.der).isoformat(),
            "current": root.key_id == chain.current_root.key_id,
            "revoked": root.key_id in chain.revoked,
            "revocable": judgement.verdict is Verdict.GO,
            "revocable_in_doubt": in_doubt.verdict is Verdict.GO,
            "why": judgement.why,
            "private_key_held": server.keyring.root(root.key_id) is not None,
        }


def coverage_row(coverage: Coverage) -> Row:
    """Coverage as JSON carries it."""
    rows = [
        {
            "role": row.component.role,
            "id": row.component.id.hex(),
            "host": row.component.host,
            "state": row.state.value,
            "why": row.why,
            "last_seen": _iso(row.component.last_seen),
        }
        for row in coverage.rows
    ]
    return {
        "root": coverage.name,
        "counts": {role: dict(count) for role, count in coverage.counts().items()},
        "rows": rows,
        "behind": [row for row in rows if row["state"] != "moved"],
    }


def approval_row(one: Approval) -> Row:
    """A request as JSON carries it."""
    return {
        "fingerprint": one.identity.hex(),
        "role": one.role,
        "host": one.host,
        "address": one.address,
        "state": one.state.value,
        "first_seen": one.first_seen.isoformat(),
        "last_seen": one.last_seen.isoformat(),
        "decided_by": one.decided_by,
        "decided_at": _iso(one.decided_at),
        "reason": one.reason,
    }


def _raised(raises: Sequence[Raise]) -> Mapping[Kind, list[str]]:
    """What was raised, by the kind of key that it is about."""
    by_kind: dict[Kind, list[str]] = {}
    for one in raises:
        by_kind.setdefault(rotation.kind_of(one.setting), []).append(one.why)
    return by_kind


def _iso(date: datetime | None) -> str | None:
    return None if date is None else date.isoformat()
