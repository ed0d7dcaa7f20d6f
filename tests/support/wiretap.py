"""A TCP proxy that keeps what passes: for tests of what a peer gets to see before it is proven."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

__all__ = ["Wiretap", "tapping"]

HOST = "127.0.0.1"


class Wiretap:
    """Listens in front of one address."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._tasks: set[asyncio.Task[None]] = set()
        self.address = HOST, 0
        self.connections = 0
        self.towards = bytearray()
        """Every byte that was sent to the address."""

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        self.connections += 1
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        here = asyncio.ensure_future(self._carry(reader, there_writer, self.towards))
        there = asyncio.ensure_future(self._carry(there_reader, writer, None))
        for task in (here, there):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        kept: bytearray | None,
    ) -> None:
        try:
            with suppress(ConnectionError):
                while data := await reader.read(65536):
                    if kept is not None:
                        kept += data
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.close()

    async def close(self) -> None:
        """Drop what it carries."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def tapping(address: tuple[str, int]) -> AsyncIterator[Wiretap]:
    """A wiretap in front of an address, while the block runs."""
    tap = Wiretap(*address)
    server = await asyncio.start_server(tap.accept, HOST, 0)
    tap.address = server.sockets[0].getsockname()[:2]
    try:
        yield tap
    finally:
        server.close()
        await tap.close()
        await server.wait_closed()
