"""Signing other components' certificates: the issuer's half of enrolment and renewal.

A request is answered in this order, and a failure anywhere answers REFUSED and changes nothing:

1. room       no more requests at work than there may be, or "retry after" (E6).
2. kind       one that this responder signs.
3. nonce      ours, for this identity key and kind, unspent, younger than a minute.
4. identity   the identity key signed exactly this request, on this very link (B15); where the
              link proves somebody, it is he who asks, in his own role.
5. admission  what the kind asks for: nothing for a client, an approval for hub and zone server.
6. request    a P-256 key whose holder signed the request (A7), nothing else in it.
7. issue      under the constraints of `pki.issuance`, never beyond the issuer's end (A13).
8. record     on disk; only then does the certificate leave.

The same request renews: there is no other way to a certificate, and none without the identity
key, so a stolen certificate cannot prolong itself.
"""

import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import NamedTuple, Protocol

from agents.responder.issuing import Issuing, Terms
from agents.responder.nonces import Nonces
from agents.responder.records import IssuanceRecord
from agents.runtime.clock import Clock
from agents.runtime.errors import StateError, UnavailableError
from agents.runtime.logs import Logger
from agents.runtime.remedies import REMEDIES
from pki import enrolment, keys
from pki.certificates import Kind
from pki.errors import PKIError, SignatureError
from pki.keys import KeyId
from pki.names import Name, Role
from protocol.messages import Enrol, Issued, Nonce, NonceGet, Pending, Refused

__all__ = ["Applicant", "Enrolment", "Signing", "Terms"]

MAX_AT_WORK = 256
"""Requests at work at once; each is about a millisecond of CPU and one durable write."""
ASSUMED_CAPACITY = 200.0
"""Requests a second, until enough were measured."""
MEASURED_FROM = 20
RETRY_AFTER = 2.0
"""Seconds that a request is asked to wait when there is no room."""

EXPECTED = "a P-256 key of its own, for a kind signed here, signed on this link with our nonce"
REFUSED: Mapping[str, str] = {
    "approval": "nothing if it was denied or revoked on purpose; otherwise approve it",
    "nonce": "nothing if it comes back; otherwise somebody repeats what he has heard",
    "unavailable": "nothing if it comes back; otherwise see why this responder cannot sign",
}
"""What an operator can do about a refusal that is nobody's offence."""

APPROVED_ROLES: Mapping[Kind, Role] = {
    Kind.HUB_TLS: Role.HUB,
    Kind.ZONE_SERVER_TLS: Role.ZONE_SERVER,
    Kind.CLIENT_CA: Role.ZONE_SERVER,
}
"""The kinds that an administrator has to approve, and the role that may ask for each."""

ROLES: Mapping[Kind, Role] = {Kind.CLIENT_TLS: Role.CLIENT, **APPROVED_ROLES}
"""The role that may ask for each kind."""


class Applicant(NamedTuple):
    """Who asks for a certificate, as far as the request and its link prove it."""

    kind: Kind
    id: bytes
    """Component id, from the identity key that signed the request."""
    spki: bytes
    host: str
    address: str


class Signing(Protocol):
    """Who signs certificates of one kind, for whom, and on what terms."""

    async def admit(self, applicant: Applicant) -> Pending | Refused | None:
        """None to go on; otherwise the answer."""

    async def terms(self, kind: Kind) -> Terms:
        """The issuing key and the policy now in force.

        Raises:
            UnavailableError: nothing can be signed now.
        """


class Binding(NamedTuple):
    """What a request on one link has to be signed for."""

    issuers: Collection[KeyId]
    """The TLS keys that we may have shown there, the likeliest first: each that is tried in vain
    costs as much as the right one."""
    exporter: bytes
    peer: Name | None
    """Who the link says it is, on a member link."""
    address: str
    link: str = ""
    """Number of the connection, for log lines."""


