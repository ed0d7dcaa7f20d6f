"""One end of a link in memory: what is asked on it goes to a function, or to another end.

It does what a `Channel` promises to the rooms above it: an answer or `LinkError`, an end that
comes once. It notes what was asked, and keeps an answer back on request.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, cast

from agents.runtime import logs
from agents.runtime.channel import Channel
from agents.runtime.logs import Logger
from agents.runtime.outbox import link_error
from pki.peers import Peer
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.link import Closed
from protocol.messages import Done, Message

__all__ = ["FakeChannel", "done", "pair"]

Answering = Callable[[Channel, Message], Awaitable[Message | None]]

_NUMBERS = itertools.count(1)


async def done(_channel: Channel, _message: Message) -> Message:
    """Answer everything with DONE."""
    return Done()


class FakeChannel:
    """Implements what rooms use of `agents.runtime.channel.Channel`.

    Args:
        answering: answers what is asked on this end.
        peer: who is at the other end; None on a discovery link.
    """

    def __init__(
        self,
        answering: Answering = done,
        *,
        peer: Peer | None = None,
        link_class: LinkClass = LinkClass.MEMBER,
    ) -> None:
        number = next(_NUMBERS)
        self.id = f"{number:08x}"
        self.answering = answering
        self.peer = peer
        self.link_class = link_class
        self.kind = "a link of a test"
        self.fingerprint = "-" if peer is None else peer.leaf.fingerprint
        self.remote = ("192.0.2.1", number)
        self.local = ("192.0.2.2", number)
        self.name = f"link-{number}" if peer is None else f"{peer.name.role}/{peer.name.id.hex()}"
        self.on_closed: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()
        self.on_gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked: list[Message] = []
        self.other: FakeChannel | None = None

    @property
    def channel(self) -> Channel:
        """This end, as the rooms take it."""
        return cast(Channel, self)

    @property
    def log(self) -> Logger:
        return logs.get_logger().bind(link=self.id, peer=self.name)

    @property
    def is_closed(self) -> bool:
        return self.on_closed.done()

    @property
    def is_open(self) -> bool:
        return not self.is_closed

    @property
    def code(self) -> CloseCode | None:
        """How it ended."""
        return self.on_closed.result().code if self.is_closed else None

    def asked_of(self, kind: type[Message]) -> list[Message]:
        """What was asked of one type."""
        return [message for message in self.asked if type(message) is kind]

    def binding(self) -> bytes:
        return bytes(32)

    async def request(
        self,
        message: Message,
        *,
        timeout: float = 10.0,  # noqa: ASYNC109 - as the real one
        hold: bool = True,
    ) -> Message:
        if self.is_closed:
            raise link_error(self.name, self.on_closed.result())
        self.asked.append(message)
        answer = asyncio.ensure_future(self._answer(message))
        waiting: set[asyncio.Future[Any]] = {answer, self.on_closed}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            raise link_error(self.name, self.on_closed.result())
        return answer.result()

    async def _answer(self, message: Message) -> Message:
        answer = await self.answering(cast(Channel, self.other or self), message)
        assert answer is not None
        return answer

    def close(
        self,
        code: CloseCode = CloseCode.NORMAL,
        text: str = "",
        *,
        retry_after: float | None = None,
    ) -> None:
        self._end(Closed(code=code, text=text, by_peer=False, retry_after=retry_after))

    def lose(self, code: CloseCode = CloseCode.LOST, text: str = "") -> None:
        """End as the peer, or the network, ends it."""
        self._end(Closed(code=code, text=text, by_peer=code is not CloseCode.LOST))

    def _end(self, closed: Closed) -> None:
        if not self.is_closed:
            self.on_closed.set_result(closed)
            self.on_gone.set_result(None)
            if self.other is not None:
                self.other.lose(closed.code, closed.text)

    async def closed(self) -> Closed:
        return await asyncio.shield(self.on_closed)

    async def gone(self) -> None:
        await asyncio.shield(self.on_gone)

    async def drain(self, within: float = 10.0) -> None:
        await asyncio.sleep(0)

    async def retire(self, code: CloseCode, text: str = "") -> None:
        await self.drain()
        self.close(code, text)


def pair(
    left: Answering, right: Answering, *, left_is: Peer | None = None, right_is: Peer | None = None
) -> tuple[FakeChannel, FakeChannel]:
    """Two ends of one link: `left` answers what is asked on the right end, and so on.

    Args:
        left: the handler of the side that holds the first end.
        right: the handler of the side that holds the second end.
        left_is: who the right side sees.
        right_is: who the left side sees.
    """
    here, there = FakeChannel(right, peer=right_is), FakeChannel(left, peer=left_is)
    here.other, there.other = there, here
    return here, there
