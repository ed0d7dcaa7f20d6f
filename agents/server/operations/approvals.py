"""Hubs and zone servers that ask to be let in: listed, decided, and what became of each (I2)."""

from contextlib import suppress
from functools import partial

from agents.runtime import logs
from agents.runtime.errors import AgentError
from agents.server.errors import OperationError
from agents.server.operations.desk import Desk, Row, iso
from agents.server.store import approvals
from agents.server.store.approvals import Approval, State

__all__ = ["ApprovalOperations"]

log = logs.get_logger()


class ApprovalOperations(Desk):
    """What may be asked about approvals."""

    async def approvals(self) -> list[Row]:
        """Every hub and zone server that asked."""
        return [_row(one) for one in await self._server.store.read(approvals.every)]

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
                # A commit that failed may be there all the same: what the list says must hold.
                with suppress(AgentError):
                    await server.approvals_changed()
                raise OperationError("refused", str(exc), exc.hint) from exc
            log.info(
                "approval.decided",
                fingerprint=identity.hex(),
                state=state.value,
                actor=actor,
                reason=reason,
            )
            await server.approvals_changed()
            return _row(decided)

    async def approvals_log(self) -> list[Row]:
        """Every request and decision, newest first."""
        events = await self._server.store.read(approvals.history)
        return [
            {
                "at": iso(e.at),
                "actor": e.actor,
                "state": e.state.value,
                "fingerprint": e.identity.hex(),
                "host": e.host,
                "address": e.address,
                "reason": e.reason,
            }
            for e in reversed(events)
        ]

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


def _row(one: Approval) -> Row:
    """A request as JSON carries it."""
    return {
        "fingerprint": one.identity.hex(),
        "role": one.role,
        "host": one.host,
        "address": one.address,
        "state": one.state.value,
        "first_seen": iso(one.first_seen),
        "last_seen": iso(one.last_seen),
        "decided_by": one.decided_by,
        "decided_at": iso(one.decided_at),
        "reason": one.reason,
    }
