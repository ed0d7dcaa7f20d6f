"""A real server behind a real port, and a peer that proves itself and then says what it likes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
from OpenSSL import SSL

from agents.runtime.clock import SystemClock
from agents.runtime.listener import Listener
from agents.server.app import Server
from pki.keys import PrivateKey
from pki.names import Role
from protocol.access import CLIENT, LinkClass
from protocol.codec import encode
from protocol.frames import FrameType, encode_frame
from protocol.link import Closed, Event, Link, Opened, Received
from protocol.messages import Message
from protocol.tls import Credentials, client_context
from tests.support.links import FakePeer
from tests.support.servers import prepared

__all__ = ["HOST", "Hostile", "hostile", "open_server"]

HOST = "127.0.0.1"
PATIENCE = 30.0


@asynccontextmanager
async def open_server(folder: Path) -> AsyncIterator[tuple[Server, Listener]]:
    """A server with its own handler, its own expectations and a port, in this process."""
    async with prepared(folder, clock=SystemClock()) as server:
        listener = await Listener.start(
            HOST,
            0,
            endpoint=server.member.endpoint,
            handler=server.handle,
            verify=server.member.verifier(
                roles=frozenset({Role.CLIENT, Role.HUB}), client_ca_of=lambda: server.member.id
            ),
            kind="server port",
            expected="a client of ours, or a hub",
        )
        try:
            yield server, listener
        finally:
            await listener.stop()


class Hostile:
    """One link, on which frames are written by hand."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link
    ) -> None:
        self._reader = reader
        self._writer = writer
        self.link = link
        self.events: list[Event] = []

    async def say(self, frame: bytes) -> None:
        """Send a frame, or what is none."""
        self.link.data_to_send()
        self.link._tls.write(frame)
        self._writer.write(self.link._tls.data_to_send())
        await self._writer.drain()

    async def say_fields(self, frame: FrameType, fields: dict[str, Any]) -> None:
        """Send a frame with these fields, whatever its type allows."""
        body: bytes = msgpack.packb(fields, use_bin_type=True)
        await self.say(encode_frame(frame, body))

    async def ask(self, message: Message) -> Message | Closed:
        """Send a message, and return what comes back: an answer or the end."""
        await self.say(encode(message))
        return await self.hear()

    async def hear(self) -> Message | Closed:
        """The next message, or the end of the link."""
        while True:
            for place, event in enumerate(self.events):
                if isinstance(event, Received | Closed):
                    del self.events[: place + 1]
                    return event.message if isinstance(event, Received) else event
            await self._read()

    async def opened(self) -> "Hostile":
        """Wait until the link is open, as far as this side sees."""
        while not any(isinstance(event, Opened | Closed) for event in self.events):
            await self._read()
        return self

    async def _read(self) -> None:
        async with asyncio.timeout(PATIENCE):
            data = await self._reader.read(65536)
        now = asyncio.get_running_loop().time()
        self.events += self.link.receive_data(data, now) if data else self.link.receive_eof(now)
        self._writer.write(self.link.data_to_send())

    async def close(self) -> None:
        """Go away."""
        self._writer.close()


@asynccontextmanager
async def hostile(
    port: int,
    roots: tuple[bytes, ...],
    *,
    shown: tuple[tuple[bytes, ...], PrivateKey] | None = None,
    role: str = CLIENT,
) -> AsyncIterator[Hostile]:
    """A member link of whoever has this chain and key; an enrolment link without."""
    credentials = None if shown is None else Credentials(*shown)
    context: SSL.Context = client_context(credentials, roots)
    reader, writer = await asyncio.open_connection(HOST, port)
    link = Link(
        context,
        server_side=False,
        local_role=role,
        verify=lambda _chain: FakePeer("server"),
        link_class=LinkClass.ENROLMENT if shown is None else LinkClass.MEMBER,
        handshake_deadline=1e9,
        idle_timeout=1e9,
    )
    peer = Hostile(reader, writer, link)
    writer.write(link.data_to_send())
    try:
        yield await peer.opened()
    finally:
        await peer.close()
