"""Asking an issuer for a certificate: the requester's half of enrolment and renewal.

    requester                                      issuer
    NONCE_GET kind, identity     ───────────────►
                                 ◄───────────────  NONCE, for one request, good for 60 s
    ENROL csr, identity, sig     ───────────────►  checks, signs, records, and only then answers
                                 ◄───────────────  ISSUED | PENDING | REFUSED

The key is generated here and on disk before the request leaves (A7, A8). The identity key
signs deployment, issuer, nonce, request and the exporter of this very connection, so nothing
that was captured on one connection is good on another (*Signed requests* 3). What comes back is
believed only if it certifies our key, in our name, for this kind, under a root that we trust.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from agents.member.keyring import Credential, Keyring
from agents.member.trust import Trust
from agents.runtime.channel import Channel
from agents.runtime.errors import StateError, UnavailableError
from pki import certificates, enrolment, issuance, keys, rotation
from pki.certificates import Kind
from pki.errors import ExpiredError, NotYetValidError, PKIError
from pki.keys import KeyId
from pki.names import Name
from protocol.messages import Enrol, Issued, Nonce, NonceGet, Pending, Refused

__all__ = [
    "RELAYED",
    "IssuerRefusedError",
    "PendingError",
    "Standing",
    "request_certificate",
    "standing_of",
]


class PendingError(UnavailableError):
    """The request waits for an administrator's approval."""

    def __init__(self, fingerprint: str, retry_after: float) -> None:
        super().__init__(
            f"waiting for approval of {fingerprint}",
            retry_after,
            hint=f"on the server: anchorline approvals approve {fingerprint}",
        )
        self.fingerprint = fingerprint


class IssuerRefusedError(UnavailableError):
    """The issuer said no."""

    def __init__(self, reason: str, text: str, retry_after: float | None) -> None:
        super().__init__(f"refused by the issuer: {text} ({reason})", retry_after=retry_after)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Standing:
    """To whom a request is bound: the key that ends the link, and the link itself."""

    issuer: KeyId | None
    """KeyID of the TLS key that the issuer showed; None where a hub relays."""
    binding: bytes
    """32 bytes of exporter, or zeros where a hub relays."""


RELAYED = Standing(None, bytes(32))


def standing_of(channel: Channel) -> Standing:
    """The standing of a link that the issuer itself ends."""
    if channel.peer is None:
        raise LookupError("a discovery link proves no issuer")
    return Standing(channel.peer.leaf.key_id, channel.binding())


async def request_certificate(
    channel: Channel,
    kind: Kind,
    *,
    keyring: Keyring,
    trust: Trust,
    name: Name,
    now: datetime,
    standing: Standing,
    host: str,
) -> Credential:
    """Obtain and activate a certificate for a new key of this kind.

    Raises:
        PendingError: an administrator has to approve first.
        IssuerRefusedError: the issuer refuses.
        UnavailableError: the link broke, or what came back is not what was asked for.
    """
    key = keyring.prepare(kind)
    csr = certificates.make_request(key, kind)
    given = await channel.request(NonceGet(kind=kind.value, spki=keyring.identity_spki))
    if not isinstance(given, Nonce):
        raise _refusal(given)
    signature = enrolment.sign_request(
        keyring.identity,
        deployment=trust.deployment,
        issuer=standing.issuer or trust.newest_root,
        nonce=given.nonce,
        csr=csr,
        binding=standing.binding,
    )
    answer = await channel.request(
        Enrol(
            kind=kind.value,
            csr=csr,
            spki=keyring.identity_spki,
            nonce=given.nonce,
            signature=signature,
            secret=None,
            host=host,
        )
    )
    if not isinstance(answer, Issued):
        raise _refusal(answer)
    key_id = keys.key_id(key.public_key())
    chain = _checked(answer.chain, kind, trust=trust, name=name, key_id=key_id, now=now)
    try:
        return keyring.activate(kind, chain, _window(answer.window))
    except StateError as exc:
        # The disk is full, or another request for the same key was answered first.
        raise UnavailableError(exc.text, hint=exc.hint) from exc


def _checked(
    chain: Sequence[bytes], kind: Kind, *, trust: Trust, name: Name, key_id: KeyId, now: datetime
) -> tuple[bytes, ...]:
    try:
        issuance.check_issued(
            chain,
            key_id=key_id,
            kind=kind,
            name=name,
            roots=trust.trusted,
            now=now,
        )
    except (ExpiredError, NotYetValidError) as exc:
        raise UnavailableError(
            f"the issuer's answer is not ours: {exc}", hint="set the clocks of both hosts"
        ) from exc
    except PKIError as exc:
        raise UnavailableError(f"the issuer's answer is not ours: {exc}") from exc
    return tuple(chain)


def _window(seconds: int) -> timedelta:
    longest = timedelta(days=rotation.MAX_DAYS)
    if seconds > longest.total_seconds():
        raise UnavailableError(f"the issuer's answer is not ours: a window of {seconds} seconds")
    return timedelta(seconds=seconds)


def _refusal(answer: object) -> UnavailableError:
    match answer:
        case Pending(fingerprint=fingerprint, retry_after=retry_after):
            return PendingError(fingerprint, retry_after)
        case Refused(reason=reason, text=text, retry_after=retry_after):
            return IssuerRefusedError(reason, text, retry_after)
        case _:
            return UnavailableError(f"the issuer answered with {type(answer).__name__}")
