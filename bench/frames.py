"""The frames that the rows send: whole frames of the protocol, of a size that is exact."""

from collections.abc import Callable
from pathlib import Path

from protocol.codec import encode
from protocol.messages import Message, Neighbour, Ping, Register, Registered, Relay

__all__ = [
    "ANSWER",
    "BULK",
    "SMALL",
    "bulk",
    "ping",
    "register",
    "request_of",
    "token_place",
    "write",
]

SMALL = 200
"""Bytes of a small frame, header included: what a registration and its answer have."""
BULK = 64 * 1024
"""Bytes that a large one carries."""
TOKEN_AT = b"\xa5token\xc4\x10"
"""What stands before a token of 16 bytes in msgpack."""
TRACE = "0123456789abcdef"


def request_of(size: int) -> bytes:
    """A REGISTER whose frame has this size."""
    return encode(_padded(size, _request))


def _request(pad: str) -> Register:
    return Register(
        host=pad,
        version="0.1.0",
        port=14172,
        address="10.20.30.40",
        token=bytes(16),
        root=bytes(range(32)),
        key_not_after=1_800_000_000,
        call=1,
        trace=TRACE,
    )


def _answer(pad: str) -> Registered:
    return Registered(
        token=bytes(16),
        observed="10.20.30.40",
        forward=Neighbour(id=bytes(16), address="10.20.30.41", port=14172),
        revision=1_800_000_000_000,
        settings={"pad": pad},
        call=1,
        trace=TRACE,
    )


def _padded(size: int, make: Callable[[str], Message]) -> Message:
    """The message whose frame has this size, by a text that fills it."""
    room = size - len(encode(make("")))
    over = len(encode(make("x" * room))) - size  # a longer text has a longer header
    return make("x" * (room - over))


ANSWER = _padded(SMALL, _answer)
"""A REGISTERED whose frame has `SMALL` bytes, with the call and the trace of the request."""


def register(*, full: bool) -> bytes:
    """A registration as clients send it: everything, or only that nothing has changed."""
    if not full:
        return encode(Register(token=bytes(16), call=1, trace=TRACE))
    return encode(
        Register(
            host="client.bench.test",
            version="0.1.0",
            port=14172,
            address="",
            token=bytes(16),
            full=True,
            call=1,
            trace=TRACE,
        )
    )


def token_place(frame: bytes) -> int:
    """Where in a frame its token begins."""
    return frame.index(TOKEN_AT) + len(TOKEN_AT)


def bulk() -> bytes:
    """A frame of a hub around `BULK` bytes."""
    return encode(Relay(zone=bytes(16), proven=True, inner_type=16, inner=bytes(BULK)))


def ping(sender: bytes) -> bytes:
    """A request that the server's service answers, from this client."""
    return encode(Ping(id=1, sender=sender, call=1, trace=TRACE))


def write(folder: Path, name: str, frame: bytes) -> Path:
    """Put a frame where a load finds it."""
    path = folder / f"{name}.frame"
    path.write_bytes(frame)
    return path
