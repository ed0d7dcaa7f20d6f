"""Asking for a certificate over real links: the old credential works until the new one does."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from msgspec.structs import replace

from agents.member.keyring import Credential
from agents.member.member import Member
from agents.member.requesting import RELAYED, IssuerRefusedError, PendingError, standing_of
from agents.runtime.channel import Channel
from agents.runtime.dialer import dial
from agents.runtime.errors import UnavailableError
from pki import certificates, keys
from pki.certificates import Kind
from pki.enrolment import NO_BINDING, verify_request
from pki.names import Role
from protocol.access import LinkClass
from protocol.messages import Enrol, Issued, Message, Nonce, NonceGet, Pending, Refused
from tests.support.channels import FakeChannel
from tests.support.clock import FakeClock
from tests.support.deployment import Deployment
from tests.support.responder import Responder, responding

pytestmark = pytest.mark.sockets

KIND = Kind.CLIENT_TLS


class Case:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.site = Deployment()
        self.member: Member = self.site.member(Role.CLIENT, clock=self.clock)

    async def link(self, responder: Responder, link_class: LinkClass) -> Channel:
        return await dial(
            *responder.address,
            endpoint=self.member.endpoint,
            link_class=link_class,
            verify=self.member.verifier(roles=frozenset({Role.SERVER})),
        )

    async def enrol(
        self, responder: Responder, link_class: LinkClass = LinkClass.ENROLMENT
    ) -> Credential | None:
        channel = await self.link(responder, link_class)
        try:
            await self.member.enrol(channel, KIND, standing_of(channel), reason="test")
        finally:
            channel.close()
        return self.held

    @property
    def held(self) -> Credential | None:
        return self.member.keyring.credential(KIND)


@pytest.mark.req("A6", "A8")
async def test_a_first_certificate_is_issued_by_the_client_ca_and_comes_with_its_chain() -> None:
    case = Case()
    async with responding(case.site, case.clock) as responder:
        held = await case.enrol(responder)
    assert held is not None
    assert held.issuer_id == responder.member.id
    assert held.root == case.site.root_id()
    assert held.window == timedelta(hours=4)
    (record,) = responder.records.issued
    assert (record.holder, record.serial) == (case.member.id, held.leaf.serial)


@pytest.mark.req("A7")
async def test_what_travels_is_a_request_and_no_key() -> None:
    case = Case()
    async with responding(case.site, case.clock) as responder:
        held = await case.enrol(responder)
    assert held is not None
    secret = held.key.private_numbers().private_value.to_bytes(32)
    identity = case.member.keyring.identity.private_numbers().private_value.to_bytes(32)
    sent = [message for message in responder.received if isinstance(message, Enrol)]
    assert len(sent) == 1
    assert certificates.parse_request(sent[0].csr).key_id == held.leaf.key_id
    for field in (sent[0].csr, sent[0].spki, sent[0].signature, sent[0].nonce):
        assert secret not in field
        assert identity not in field


async def test_a_renewal_over_the_member_link_brings_a_new_key() -> None:
    case = Case()
    async with responding(case.site, case.clock) as responder:
        old = await case.enrol(responder)
        new = await case.enrol(responder, LinkClass.MEMBER)
    assert old is not None
    assert new is not None
    assert new.leaf.key_id != old.leaf.key_id


@pytest.mark.req("A7")
async def test_two_requests_at_once_are_for_one_key_and_the_second_is_no_fault() -> None:
    case = Case()
    async with responding(case.site, case.clock) as responder:
        results = await asyncio.gather(
            case.enrol(responder), case.enrol(responder), return_exceptions=True
        )
        failed = [result for result in results if isinstance(result, BaseException)]
        assert [type(error) for error in failed] == [UnavailableError]
        assert case.member.certified(KIND)
        asked = [m.csr for m in responder.received if isinstance(m, Enrol)]
    assert len({certificates.parse_request(csr).key_id for csr in asked}) == 1


@pytest.mark.req("B15")
async def test_an_expired_client_gets_a_new_one_with_its_identity_key() -> None:
    case = Case()
    async with responding(case.site, case.clock) as responder:
        await case.enrol(responder)
        case.clock.jump(timedelta(days=30))
        assert not case.member.certified(KIND)
        held = await case.enrol(responder)
    assert case.member.certified(KIND)
    assert held is not None
    assert held.leaf.name is not None
    assert held.leaf.name.id == case.member.id


Lie = Callable[[Case, Responder, Enrol, Issued], Issued]


def another_key(case: Case, responder: Responder, asked: Enrol, answer: Issued) -> Issued:
    chain = case.site.issue(keys.generate(), KIND, case.member.id, responder=responder.member.id)
    return Issued(chain=list(chain), window=answer.window)


def another_name(case: Case, responder: Responder, asked: Enrol, answer: Issued) -> Issued:
    key = case.member.keyring.prepare(KIND)
    return Issued(chain=list(case.site.issue(key, KIND, bytes(16))), window=answer.window)


def another_kind(case: Case, responder: Responder, asked: Enrol, answer: Issued) -> Issued:
    key = case.member.keyring.prepare(KIND)
    chain = case.site.issue(key, Kind.HUB_TLS, case.member.id)
    return Issued(chain=list(chain), window=answer.window)


def another_root(case: Case, responder: Responder, asked: Enrol, answer: Issued) -> Issued:
    foreign = Deployment()
    chain = foreign.issue(case.member.keyring.prepare(KIND), KIND, case.member.id)
    return Issued(chain=list(chain), window=answer.window)


def unsigned_leaf(case: Case, responder: Responder, asked: Enrol, answer: Issued) -> Issued:
    foreign = Deployment()
    chain = foreign.issue(case.member.keyring.prepare(KIND), KIND, case.member.id)
    return Issued(chain=[chain[0], *answer.chain[1:]], window=answer.window)


def expired(case: Case, responder: Responder, asked: Enrol, answer: Issued) -> Issued:
    now = case.clock.now() + timedelta(days=60)
    case.site.now = case.clock.now()
    chain = case.site.issue(case.member.keyring.prepare(KIND), KIND, case.member.id, now=now)
    return Issued(chain=list(chain), window=answer.window)


def no_root(case: Case, responder: Responder, asked: Enrol, answer: Issued) -> Issued:
    return Issued(chain=answer.chain[:-1], window=answer.window)


def no_certificate(case: Case, responder: Responder, asked: Enrol, answer: Issued) -> Issued:
    return Issued(chain=[b"leaf", *answer.chain[1:]], window=answer.window)


def endless_window(case: Case, responder: Responder, asked: Enrol, answer: Issued) -> Issued:
    return Issued(chain=answer.chain, window=2**62)


LIES = [
    another_key,
    another_name,
    another_kind,
    another_root,
    unsigned_leaf,
    expired,
    no_root,
    no_certificate,
    endless_window,
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
@pytest.mark.req("A8")
async def test_what_was_not_asked_for_is_refused_and_the_old_credential_stays(lie: Lie) -> None:
    case = Case()
    async with responding(case.site, case.clock) as responder:
        old = await case.enrol(responder)

        async def lying(channel: Channel, message: Message) -> Message | None:
            answer = await responder.honest(channel, message)
            if isinstance(message, Enrol) and isinstance(answer, Issued):
                return lie(case, responder, message, answer)
            return answer

        responder.answering = lying
        with pytest.raises(UnavailableError, match="not ours") as caught:
            await case.enrol(responder, LinkClass.MEMBER)
        assert ("clock" in caught.value.hint) == (lie is expired)
        assert case.held is old
        assert case.member.certified(KIND)

        # The link still works with the old one, and an honest answer is taken.
        responder.answering = None
        new = await case.enrol(responder, LinkClass.MEMBER)
    assert new is not None
    assert new is not old


async def test_a_request_that_failed_is_repeated_for_the_same_key() -> None:
    case = Case()
    async with responding(case.site, case.clock) as responder:

        async def break_off(channel: Channel, message: Message) -> Message | None:
            if isinstance(message, Enrol):
                channel.abort()
            return await responder.honest(channel, message)

        responder.answering = break_off
        with pytest.raises(UnavailableError):
            await case.enrol(responder)
        responder.answering = None
        await case.enrol(responder)
    asked = [m for m in responder.received if isinstance(m, Enrol)]
    assert len({certificates.parse_request(message.csr).key_id for message in asked}) == 1
    assert len({message.nonce for message in asked}) == 2


async def test_an_approval_that_is_pending_says_for_whom_and_until_when() -> None:
    case = Case()
    async with responding(case.site, case.clock) as responder:

        async def wait(channel: Channel, message: Message) -> Message | None:
            if isinstance(message, NonceGet):
                return await responder.honest(channel, message)
            return Pending(fingerprint="ab" * 32, retry_after=4.0)

        responder.answering = wait
        with pytest.raises(PendingError, match="ab" * 32) as caught:
            await case.enrol(responder)
    assert caught.value.retry_after == 4.0
    assert case.held is None


@pytest.mark.parametrize("refused", [NonceGet, Enrol])
async def test_a_refusal_says_why(refused: type[Message]) -> None:
    case = Case()
    async with responding(case.site, case.clock) as responder:

        async def refuse(channel: Channel, message: Message) -> Message | None:
            if isinstance(message, refused):
                return Refused(reason="busy", text="too many requests", retry_after=7.0)
            return await responder.honest(channel, message)

        responder.answering = refuse
        with pytest.raises(IssuerRefusedError, match="too many requests") as caught:
            await case.enrol(responder)
    assert caught.value.retry_after == 7.0
    assert case.held is None


@pytest.mark.req("B15")
@pytest.mark.parametrize("spent", [True, False])
async def test_a_request_that_was_captured_is_good_on_no_other_link(spent: bool) -> None:
    case = Case()
    async with responding(case.site, case.clock) as responder:

        async def swallow(channel: Channel, message: Message) -> Message | None:
            if isinstance(message, Enrol):
                return Refused(reason="busy")
            return await responder.honest(channel, message)

        if spent:
            await case.enrol(responder)
        else:
            responder.answering = swallow
            with pytest.raises(IssuerRefusedError):
                await case.enrol(responder)
            responder.answering = None
        (captured,) = responder.received_of(Enrol)
        assert isinstance(captured, Enrol)
        thief = await case.link(responder, LinkClass.ENROLMENT)
        assert isinstance(await thief.request(replace(captured, call=0)), Refused)
        given = await thief.request(NonceGet(kind=KIND.value, spki=captured.spki))
        assert isinstance(given, Nonce)
        fresh = replace(captured, call=0, nonce=given.nonce)
        assert isinstance(await thief.request(fresh), Refused)
        thief.close()
    assert len(responder.records.issued) == int(spent)


@pytest.mark.req("E2")
async def test_what_a_hub_relays_is_signed_for_the_current_root() -> None:
    site = Deployment()
    site.rotate()
    member = site.member(Role.ZONE_SERVER)
    asked = list[Enrol]()

    async def pending(_channel: Channel, message: Message) -> Message:
        if isinstance(message, NonceGet):
            return Nonce(nonce=bytes(32))
        assert isinstance(message, Enrol)
        asked.append(message)
        return Pending(fingerprint="ab" * 32, retry_after=4.0)

    link = FakeChannel(pending)
    with pytest.raises(PendingError):
        await member.enrol(link.channel, Kind.ZONE_SERVER_TLS, RELAYED, reason="test")
    (enrol,) = asked
    proven = verify_request(
        enrol.spki,
        enrol.signature,
        deployment=site.id,
        issuer=site.root_id(),
        nonce=enrol.nonce,
        csr=enrol.csr,
        binding=NO_BINDING,
    )
    assert proven == member.id


async def test_a_link_that_proves_nobody_has_no_standing() -> None:
    with pytest.raises(LookupError):
        standing_of(FakeChannel().channel)
