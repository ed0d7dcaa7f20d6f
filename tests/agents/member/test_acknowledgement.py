"""What a responder is told of how far this component has followed."""

import asyncio
from typing import Any

import pytest

from agents.member.acknowledgement import Acknowledgement
from agents.member.member import Member
from agents.runtime.channel import Channel
from agents.runtime.errors import UnavailableError
from pki.acknowledgements import verify_ack
from pki.certificates import Kind
from pki.errors import SignatureError
from pki.names import Role
from protocol.messages import Ack, Done, Message, Refused
from tests.support.channels import FakeChannel
from tests.support.clock import settle
from tests.support.deployment import Deployment

SERVER, OTHER = bytes(16), bytes(range(16))


def made() -> tuple[Deployment, Member, Acknowledgement]:
    site = Deployment()
    member = site.member(Role.CLIENT)
    site.certify(member.keyring, Kind.CLIENT_TLS)
    return site, member, Acknowledgement(member.keyring, member.trust)


async def said(acknowledgement: Acknowledgement) -> Ack:
    link = FakeChannel()
    assert await acknowledgement.send(link.channel, SERVER) == Done()
    (ack,) = link.asked
    assert isinstance(ack, Ack)
    return ack


@pytest.mark.req("B12")
async def test_is_signed_by_the_identity_key_and_names_the_last_entry() -> None:
    site, member, acknowledgement = made()
    site.rotate()
    site.teach(member.trust)
    ack = await said(acknowledgement)
    last = site.chain.last
    assert (ack.slot, ack.n, ack.entry_id) == (site.slot, last.n, last.id)
    assert verify_ack(ack.spki, ack.signature, ack.slot, ack.n, ack.entry_id) == member.id


@pytest.mark.req("B12")
async def test_is_good_for_no_other_entry() -> None:
    site, _, acknowledgement = made()
    ack = await said(acknowledgement)
    site.rotate()
    with pytest.raises(SignatureError):
        verify_ack(ack.spki, ack.signature, ack.slot, 1, site.chain.last.id)


async def test_says_what_certificates_are_held() -> None:
    site, member, acknowledgement = made()
    held = member.keyring.credential(Kind.CLIENT_TLS)
    assert held is not None
    (shown,) = (await said(acknowledgement)).credentials
    assert (shown.kind, shown.key_id, shown.root, shown.not_after) == (
        "client-tls",
        held.leaf.key_id,
        site.root_id(),
        int(held.leaf.not_after.timestamp()),
    )


class Slow(FakeChannel):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()

    async def request(self, message: Message, **options: Any) -> Message:  # noqa: ANN401
        await self.answers.wait()
        return Done()


@pytest.mark.parametrize("first_ends", ["before", "after", "never"])
async def test_of_two_at_once_none_counts_as_said_for_the_older_may_arrive_last(
    first_ends: str,
) -> None:
    site, member, acknowledgement = made()
    old, new = Slow(), Slow()
    first = asyncio.create_task(acknowledgement.send(old.channel, SERVER))
    await settle()
    site.certify(member.keyring, Kind.CLIENT_TLS)
    second = asyncio.create_task(acknowledgement.send(new.channel, SERVER))
    await settle()
    match first_ends:
        case "before":
            old.answers.set()
            await first
        case "never":
            first.cancel()
            await settle()
        case _:
            pass
    new.answers.set()
    await second
    assert acknowledgement.due(SERVER)
    old.answers.set()
    await settle()
    assert acknowledgement.due(SERVER)
    for _ in range(2):
        await said(acknowledgement)
    assert not acknowledgement.due(SERVER)


async def test_is_said_once() -> None:
    _, _, acknowledgement = made()
    assert acknowledgement.due(SERVER)
    await said(acknowledgement)
    assert not acknowledgement.due(SERVER)


async def test_is_said_again_after_a_new_entry() -> None:
    site, member, acknowledgement = made()
    await said(acknowledgement)
    site.rotate()
    site.teach(member.trust)
    assert acknowledgement.due(SERVER)


async def test_is_said_again_after_a_new_certificate() -> None:
    site, member, acknowledgement = made()
    await said(acknowledgement)
    site.certify(member.keyring, Kind.CLIENT_TLS)
    assert acknowledgement.due(SERVER)


async def test_is_said_to_a_new_responder() -> None:
    _, _, acknowledgement = made()
    await said(acknowledgement)
    assert acknowledgement.due(OTHER)


async def test_stays_due_where_it_was_not_taken() -> None:
    async def refuse(_channel: Channel, _message: Message) -> Message:
        return Refused(reason="busy")

    _, _, acknowledgement = made()
    assert await acknowledgement.send(FakeChannel(refuse).channel, SERVER) == Refused(reason="busy")
    assert acknowledgement.due(SERVER)


async def test_stays_due_where_the_link_broke() -> None:
    _, _, acknowledgement = made()
    link = FakeChannel()
    link.lose()
    with pytest.raises(UnavailableError):
        await acknowledgement.send(link.channel, SERVER)
    assert acknowledgement.due(SERVER)


async def test_what_changed_while_it_was_said_is_due() -> None:
    site, member, acknowledgement = made()

    async def meanwhile(_channel: Channel, _message: Message) -> Message:
        site.rotate()
        site.teach(member.trust)
        return Done()

    await acknowledgement.send(FakeChannel(meanwhile).channel, SERVER)
    assert acknowledgement.due(SERVER)
