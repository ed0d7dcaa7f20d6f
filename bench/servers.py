"""The servers that rows compare: ours, and what we compare ourselves with.

    python -m bench.servers KIND FOLDER      says "port N", then serves until it is ended

    raw       TCP, asyncio.Protocol: cuts frames and gives each back
    ssl       the standard ssl module, asyncio.Protocol; decodes and answers as `channel` does
    bare      protocol.tls, asyncio.BufferedProtocol: a TLS connection, and nothing after it
    channel   the product: listener, TLS, chain, link, codec, channel, handler
    wire      the product up to the frame: wire, TLS, chain, link; gives back frames as bytes

All run on uvloop, with the certificates of the deployment in FOLDER.
"""

import argparse
import asyncio
import socket
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import uvloop
from OpenSSL import SSL

from agents.runtime import logs
from agents.runtime.admission import Admission
from agents.runtime.channel import Channel
from agents.runtime.clock import SystemClock
from agents.runtime.listener import BACKLOG, Listener
from agents.runtime.tcp import listen
from agents.runtime.wire import Nobody, Wire
from agents.server.app import Server
from bench.deployment import Deployment, open_server
from bench.frames import ANSWER
from pki.names import Role
from protocol.codec import decode, encode
from protocol.frames import HEADER, Frame, FrameDecoder, encode_frame
from protocol.limits import FRAME_LIMITS
from protocol.link import Event, Link, Verify
from protocol.messages import Message
from protocol.tls import TLS

__all__ = ["KINDS"]

HOST = "127.0.0.1"
IDLE = 3600.0
LIMITS: Mapping[int, int] = {frame.value: limit for frame, limit in FRAME_LIMITS.items()}


class Raw(asyncio.Protocol):
    """Cuts frames by their length and gives each back, in one write for all that came at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        """Give back every whole frame."""
        buffer = self._buffer
        buffer += data
        start, answers = 0, []
        while len(buffer) - start >= HEADER:
            end = start + HEADER + int.from_bytes(buffer[start : start + 4])
            if len(buffer) < end:
                break
            answers.append(bytes(buffer[start:end]))
            start = end
        if answers:
            del buffer[:start]
            self._transport.write(b"".join(answers))


class Decoding(asyncio.Protocol):
    """Decodes and validates each message as the product does, and answers it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._frames = FrameDecoder(LIMITS, "a benchmark")

    def data_received(self, data: bytes) -> None:
        """Answer every whole frame."""
        self._frames.feed(data)
        answers: list[bytes] = []
        while (frame := self._frames.next_frame()) is not None:
            decode(frame.type, frame.body)
            answers.append(encode(ANSWER))
        if answers:
            self._transport.write(b"".join(answers))


class Bare(asyncio.BufferedProtocol):
    """A TLS connection of the library that we use, and nothing else."""

    scratch = bytearray(64 * 1024)
    view = memoryview(scratch)

    def __init__(self, context: Callable[[], SSL.Context]) -> None:
        self._tls = TLS(context(), server_side=True)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where the next bytes go."""
        return self.scratch

    def buffer_updated(self, nbytes: int) -> None:
        """Go on with the handshake."""
        self._tls.receive(bytes(self.view[:nbytes]))
        data = self._tls.data_to_send()
        if data:
            self._transport.write(data)
        if self._tls.ended or self._tls.failure is not None:
            self._transport.close()


class EchoLink(Link):
    """A link that gives back each frame that may come, as the bytes that it is."""

    def _take_frame(self, frame: Frame, now: float, events: list[Event]) -> None:
        self._deadline = now + IDLE
        data = encode_frame(frame.type, frame.body)
        self._queue.append(data)
        self.bytes_buffered += len(data)


def _answer(_channel: Channel, _message: Message) -> Message:
    return ANSWER


async def _raw(_deployment: Deployment) -> int:
    return await _serve(Raw)


async def _ssl(deployment: Deployment) -> int:
    chain, key, root = deployment.pems
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    context.load_cert_chain(chain, key)
    context.load_verify_locations(root)
    context.verify_mode = ssl.CERT_REQUIRED
    return await _serve(Decoding, context)


async def _bare(deployment: Deployment) -> int:
    server = await open_server(deployment)
    return await _serve(lambda: Bare(server.member.contexts.server))


async def _channel(deployment: Deployment) -> int:
    server = await open_server(deployment)
    listener = await Listener.start(
        HOST,
        0,
        endpoint=server.member.endpoint,
        verify=_verifier(server),
        handler=_answer,
        admission=Admission(),
    )
    _KEPT.append(listener)
    return listener.port


async def _wire(deployment: Deployment) -> int:
    server = await open_server(deployment)
    endpoint, verify = server.member.endpoint, _verifier(server)

    def link(_transport: asyncio.Transport) -> Link:
        return EchoLink(
            endpoint.contexts.server(),
            server_side=True,
            local_role=endpoint.role,
            verify=verify,
            limits=endpoint.limits,
            handshake_deadline=endpoint.clock.monotonic() + endpoint.handshake_timeout,
            idle_timeout=IDLE,
        )

    def wire() -> Wire:
        return Wire(link, endpoint=endpoint, owner=Nobody(), lost=lambda: None)

    listening = await listen(wire, HOST, 0, backlog=BACKLOG)
    _KEPT.append(listening)
    return listening.address[1]


def _verifier(server: Server) -> Verify:
    return server.member.verifier(
        roles=frozenset({Role.CLIENT, Role.HUB}), client_ca_of=lambda: server.member.id
    )


_KEPT: list[object] = []
"""Servers that nobody else holds."""


async def _serve(
    protocol: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext | None = None
) -> int:
    server = await asyncio.get_running_loop().create_server(
        protocol, HOST, 0, backlog=BACKLOG, ssl=context, family=socket.AF_INET
    )
    _KEPT.append(server)
    return int(server.sockets[0].getsockname()[1])


KINDS = {"raw": _raw, "ssl": _ssl, "bare": _bare, "channel": _channel, "wire": _wire}
"""How each is started; gives its port."""


async def _main(kind: str, folder: Path) -> None:
    port = await KINDS[kind](Deployment(folder))
    print("port", port)
    await asyncio.Event().wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until ended."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.servers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of bench.deployment")
    args = parser.parse_args(argv)
    folder: Path = args.folder
    if not folder.is_dir():
        parser.error(f"{folder}: no such folder; `python -m bench.deployment` makes one")
    logs.configure("server", clock=SystemClock(), path=folder / f"{args.kind}.log")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(args.kind, folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
