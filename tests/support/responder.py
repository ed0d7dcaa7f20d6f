"""A responder on loopback: the real rooms that face clients, on records in memory.

Whatever it did is in `records`; `answering` can lie in its place.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from agents.member.links import Links
from agents.responder.enrolment import Enrolment
from agents.responder.neighbourhoods import Policy as LinePolicy
from agents.responder.records import AckRecord, ClientRecord, IssuedRecord
from agents.responder.registry import Registry
from agents.responder.service import Service
from agents.responder.signing import ClientSigning
from agents.runtime import logs
from agents.runtime.channel import Channel, Handler
from agents.runtime.errors import UnavailableError
from agents.runtime.listener import Listener
from agents.runtime.network import answered
from pki import rotation
from pki.certificates import Kind
from pki.names import Role
from protocol.messages import Message
from tests.support.clock import FakeClock
from tests.support.deployment import KINDS, Deployment

__all__ = ["MemoryRecords", "Responder", "responding"]

HOST = "127.0.0.1"


class MemoryRecords:
    """What a responder remembers, in lists."""

    def __init__(self) -> None:
        self.issued: list[IssuedRecord] = []
        self.clients: dict[bytes, ClientRecord] = {}
        self.acks: dict[tuple[bytes, bytes], AckRecord] = {}

    async def record(self, issued: IssuedRecord) -> None:
        self.issued.append(issued)

    async def save(self, rows: Sequence[ClientRecord]) -> None:
        self.clients.update({row.id: row for row in rows})

    async def load(self) -> list[ClientRecord]:
        return sorted(self.clients.values(), key=lambda row: row.id)

    async def save_ack(self, ack: AckRecord) -> None:
        self.acks[ack.component, ack.slot] = ack

    async def load_acks(self) -> list[AckRecord]:
        return list(self.acks.values())


class Responder:
    """A server or zone server, as far as clients see one."""

    def __init__(
        self,
        site: Deployment,
        clock: FakeClock,
        *,
        role: Role = Role.SERVER,
        root: int = -1,
        longest: float = 90.0,
    ) -> None:
        self.site = site
        self.member = site.member(role, clock=clock)
        self.records = MemoryRecords()
        self.links = Links(self.member.trust)
        self.opened: list[Channel] = []
        self.received: list[Message] = []
        self.answering: Handler | None = None
        """Answers instead of the real rooms, where it is set."""
        self.registry = Registry(
            self.records,
            responder=self.member.id,
            clock=clock,
            log=logs.get_logger(),
            policy=LinePolicy(),
            longest=longest,
            settings=dict,
        )
        self.enrolment = Enrolment(
            {
                Kind.CLIENT_TLS: ClientSigning(
                    self.member.keyring,
                    clock,
                    policies=lambda: rotation.policies(rotation.SETTINGS)[0],
                    renew_ca=self._no_new_ca,
                )
            },
            deployment=site.id,
            record=self.records,
            clock=clock,
            log=logs.get_logger(),
        )
        self._service = Service(
            self.member,
            enrolment=self.enrolment,
            registry=self.registry,
            shown=lambda: frozenset(c.leaf.key_id for c in self.member.keyring.credentials),
            acknowledged=self.records.save_ack,
            head=self.member.trust.latest_head,
            spread=lambda: 0.0,
        )
        self.certify(root=root)
        self._watching: asyncio.Future[None] | None = None
        self.listener: Listener | None = None

    def certify(self, *, root: int = -1) -> None:
        """New certificates, under this root."""
        keyring = self.member.keyring
        now = self.member.clock.now()
        self.site.certify(keyring, KINDS[self.member.role], root=root, now=now)
        self.site.certify(keyring, Kind.CLIENT_CA, root=root, now=now)
        self.member.credential_changed()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        assert self.listener is not None
        return HOST, self.listener.port

    def received_of(self, kind: type[Message]) -> list[Message]:
        """The requests of one type."""
        return [message for message in self.received if type(message) is kind]

    async def start(self, port: int = 0) -> None:
        """Listen."""
        self.listener = await Listener.start(
            HOST,
            port,
            endpoint=replace(self.member.endpoint, handshake_timeout=5.0),
            handler=self.handle,
            verify=self.member.verifier(
                roles=frozenset({Role.CLIENT}), client_ca_of=lambda: self.member.id
            ),
            on_channel=self._opened,
        )
        self._watching = asyncio.ensure_future(self.links.watch())

    async def stop(self) -> None:
        """End every link, and listen no more."""
        if self._watching is not None:
            self._watching.cancel()
        if self.listener is not None:
            await self.listener.stop()
        await self.member.tasks.close()

    async def handle(self, channel: Channel, message: Message) -> Message | None:
        """Answer, truly or not."""
        self.received.append(message)
        if self.answering is not None:
            return await answered(self.answering(channel, message))
        return await self.honest(channel, message)

    async def honest(self, channel: Channel, message: Message) -> Message | None:
        """What the real rooms answer."""
        return await answered(self._service.handle(channel, message))

    def _opened(self, channel: Channel) -> None:
        self.opened.append(channel)
        self.links.add(channel)

    async def _no_new_ca(self) -> None:
        raise UnavailableError("this one keeps its client CA")


@asynccontextmanager
async def responding(
    site: Deployment,
    clock: FakeClock,
    *,
    role: Role = Role.SERVER,
    root: int = -1,
    longest: float = 90.0,
) -> AsyncIterator[Responder]:
    """A responder that listens while the block runs."""
    responder = Responder(site, clock, role=role, root=root, longest=longest)
    await responder.start()
    try:
        yield responder
    finally:
        await responder.stop()
