"""Signing a certificate and putting it on record, the one way in which it is done.

A server certifies its own keys, and a responder those of others; both in this order:

1. sign     under the constraints of `pki.issuance`, with a serial number of the same rule.
2. record   durably: a crash before that has issued nothing that anybody holds.
3. say      `certificate.issued`, one line a certificate.

Only then does the chain leave this room.
"""

import secrets
from collections.abc import Callable
from typing import NamedTuple

from agents.responder.records import IssuanceRecord, IssuedRecord
from agents.runtime.clock import Clock
from agents.runtime.logs import Logger
from pki import certificates, issuance
from pki.certificates import Kind
from pki.issuance import Issuer
from pki.rotation import Policy

__all__ = ["Issuing", "Terms"]


class Terms(NamedTuple):
    """What a certificate is issued with."""

    issuer: Issuer
    policy: Policy


class Issuing:
    """Issues certificates.

    Args:
        deployment: what every name is of.
        record: where an issue is recorded before its certificate leaves.
        random: gives serial numbers.
    """

    def __init__(
        self,
        *,
        deployment: bytes,
        record: IssuanceRecord,
        clock: Clock,
        log: Logger,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._deployment = deployment
        self._record = record
        self._clock = clock
        self._log = log
        self._random = random

    async def issue(self, kind: Kind, holder: bytes, csr: bytes, terms: Terms) -> tuple[bytes, ...]:
        """Certify the key of a request, and return its chain, DER, leaf first.

        Args:
            kind: what the key will be for.
            holder: component id of whoever holds it.
            csr: the request, DER; nothing but its key is taken from it.
            terms: who signs, and for how long.

        Raises:
            PKIError: the request is none, or a constraint objects.
            StateError: the issue could not be recorded.
        """
        now = self._clock.now()
        issuer = terms.issuer
        leaf = issuance.certify(
            issuer,
            certificates.parse_request(csr),
            kind=kind,
            name=certificates.name_of(self._deployment, kind, holder),
            validity=terms.policy.validity,
            now=now,
            serial=issuance.serial(self._random, now),
        )
        issued = IssuedRecord(
            serial=leaf.serial,
            kind=str(kind),
            holder=holder,
            key_id=leaf.key_id,
            issuer=issuer.facts.key_id,
            root=certificates.read(issuer.chain[-1]).key_id,
            not_before=leaf.not_before,
            not_after=leaf.not_after,
            at=now,
        )
        await self._record.record(issued)
        self._log.info(
            "certificate.issued",
            kind=issued.kind,
            holder=holder.hex(),
            fingerprint=leaf.fingerprint,
            issuer=issued.issuer.hex(),
            root=issued.root.hex(),
            not_after=leaf.not_after,
        )
        return (leaf.der, *issuer.chain)
