"""Who signs clients' keys, the same at a server and at a zone server: the client CA (A6, E2).

Nothing outlives what vouches for it (A13). After a longer validity of clients' keys is set, a
client CA may end too early for it; it is replaced before the next client is signed. Clients
enrol side by side, and all of them find the same CA too short: one of them has it replaced, the
others wait for that. If it cannot be replaced, what is signed ends with the CA that there is,
and the next attempt is made after `RETRY`, not by every client.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

from agents.member.keyring import Credential, Keyring
from agents.responder.enrolment import Applicant
from agents.responder.issuing import Terms
from agents.runtime.clock import Clock
from agents.runtime.errors import UnavailableError
from pki.certificates import Kind
from pki.issuance import Issuer
from pki.rotation import Policy
from protocol.messages import Pending, Refused

__all__ = ["RETRY", "ClientSigning"]

RETRY: Final = 60.0
"""Seconds after an attempt that left a client CA too short, until the next one."""
NO_CA_YET: Final = 5.0
"""Seconds after which a client asks again where there is no client CA yet."""


class ClientSigning:
    """Clients' keys, by our client CA; `agents.responder.enrolment.Signing`.

    Args:
        policies: the policies in force, a kind.
        renew_ca: gets a new client CA and puts it into use; raises UnavailableError.
    """

    def __init__(
        self,
        keyring: Keyring,
        clock: Clock,
        *,
        policies: Callable[[], Mapping[Kind, Policy]],
        renew_ca: Callable[[], Awaitable[None]],
    ) -> None:
        self._keyring = keyring
        self._clock = clock
        self._policies = policies
        self._renew_ca = renew_ca
        self._renewing = asyncio.Lock()
        self._retry_at = 0.0
        self._issuer: tuple[Credential, Issuer] | None = None

    async def admit(self, applicant: Applicant) -> Pending | Refused | None:
        """Everybody who has a bundle."""
        return None

    async def terms(self, kind: Kind) -> Terms:
        """The client CA; one that is too short for the client validity is replaced first."""
        if self._too_short(kind):
            async with self._renewing:
                await self._replace(kind)
        held = self._keyring.credential(Kind.CLIENT_CA)
        if held is None:
            raise UnavailableError("no client CA yet: this responder is not approved", NO_CA_YET)
        return Terms(self._issuer_of(held), self._policies()[kind])

    def _issuer_of(self, held: Credential) -> Issuer:
        """The CA as an issuer, checked once for each."""
        if self._issuer is None or self._issuer[0] is not held:
            self._issuer = held, Issuer(held.key, held.chain)
        return self._issuer[1]

    async def _replace(self, kind: Kind) -> None:
        """Replace the CA, unless somebody has while we waited, or could not."""
        if not self._too_short(kind) or self._clock.monotonic() < self._retry_at:
            return
        with suppress(UnavailableError):
            await self._renew_ca()
        if self._too_short(kind):
            self._retry_at = self._clock.monotonic() + RETRY

    def _too_short(self, kind: Kind) -> bool:
        """Whether a certificate would not live as long as it now should."""
        held = self._keyring.credential(Kind.CLIENT_CA)
        if held is None:
            return False
        return held.leaf.not_after < self._clock.now() + self._policies()[kind].validity
