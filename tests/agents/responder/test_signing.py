"""Who signs clients' keys, and until when (A13)."""

import asyncio
from datetime import timedelta

import pytest

from agents.responder.enrolment import Applicant
from agents.responder.signing import RETRY, ClientSigning
from agents.runtime.errors import UnavailableError
from pki.certificates import Kind
from pki.names import Role
from pki.rotation import Policy
from tests.support.clock import FakeClock, settle
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
        self.next_days = 180
        self.policy = POLICIES[KIND]
        self.signing = ClientSigning(
            self.keyring,
            self.clock,
            policies=lambda: {KIND: self.policy},
            renew_ca=self.renew,
        )

    async def renew(self) -> None:
        self.renewed += 1
        await settle()  # as long as a renewal takes, others come
        if not self.available:
            raise UnavailableError("no hub is connected")
        self.certify(self.next_days)

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


@pytest.mark.req("A13")
async def test_many_at_once_have_the_ca_replaced_once() -> None:
    case = Case()
    case.certify(days=10)
    old = (await case.signing.terms(KIND)).issuer.facts
    case.policy = Policy(validity=30 * DAY, window=case.policy.window)
    many = await asyncio.gather(*(case.signing.terms(KIND) for _ in range(20)))
    assert case.renewed == 1
    assert len({terms.issuer.facts.key_id for terms in many} | {old.key_id}) == 2
    assert all(terms.issuer.facts.not_after >= case.clock.now() + 30 * DAY for terms in many)


@pytest.mark.req("A13")
@pytest.mark.parametrize("available", [False, True], ids=["no hub", "the new one is as short"])
async def test_one_that_stays_too_short_is_asked_for_once_in_a_while(available: bool) -> None:
    case = Case()
    case.certify(days=10)
    case.available, case.next_days = available, 10
    case.policy = Policy(validity=30 * DAY, window=case.policy.window)
    for _ in range(2):
        many = await asyncio.gather(*(case.signing.terms(KIND) for _ in range(20)))
        assert {t.issuer.facts.not_after for t in many} == {case.clock.now() + 10 * DAY}
        assert case.renewed == 1
    case.clock.move_network(RETRY)
    case.available, case.next_days = True, 180
    terms = await case.signing.terms(KIND)
    assert case.renewed == 2
    assert terms.issuer.facts.not_after >= case.clock.now() + 30 * DAY


async def test_whoever_waited_for_one_that_gave_up_goes_on() -> None:
    case = Case()
    case.certify(days=10)
    case.policy = Policy(validity=30 * DAY, window=case.policy.window)
    first = asyncio.ensure_future(case.signing.terms(KIND))
    second = asyncio.ensure_future(case.signing.terms(KIND))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).issuer.facts.not_after >= case.clock.now() + 30 * DAY
