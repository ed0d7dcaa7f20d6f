"""Clients of a server in one process, and its roots."""

from datetime import timedelta

import pytest

from agents.responder.records import AckRecord, Credential
from agents.runtime.network import answered
from agents.server.app import Server
from agents.server.errors import OperationError
from agents.server.operations import ServerOperations
from pki.certificates import Kind
from protocol.messages import Issued, Register, Registered
from tests.support.clock import FakeClock
from tests.support.components import Component, FakeChannel, peer_of
from tests.support.servers import FQDN, enrolled

__all__ = ["ME", "ROOT0", "ROOT1", "Machine", "code", "machines", "two_roots"]

ROOT0, ROOT1 = f"{FQDN} Root 0", f"{FQDN} Root 1"
ME = "unix:alice"


class Machine:
    """A client that enrols, registers and acknowledges."""

    def __init__(self, server: Server, address: str) -> None:
        self.server, self.address, self.component = server, address, Component()
        self.link = FakeChannel()
        self.token = b""

    async def renew(self) -> None:
        answer = await enrolled(self.server, self.component, Kind.CLIENT_TLS)
        assert isinstance(answer, Issued)
        self.link = FakeChannel(peer_of(answer.chain), remote=(self.address, 1))

    async def register(self) -> None:
        message = Register(
            host=f"host-{self.address}",
            version="1.0",
            port=4000,
            address=self.address,
            full=True,
            token=self.token,
        )
        answer = await answered(self.server.handle(self.link.channel, message))
        assert isinstance(answer, Registered), answer
        self.token = answer.token

    async def acknowledge(self) -> None:
        assert self.link.peer is not None
        last = self.server.authority.chain.last
        await self.server.acknowledgements.take(
            AckRecord(
                component=self.component.id,
                slot=self.server.authority.slot,
                n=last.n,
                entry_id=last.id,
                spki=self.component.spki,
                signature=b"",
                role="client",
                credentials=(
                    Credential("client-tls", self.link.peer.leaf.key_id, self.link.peer.root, 0),
                ),
                at=self.server.clock.now(),
            ),
            self.server.trust,
        )

    async def follow(self) -> None:
        await self.renew()
        await self.register()
        await self.acknowledge()


async def machines(server: Server, *addresses: str) -> list[Machine]:
    made = [Machine(server, address) for address in addresses]
    for machine in made:
        await machine.follow()
    return made


async def two_roots(operations: ServerOperations, clock: FakeClock) -> None:
    clock.move(timedelta(days=200))
    await operations.root_new(ME, confirmed=False)


def code(refusal: "pytest.ExceptionInfo[OperationError]") -> str:
    return refusal.value.code
