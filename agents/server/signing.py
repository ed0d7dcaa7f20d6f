"""Who signs hubs' and zone servers' keys at a server: the root, after approval (I2).

A hub or a zone server is put on the list of pending requests with the fingerprint of its
identity key, and gets certificates only after an administrator has compared and approved it; a
denial or a revocation holds until it is decided otherwise. Clients are admitted as they come
(`agents.responder.signing`).
"""

from agents.responder.enrolment import APPROVED_ROLES, Applicant
from agents.responder.issuing import Terms
from agents.runtime.clock import Clock
from agents.runtime.errors import AgentError
from agents.runtime.logs import Logger
from agents.server.authority import Authority
from agents.server.store import Store, approvals
from agents.server.store.approvals import Approval, State
from pki import keys
from pki.certificates import Kind
from protocol.messages import Pending, Refused

__all__ = ["ApprovedSigning"]


class ApprovedSigning:
    """Hubs' and zone servers' keys, by the root, after approval.

    Args:
        retry_after: seconds after which one that is pending asks again.
    """

    def __init__(
        self,
        authority: Authority,
        store: Store,
        clock: Clock,
        log: Logger,
        *,
        retry_after: float,
    ) -> None:
        self._authority = authority
        self._store = store
        self._clock = clock
        self._log = log
        self._retry_after = retry_after

    async def admit(self, applicant: Applicant) -> Pending | Refused | None:
        """None once it is approved."""
        identity = keys.key_id(applicant.spki)
        try:
            approval = await self._ask(applicant, identity)
        except AgentError as exc:
            return Refused(reason="approval", text=str(exc), retry_after=self._retry_after)
        match approval.state:
            case State.APPROVED:
                return None
            case State.PENDING:
                return Pending(fingerprint=identity.hex(), retry_after=self._retry_after)
            case State.DENIED | State.REVOKED:
                return Refused(
                    reason="approval",
                    text=f"{approval.state} by an administrator",
                    retry_after=self._retry_after * 4,
                )

    async def terms(self, kind: Kind) -> Terms:
        """The current root."""
        return self._authority.terms(kind)

    async def _ask(self, applicant: Applicant, identity: bytes) -> Approval:
        approval = await self._store.write(
            lambda connection: approvals.ask(
                connection,
                identity=identity,
                role=APPROVED_ROLES[applicant.kind].value,
                host=applicant.host,
                address=applicant.address,
                at=self._clock.now(),
            )
        )
        if approval.first_seen == approval.last_seen and approval.state is State.PENDING:
            self._log.info(
                "approval.pending",
                fingerprint=identity.hex(),
                peer_role=approval.role,
                host=approval.host,
                remote=approval.address,
            )
        return approval
