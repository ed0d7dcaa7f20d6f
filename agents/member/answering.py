"""Answers that every member gives in the same way, and that say who the sender is."""

from agents.runtime.channel import Channel
from pki.peers import Peer
from protocol.messages import Ping, Pong, Refused

__all__ = ["NOT_YOURS", "pong", "proven"]

NOT_YOURS = Refused(reason="identity", text="the message names another component than its link")


def proven(channel: Channel) -> Peer:
    """Who is at the other end of a member link.

    Raises:
        LookupError: this is no member link, so nobody has proven anything.
    """
    if channel.peer is None:
        raise LookupError(f"link {channel.id} proves no peer")
    return channel.peer


def pong(channel: Channel, message: Ping) -> Pong | Refused:
    """Answer a ping, if it is its sender's own: who that is comes from the link."""
    if channel.peer is None or message.sender != channel.peer.name.id:
        return NOT_YOURS
    return Pong(id=message.id)
