"""A client and its way up, for the tests of uplinks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agents.member.member import Member
from agents.member.uplink import Address, Uplink
from agents.runtime.channel import Channel
from agents.runtime.dialer import refuse
from pki.certificates import Kind
from pki.names import Role
from pki.state import TrustState
from protocol.access import LinkClass
from tests.support.clock import FakeClock
from tests.support.deployment import Deployment
from tests.support.files import MemoryFiles
from tests.support.links import until
from tests.support.responder import Responder

__all__ = ["Case", "classes"]

KIND = Kind.CLIENT_TLS


class Case:
    """A client and its uplink."""

    def __init__(
        self,
        site: Deployment,
        clock: FakeClock,
        *addresses: Address,
        state: TrustState | None = None,
    ) -> None:
        self.clock = clock
        self.files = MemoryFiles()
        self.member: Member = site.member(Role.CLIENT, clock=clock, state=state, files=self.files)
        self.addresses = list(addresses)
        self.uplink = Uplink(
            self.member,
            addresses=lambda: self.addresses,
            roles=frozenset({Role.SERVER}),
            handler=refuse,
            kind=KIND,
        )

    async def connect(self) -> None:
        (await self.uplink.connect()).close()

    @asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.uplink.keep())
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def standing(self) -> Channel:
        await until(lambda: self.uplink.link is not None and self.uplink.link.is_open)
        assert self.uplink.link is not None
        return self.uplink.link


def classes(responder: Responder) -> list[LinkClass]:
    return [channel.link_class for channel in responder.opened]
