"""Messages to frames, and bodies to messages: the one door for bytes of a peer.

Behind it everything has its type and its limits:

1. size      the frame's limit, checked by `FrameDecoder` before the body is kept.
2. form      one msgpack value with text as keys; no extensions, nothing behind it.
3. type      in the same pass: unknown fields, wrong types and lengths are refused.
4. trace     lower-case hex, as it goes into every log line.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.frames import FrameType, encode_frame
from protocol.limits import FRAME_LIMITS
from protocol.messages import MESSAGES, TRACE_DIGITS, Message

__all__ = ["decode", "encode", "encode_body"]

_READERS: Final[Mapping[FrameType, msgspec.msgpack.Decoder[Message]]] = {
    m.FRAME: msgspec.msgpack.Decoder(m) for m in MESSAGES
}
_SENT: Final[Mapping[type[Message], tuple[msgspec.msgpack.Decoder[Message], int]]] = {
    m: (_READERS[m.FRAME], FRAME_LIMITS[m.FRAME]) for m in MESSAGES
}
"""What checks a body that we have written, and how large it may be."""
_encode: Final = msgspec.msgpack.Encoder().encode


def encode_body(message: Message) -> bytes:
    """Return the msgpack body of a message.

    Raises:
        LocalProtocolError: A field breaks its own type or limit, which the peer would
            answer by closing the link.
    """
    reader, limit = _SENT[type(message)]
    try:
        body = _encode(message)
        # What was built in this program is checked by reading it back: one pass, where
        # to convert it field by field and then encode it takes three.
        _check(reader.decode(body))
    except (msgspec.MsgspecError, TypeError, OverflowError, UnicodeError) as exc:
        raise LocalProtocolError(f"{message.FRAME.name} cannot be sent: {exc}") from exc
    if len(body) > limit:
        raise LocalProtocolError(
            f"{message.FRAME.name} of {len(body)} bytes exceeds limit of {limit} bytes"
        )
    return body


def encode(message: Message) -> bytes:
    """Return the whole frame of a message; raises as `encode_body`."""
    return encode_frame(message.FRAME, encode_body(message))


def decode(frame_type: FrameType, body: bytes) -> Message:
    """Return the message that a frame of this type carries.

    Raises:
        RemoteProtocolError: The body is not one message of this type.
    """
    try:
        message = _READERS[frame_type].decode(body)
        _check(message)
    except msgspec.ValidationError as exc:
        raise RemoteProtocolError(f"{frame_type.name}: {str(exc)[:200]!r}") from exc
    except (msgspec.DecodeError, ValueError, RecursionError) as exc:
        raise RemoteProtocolError(f"{frame_type.name} is not msgpack: {str(exc)[:100]!r}") from exc
    return message


def _check(message: Message) -> None:
    if message.trace.strip(TRACE_DIGITS):
        raise msgspec.ValidationError("Expected lower-case hex - at `$.trace`")
