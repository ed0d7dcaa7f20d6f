"""A link says who asks; a message that says otherwise is refused."""

import pytest

from agents.member.answering import NOT_YOURS, pong, proven
from pki.names import Role
from protocol.messages import Ping, Pong
from tests.support.channels import FakeChannel
from tests.support.deployment import Deployment


async def test_a_ping_is_answered_with_its_number() -> None:
    peer = Deployment().peer(Role.CLIENT)
    link = FakeChannel(peer=peer)
    assert pong(link.channel, Ping(id=7, sender=peer.name.id)) == Pong(id=7)


async def test_a_ping_in_another_name_is_refused() -> None:
    link = FakeChannel(peer=Deployment().peer(Role.CLIENT))
    assert pong(link.channel, Ping(id=7, sender=bytes(16))) is NOT_YOURS


async def test_a_link_that_proves_nobody_has_no_sender() -> None:
    with pytest.raises(LookupError):
        proven(FakeChannel().channel)
