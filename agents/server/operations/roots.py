"""Roots: listed, created, revoked, and who has followed to them (B1-B3, B12, J4)."""

import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from agents.runtime import logs
from agents.runtime.trace import tracing
from agents.server import lineage
from agents.server.errors import OperationError
from agents.server.gate import Confirmation, Judgement, Verdict, judge_revoke
from agents.server.operations.desk import Desk, Row, coverage_row, iso, newest_created
from agents.server.settings import ROOT_INTERVAL
from agents.server.store import audit
from pki import certificates, rotation
from pki.certificates import Kind
from pki.entries import Root
from pki.keys import KeyId
from pki.rotation import Raise, too_soon

if TYPE_CHECKING:
    from agents.server.app import Server

__all__ = ["RootOperations", "root_row"]

log = logs.get_logger()


class RootOperations(Desk):
    """What may be asked about roots."""

    async def roots(self) -> list[Row]:
        """Every root that there ever was, oldest first."""
        authority = self._server.authority
        chain = authority.chain
        return [root_row(self._server, root) for root in chain.roots]

    async def root_new(self, actor: str, *, confirmed: bool) -> Row:
        """Create a further root (B1)."""
        async with self._changing:
            server = self._server
            now = server.clock.now()
            limit = timedelta(days=server.settings.days(ROOT_INTERVAL))
            if too_soon(newest_created(self._server), now, limit) and not confirmed:
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
                "root": root_row(self._server, self._by_id(root.key_id)),
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
                newest_created=newest_created(self._server),
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
        """Who made and revoked which root, and when; newest first (J4)."""
        chain = self._server.authority.chain
        done = lineage.audits(chain)
        records = await self._server.store.read(partial(audit.latest, limit=10_000, action="root."))
        return [
            {
                "at": iso(record.act.at),
                "actor": record.act.actor,
                "action": record.act.action,
                "subject": record.act.subject,
                "reason": record.act.reason,
                "result": _result(record, done),
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

    async def _note(self, actor: str, action: str, subject: str, reason: str) -> bytes:
        """Write the act down before it happens; the ledger entry names it by this hash."""
        act = audit.Act(
            at=self._server.clock.now(), actor=actor, action=action, subject=subject, reason=reason
        )
        salt = secrets.token_bytes(audit.MIN_SALT)
        await self._server.store.write(lambda c: audit.append(c, act, salt=salt))
        return audit.record_hash(act, salt)

    def _by_name(self, name: str) -> Root:
        for root in self._server.authority.chain.roots:
            if root.name == name:
                return root
        raise OperationError("not-found", f"no root {name!r:.200}", "see: anchorline root list")

    def _by_id(self, key_id: KeyId) -> Root:
        chain = self._server.authority.chain
        return chain.roots[lineage.place(chain, key_id)]


def root_row(server: "Server", root: Root) -> Row:
    """A root as JSON carries it."""
    chain = server.authority.chain
    judgement = _judge(server, root, in_doubt=False)
    in_doubt = _judge(server, root, in_doubt=True)
    return {
        "name": root.name,
        "fingerprint": root.key_id.hex(),
        "created": iso(certificates.created(root.der)),
        "current": root.key_id == chain.current_root.key_id,
        "revoked": root.key_id in chain.revoked,
        "revocable": judgement.verdict is Verdict.GO,
        "revocable_in_doubt": in_doubt.verdict is Verdict.GO,
        "why": judgement.why,
        "private_key_held": server.keyring.root(root.key_id) is not None,
    }


def _judge(server: "Server", root: Root, *, in_doubt: bool) -> Judgement:
    """Whether a root could be revoked now, whoever has not moved."""
    return judge_revoke(
        server.authority.chain,
        root.key_id,
        newest_created=newest_created(server),
        now=server.clock.now(),
        in_doubt=in_doubt,
    )


def _raised(raises: Sequence[Raise]) -> Mapping[Kind, list[str]]:
    """What was raised, by the kind of key that it is about."""
    by_kind: dict[Kind, list[str]] = {}
    for one in raises:
        by_kind.setdefault(rotation.kind_of(one.setting), []).append(one.why)
    return by_kind


def _result(record: audit.Record, done: Collection[bytes]) -> str:
    """What became of an act, or that its line is no longer the one that the ledger names."""
    if not record.is_intact:
        return "altered"
    return "done" if record.hash in done else "not completed"
