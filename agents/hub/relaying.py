"""Zone servers' requests in envelopes to the server, and its answers back (E2).

The hub says who sent a request, because it ended that link: the id from the certificate, or
nobody. It looks at nothing else, keeps nothing, and signs nothing.
"""

import msgspec

from agents.runtime.channel import Channel
from agents.runtime.errors import UnavailableError
from protocol import codec
from protocol.access import LinkClass
from protocol.errors import ProtocolError
from protocol.frames import FrameType
from protocol.messages import Message, Refused, Relay, Relayed

__all__ = ["relay"]

RETRY_AFTER = 2.0
"""Seconds that a zone server is asked to wait while there is no server."""


async def relay(server: Channel | None, zone: Channel, message: Message) -> Message:
    """Hand a zone server's request on, and return the server's answer."""
    if server is None:
        return Refused(reason="unavailable", text="no server", retry_after=RETRY_AFTER)
    proven = zone.peer if zone.link_class is LinkClass.MEMBER else None
    envelope = Relay(
        zone=b"" if proven is None else proven.name.id,
        proven=proven is not None,
        inner_type=message.FRAME,
        inner=codec.encode_body(msgspec.structs.replace(message, call=0)),
    )
    try:
        answer = await server.request(envelope)
    except UnavailableError as exc:
        return Refused(reason="unavailable", text=str(exc), retry_after=RETRY_AFTER)
    if not isinstance(answer, Relayed):
        return answer
    try:
        inner = codec.decode(FrameType(answer.inner_type), answer.inner)
    except (ProtocolError, ValueError) as exc:
        return Refused(reason="envelope", text=str(exc))
    if type(inner) not in message.ANSWERS:
        return Refused(reason="envelope", text=f"{type(inner).__name__} is no answer to this")
    return inner
