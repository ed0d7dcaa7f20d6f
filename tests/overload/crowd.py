"""Many clients in one process, each with its own keys, ledger and address, made of real rooms."""

import asyncio
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from agents.member.keyring import Keyring
from agents.member.member import Member
from agents.member.requesting import standing_of
from agents.member.trust import Trust
from agents.runtime import logs
from agents.runtime.backoff import Backoff
from agents.runtime.channel import Channel
from agents.runtime.clock import SystemClock
from agents.runtime.dialer import DialError, dial
from agents.runtime.errors import UnavailableError
from agents.runtime.tasks import Tasks
from pki import trust
from pki.bundle import open_bundle
from pki.certificates import Kind
from pki.names import Role
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.messages import Message, Refused, Register, Registered
from tests.support.deployment import passes_nothing_on
from tests.support.files import MemoryFiles

__all__ = ["Crowd"]

FOLDER = Path("/state")
KIND = Kind.CLIENT_TLS
AT_ONCE = 200
"""Visits at once: three times what a server lets in. All clients have one processor here; with
more of them at work at once they would be too slow for the server's deadlines, and not it."""


@dataclass
class Crowd:
    """All clients, and how they fare."""

    bundle: bytes
    host: str
    port: int
    network: int
    """First address; each client has one of its own."""
    told: list[float] = field(default_factory=list)
    """Every "retry after" that was heard."""
    dropped: int = 0
    """Connections that ended without a word."""
    others: list[str] = field(default_factory=list)
    """Failures that are neither."""
    registered: int = 0
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    def member(self) -> Member:
        """A client at its first start."""
        clock, log, files = SystemClock(), logs.get_logger(), MemoryFiles()
        known = Trust(
            trust.from_bundle(open_bundle(self.bundle)),
            path=FOLDER / "ledger",
            files=files,
            clock=clock,
            log=log,
        )
        return Member(
            Role.CLIENT,
            KIND,
            keyring=Keyring(FOLDER / "keys.db", files),
            trust=known,
            clock=clock,
            log=log,
            tasks=Tasks(clock, log),
            relay=passes_nothing_on,
        )

    def address(self, number: int) -> str:
        """Where a client calls from."""
        return str(ipaddress.ip_address(self.network + number))

    async def join(self, number: int) -> None:
        """Enrol and register, however often it takes."""
        member, backoff = self.member(), Backoff(first=0.5, last=2.0)
        while True:
            try:
                async with self.turns:
                    if not member.certified(KIND):
                        await self._enrol(member, number)
                    await self._register(member, number)
            except UnavailableError as exc:
                self._note(exc)
                await asyncio.sleep(backoff.next(exc.retry_after))
            else:
                self.registered += 1
                return

    async def dial(self, member: Member, number: int, link_class: LinkClass) -> Channel:
        """A link of a client to the server."""
        return await dial(
            self.host,
            self.port,
            endpoint=member.endpoint,
            link_class=link_class,
            verify=member.verifier(roles=frozenset({Role.SERVER})),
            local_address=self.address(number),
        )

    async def _enrol(self, member: Member, number: int) -> None:
        channel = await self.dial(member, number, LinkClass.ENROLMENT)
        try:
            await member.enrol(channel, KIND, standing_of(channel), reason="first")
        finally:
            channel.close()
            await channel.gone()

    async def _register(self, member: Member, number: int) -> None:
        channel = await self.dial(member, number, LinkClass.MEMBER)
        try:
            answer: Message = await channel.request(
                Register(
                    host=f"client-{number}",
                    version="1",
                    port=14172,
                    address=self.address(number),
                    full=True,
                )
            )
        finally:
            channel.close()
            await channel.gone()
        if isinstance(answer, Refused):
            raise UnavailableError(answer.text, answer.retry_after)
        assert isinstance(answer, Registered)

    def _note(self, error: UnavailableError) -> None:
        if error.retry_after is not None:
            self.told.append(error.retry_after)
        elif isinstance(error, DialError) and error.code in (None, CloseCode.LOST):
            self.dropped += 1
        else:
            self.others.append(str(error))
