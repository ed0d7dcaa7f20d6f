"""Telling other links something that has to reach them, and going on if it does not.

An announcement is a request, so policy time waits for its answer. A link that ends or does not
answer is no error of the teller: its next link, or its next registration, is told again.
"""

import asyncio
from collections.abc import Iterable

from agents.runtime.channel import Channel
from agents.runtime.errors import UnavailableError
from protocol.messages import Message

__all__ = ["tell"]


async def tell(channels: Iterable[Channel], message: Message) -> None:
    """Send a request to each of these links at once, and wait for their answers."""

    async def one(channel: Channel) -> None:
        try:
            await channel.request(message)
        except UnavailableError:
            return

    await asyncio.gather(*(one(channel) for channel in channels))
