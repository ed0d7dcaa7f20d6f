"""Frames: how messages are cut out of a stream of bytes.

    +--------+--------+--------+--------+--------+----------------------+
    |  length of the body, big-endian   |  type  |  body: one msgpack   |
    +--------+--------+--------+--------+--------+----------------------+

The header decides alone: a type that is unknown, not allowed here, or longer than its
limit is refused before a byte of its body is kept. `docs/spec/frame.md` is the format.
"""

from collections.abc import Mapping
from enum import IntEnum, unique
from struct import Struct
from typing import Final

import msgspec

from protocol.errors import FrameTooLargeError, NotAllowedError, UnknownFrameError

__all__ = ["HEADER", "Frame", "FrameDecoder", "FrameType", "encode_frame"]

HEADER: Final = 5
"""Bytes of a frame's header."""


@unique
class FrameType(IntEnum):
    """The type byte of a frame. Numbers are for ever."""

    HELLO = 0x01
    CLOSE = 0x02
    PING = 0x03
    PONG = 0x04
    DONE = 0x05
    REFUSED = 0x06

    LEDGER_GET = 0x10
    LEDGER_ENTRIES = 0x11
    HEAD_NOTICE = 0x12
    ACK = 0x13

    NONCE_GET = 0x20
    NONCE = 0x21
    ENROL = 0x22
    ISSUED = 0x23
    PENDING = 0x24

    REGISTER = 0x30
    REGISTERED = 0x31
    PEER_HELLO = 0x32
    SETTINGS = 0x33

    REPORT = 0x40
    RELAY = 0x41
    RELAYED = 0x42


NAMES: Final[Mapping[int, str]] = {frame.value: frame.name for frame in FrameType}
TYPES: Final[Mapping[int, FrameType]] = {frame.value: frame for frame in FrameType}
_HEADER: Final = Struct(">IB")


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame: its type and the bytes of its body."""

    type: FrameType
    body: bytes


def encode_frame(frame_type: FrameType, body: bytes) -> bytes:
    """Return the frame of this type around `body`."""
    return _HEADER.pack(len(body), frame_type) + body


class FrameDecoder:
    """Cuts frames out of bytes that arrive in pieces of any size.

    Between calls it keeps at most the chunk last received and one unfinished frame, so
    its memory is bounded by the largest limit. After an error it must not be used again.

    What is fed is lent until `next_frame` gives `None`: only bodies, and the beginning of a
    frame whose rest is to come, are copied out of it.

    Args:
        limits: Largest body in bytes for each type that may arrive.
        where: Names the link in errors.
    """

    __slots__ = ("_buffer", "_limits", "_start", "_where")

    def __init__(self, limits: Mapping[int, int], where: str) -> None:
        # A bytearray is ours; what is lent is bytes or a view.
        self._buffer: bytes | bytearray | memoryview = b""
        self._start = 0
        self._limits = limits
        self._where = where

    @property
    def partial(self) -> bool:
        """Whether an unfinished frame is waiting for its rest."""
        return len(self._buffer) > self._start

    def expect(self, limits: Mapping[int, int], where: str) -> None:
        """From the next frame on, accept these types within these limits."""
        self._limits = limits
        self._where = where

    def sole(self, data: bytes | memoryview) -> Frame | None:
        """Return the frame that `data` is, if that is one whole frame that may arrive.

        `None` for anything else, and where a piece of a frame waits: that is to be fed. Nearly
        every read brings one frame, and `feed` and `next_frame` would give the same.
        """
        if self._buffer or len(data) < HEADER or not isinstance(data, bytes):
            return None
        size, number = _HEADER.unpack_from(data)
        if size != len(data) - HEADER or size > self._limits.get(number, -1):
            return None
        return Frame(TYPES[number], data[HEADER:])

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the stream; `next_frame` then cuts them."""
        if self._start < len(self._buffer):
            self._kept().extend(data)
        else:
            self._buffer = data if isinstance(data, bytes) else memoryview(data)
            self._start = 0

    def _kept(self) -> bytearray:
        """Return a copy of our own of what is left: the rest of a frame is to come."""
        if isinstance(self._buffer, bytearray):
            del self._buffer[: self._start]
        else:
            self._buffer = bytearray(memoryview(self._buffer)[self._start :])
        self._start = 0
        return self._buffer

    def next_frame(self) -> Frame | None:
        """Return the next whole frame, or `None` until more bytes are fed.

        Raises:
            UnknownFrameError: The type does not exist.
            NotAllowedError: The type exists and may not arrive here.
            FrameTooLargeError: The body is longer than its type allows.
        """
        buffer, start = self._buffer, self._start
        body = start + HEADER
        if len(buffer) < body:
            if start < len(buffer):
                self._kept()
            else:
                self._buffer, self._start = b"", 0  # an idle link keeps nothing
            return None
        size, number = _HEADER.unpack_from(buffer, start)
        limit = self._limits.get(number)
        if limit is None:
            name = NAMES.get(number)
            raise UnknownFrameError(number) if name is None else NotAllowedError(name, self._where)
        if size > limit:
            raise FrameTooLargeError(NAMES[number], size, limit)
        end = body + size
        if len(buffer) < end:
            self._kept()
            return None
        self._start = end
        if isinstance(buffer, bytes):
            return Frame(TYPES[number], buffer[body:end])
        return Frame(TYPES[number], bytes(memoryview(buffer)[body:end]))