class Enrolment:
    """Answers NONCE_GET and ENROL.

    Args:
        signing: who signs each kind.
        most: requests that may be at work at once.
        random: gives nonces and serial numbers.
    """

    def __init__(
        self,
        signing: Mapping[Kind, Signing],
        *,
        deployment: bytes,
        record: IssuanceRecord,
        clock: Clock,
        log: Logger,
        most: int = MAX_AT_WORK,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._signing = signing
        self._kinds = {kind.value: kind for kind in signing}
        self._deployment = deployment
        self._clock = clock
        self._log = log
        self._most = most
        self._issuing = Issuing(
            deployment=deployment, record=record, clock=clock, log=log, random=random
        )
        self._nonces = Nonces(clock, random=random)
        self._inside = 0
        """Requests that are at work, or wait for their turn."""
        self._at_work = 0
        self._busy = 0.0
        self._served = 0

    @property
    def capacity(self) -> float:
        """Requests a second that we have been able to answer, measured (B13)."""
        if self._served < MEASURED_FROM:
            return ASSUMED_CAPACITY
        return self._served / max(self._busy, 1e-3)

    def nonce(self, message: NonceGet, holder: str) -> Nonce | Refused:
        """A nonce for one request, for who asks on the link of this number."""
        if message.kind not in self._kinds:
            return Refused(reason="kind", text=f"no {message.kind!r} is signed here")
        return Nonce(nonce=self._nonces.give(message.spki, message.kind, holder))

    async def enrol(
        self,
        message: Enrol,
        binding: Binding,
        turn: Callable[[], Awaitable[None]] | None = None,
    ) -> Issued | Pending | Refused:
        """Sign a request, or say why not.

        Args:
            message: The request.
            binding: What it has to be signed for.
            turn: Waited for first, if there is one. Those who wait are bounded too: else the
                requests of many strangers would hold up all that stands in the same line.
        """
        if self._inside >= self._most:
            return Refused(reason="busy", text="too many requests", retry_after=RETRY_AFTER)
        self._inside += 1
        try:
            if turn is not None:
                await turn()
            return await self._work(message, binding)
        finally:
            self._inside -= 1

    async def _work(self, message: Enrol, binding: Binding) -> Issued | Pending | Refused:
        self._at_work += 1
        started = self._clock.monotonic()
        hint = ""
        try:
            answer = await self._enrol(message, binding)
        except PKIError as exc:
            answer = Refused(reason="request", text=str(exc))
        except (UnavailableError, StateError) as exc:
            answer = Refused(reason="unavailable", text=str(exc), retry_after=RETRY_AFTER)
            hint = exc.hint
        finally:
            self._at_work -= 1
            # Requests that were at work at once share the time.
            self._busy += (self._clock.monotonic() - started) / (self._at_work + 1)
            self._served += 1
        if isinstance(answer, Refused):
            self._log.warning(
                "enrolment.refused",
                kind=message.kind,
                host=message.host,
                fingerprint=_fingerprint(message.spki),
                remote=binding.address,
                link=binding.link,
                expected=EXPECTED,
                reason=answer.text,
                remedy=hint or REFUSED.get(answer.reason, REMEDIES["not_allowed"]),
            )
        return answer

    async def _enrol(self, message: Enrol, binding: Binding) -> Issued | Pending | Refused:
        kind = self._kinds.get(message.kind)
        if kind is None:
            return Refused(reason="kind", text=f"no {message.kind!r} is signed here")
        signing = self._signing[kind]
        if not self._nonces.spend(message.nonce, message.spki, message.kind):
            return Refused(reason="nonce", text="nonce unknown, spent or expired", retry_after=0.0)
        component = self._proven(message, binding)
        if binding.peer is not None and binding.peer.id != component:
            return Refused(reason="identity", text="the link is another component's")
        if binding.peer is not None and binding.peer.role is not ROLES[kind]:
            return Refused(reason="role", text=f"a {binding.peer.role} gets no {kind}")
        applicant = Applicant(kind, component, message.spki, message.host, binding.address)
        held_up = await signing.admit(applicant)
        if held_up is not None:
            return held_up
        terms = await signing.terms(kind)
        chain = await self._issuing.issue(kind, component, message.csr, terms)
        issued = Issued(chain=list(chain), window=int(terms.policy.window.total_seconds()))
        # Whoever was revoked since was denied what was on record then: this must not leave.
        return await signing.admit(applicant) or issued

    def _proven(self, message: Enrol, binding: Binding) -> bytes:
        """The component whose identity key signed this request for this link.

        Raises:
            SignatureError: it signed something else.
        """
        for issuer in binding.issuers:
            try:
                return enrolment.verify_request(
                    message.spki,
                    message.signature,
                    deployment=self._deployment,
                    issuer=issuer,
                    nonce=message.nonce,
                    csr=message.csr,
                    binding=binding.exporter,
                )
            except SignatureError:
                continue
        raise SignatureError("the identity key did not sign this request on this link")


def _fingerprint(spki: bytes) -> str:
    try:
        return keys.key_id(spki).hex()
    except PKIError:
        return "-"
