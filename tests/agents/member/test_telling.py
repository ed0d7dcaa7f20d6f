"""Telling several links at once."""

import asyncio

from agents.member.telling import tell
from agents.runtime.channel import Channel
from protocol.messages import Done, Message, Settings
from tests.support.channels import FakeChannel
from tests.support.clock import settle

NEWS = Settings(revision=1, values={})


async def test_each_link_is_told_once() -> None:
    links = [FakeChannel() for _ in range(3)]
    await tell([link.channel for link in links], NEWS)
    assert [link.asked for link in links] == [[NEWS]] * 3


async def test_a_link_that_has_ended_does_not_keep_the_others_from_it() -> None:
    dead, alive = FakeChannel(), FakeChannel()
    dead.lose()
    await tell([dead.channel, alive.channel], NEWS)
    assert alive.asked == [NEWS]


async def test_a_slow_link_does_not_keep_the_others_from_it() -> None:
    gate = asyncio.Event()

    async def slowly(_channel: Channel, _message: Message) -> Message:
        await gate.wait()
        return Done()

    slow, quick = FakeChannel(slowly), FakeChannel()
    telling = asyncio.ensure_future(tell([slow.channel, quick.channel], NEWS))
    await settle()
    assert quick.asked == [NEWS]
    assert not telling.done()
    gate.set()
    await telling


async def test_a_link_that_ends_meanwhile_is_no_error() -> None:
    async def never(_channel: Channel, _message: Message) -> Message:
        await asyncio.Event().wait()
        return Done()

    link = FakeChannel(never)
    telling = asyncio.ensure_future(tell([link.channel], NEWS))
    await settle()
    link.lose()
    await telling
