"""Who signs at a zone server, and until when (A13)."""

from datetime import timedelta

import pytest

from agents.responder.enrolment import Applicant
from agents.runtime.errors import UnavailableError
from agents.zone_server.signing import ZoneSigning
from pki.certificates import Kind
from pki.names import Role
from pki.rotation import Policy
from tests.support.clock import FakeClock
from tests.support.deployment import POLICIES, Deployment

KIND = Kind.CLIENT_TLS
DAY = timedelta(days=1)


class Case:
    def __init__(self) -> None:
        self.site = Deployment()
        self.clock = FakeClock()
        self.keyring = self.site.member(Role.ZONE_SERVER, clock=self.clock).keyring
        self.renewed = 0
        self.available = True
        self.policy = POLICIES[KIND]
        self.signing = ZoneSigning(
            self.keyring,
            self.clock,
            policies=lambda: {KIND: self.policy},
            renew_ca=self.renew,
        )

    async def renew(self) -> None:
        self.renewed += 1
        if not self.available:
            raise UnavailableError("no hub is connected")
        self.certify()

    def certify(self, days: int = 180) -> None:
        now = self.clock.now()
        self.site.certify(self.keyring, Kind.CLIENT_CA, validity=days * DAY, now=now)


async def test_everybody_with_a_bundle_is_admitted() -> None:
    applicant = Applicant(KIND, bytes(16), b"", "host", "192.0.2.1")
    assert await Case().signing.admit(applicant) is None


async def test_without_a_client_ca_nothing_is_signed() -> None:
    with pytest.raises(UnavailableError, match="not approved") as caught:
        await Case().signing.terms(KIND)
    assert caught.value.retry_after is not None


@pytest.mark.req("A6")
async def test_signs_with_the_client_ca() -> None:
    case = Case()
    case.certify()
    terms = await case.signing.terms(KIND)
    assert terms.issuer.facts.kind is Kind.CLIENT_CA
    assert terms.policy == case.policy
    assert case.renewed == 0


@pytest.mark.req("A13")
async def test_a_ca_too_short_for_the_client_validity_is_replaced_first() -> None:
    case = Case()
    case.certify(days=10)
    old = (await case.signing.terms(KIND)).issuer.facts
    case.policy = Policy(validity=30 * DAY, window=case.policy.window)
    terms = await case.signing.terms(KIND)
    assert case.renewed == 1
    assert terms.issuer.facts.key_id != old.key_id
    assert terms.issuer.facts.not_after >= case.clock.now() + 30 * DAY


@pytest.mark.req("A13")
async def test_without_a_hub_the_one_that_there_is_signs_on() -> None:
    case = Case()
    case.certify(days=10)
    case.available = False
    case.policy = Policy(validity=30 * DAY, window=case.policy.window)
    terms = await case.signing.terms(KIND)
    assert terms.issuer.facts.not_after == case.clock.now() + 10 * DAY
