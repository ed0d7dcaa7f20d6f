"""Who signs at a zone server: clients, by its own client CA, and nobody else (A6, E2)."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from agents.member.keyring import Keyring
from agents.responder.enrolment import Applicant, Terms
from agents.runtime.clock import Clock
from agents.runtime.errors import UnavailableError
from pki.certificates import Kind
from pki.issuance import Issuer
from pki.rotation import Policy
from protocol.messages import Pending, Refused

__all__ = ["ZoneSigning"]


class ZoneSigning:
    """Clients' keys, by our client CA.

    Args:
        renew_ca: gets a new client CA from the server; raises UnavailableError.
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

    async def admit(self, applicant: Applicant) -> Pending | Refused | None:
        """Everybody who has a bundle."""
        return None

    async def terms(self, kind: Kind) -> Terms:
        """The client CA; one that is too short for the client validity is replaced first.

        If that cannot be done now, what it signs ends with it (A13).
        """
        policy = self._policies()[kind]
        held = self._keyring.credential(Kind.CLIENT_CA)
        if held is not None and held.leaf.not_after < self._clock.now() + policy.validity:
            with suppress(UnavailableError):
                await self._renew_ca()
            held = self._keyring.credential(Kind.CLIENT_CA)
        if held is None:
            raise UnavailableError("no client CA yet: the zone server is not approved", 5.0)
        return Terms(Issuer(held.key, held.chain), policy)
