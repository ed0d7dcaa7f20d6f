"""Making a link: TCP, TLS, HELLO, and the certainty that the other side accepts it too.

In TLS 1.2 the client's handshake is over before the server has looked at more than signatures:
a server that finds the client's certificate expired says so in a CLOSE a moment later. `dial`
therefore asks one question on a member link (a `Ping` without sender, answered by the other
link itself) before it calls the link open, and whatever the other side found wrong is a
`DialError` with its code, clock and "retry after", as if the handshake had failed.

A hub dials TCP and is the TLS server (`server_side=True`): it is told the class of the link.
"""

import asyncio
import errno
from collections.abc import Callable

from OpenSSL import SSL

from agents.runtime.channel import Channel
from agents.runtime.errors import UnavailableError, reason_of
from agents.runtime.network import (
    DialError,
    Endpoint,
    Handler,
    LinkError,
    Verify,
    client_context,
)
from agents.runtime.opening import Opening, Side
from agents.runtime.tcp import connect
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.link import Closed, Opened
from protocol.messages import Message, Ping, Refused

__all__ = ["DialError", "dial", "refuse"]

SILENT = frozenset({CloseCode.LOST, CloseCode.HANDSHAKE_TIMEOUT})
"""Endings before anything was said: as good as no connection."""


async def refuse(_channel: Channel, _message: Message) -> Message:
    """Refuse every request: the handler of a link on which only this side asks."""
    return Refused(reason="not_served", text="nothing is answered on this link")


async def dial(
    host: str,
    port: int,
    *,
    endpoint: Endpoint,
    link_class: LinkClass | None,
    verify: Verify,
    handler: Handler = refuse,
    context: SSL.Context | None = None,
    local_address: str | None = None,
    server_side: bool = False,
    kind: str = "",
    expected: str = "",
) -> Channel:
    """Return an open link that both sides accept; policy time is held until then.

    Args:
        host: Name or address to connect to.
        port: TCP port.
        endpoint: Who we are.
        link_class: What the link is for; None with `server_side`, where the peer says it.
        verify: Judges the peer's chain; not asked on a discovery link.
        handler: Answers the peer's requests.
        context: Instead of the endpoint's context for this class.
        local_address: Source address, for hosts with several.
        server_side: Be the TLS server on the connection that we made.
        kind: Which of the product's links this is, for log lines.
        expected: Whom we expect, for log lines.

    Raises:
        DialError: There is no link; see `network`. Everything but an unreachable address
            has had its "link.refused" line.
    """
    if server_side == (link_class is not None):
        raise ValueError("a TLS client states the class of its link, a TLS server is told")
    with endpoint.clock.hold():
        side = Side(
            endpoint=endpoint,
            verify=verify,
            handler=handler,
            server_side=server_side,
            context=_contexts(endpoint, context),
            link_class=None if link_class is None else lambda _remote: link_class,
            kind=kind or f"{endpoint.role} to {host}:{port}",
            expected=expected,
        )
        try:
            async with asyncio.timeout(endpoint.handshake_timeout + 1.0):
                channel, opening = await _open(side, host, port, local_address)
        except TimeoutError as exc:
            raise _unreachable(host, port, "no answer in time") from exc
        try:
            await _confirm(channel, endpoint.handshake_timeout)
        except LinkError as exc:
            code = exc.code
            assert code is not None  # only a dial has none
            opening.refused(code.name.lower(), exc.text, by_peer=exc.by_peer)
            raise DialError(
                f"{host}:{port}: {exc.text}",
                code=code,
                by_peer=exc.by_peer,
                retry_after=exc.retry_after,
                peer_time=exc.peer_time,
            ) from exc
        except UnavailableError as exc:
            channel.close(CloseCode.HANDSHAKE_TIMEOUT)
            raise _unreachable(host, port, exc.text) from exc
        except asyncio.CancelledError:
            channel.abort()
            raise
        channel.announce()
        return channel


def _contexts(
    endpoint: Endpoint, context: SSL.Context | None
) -> Callable[[LinkClass | None], SSL.Context]:
    def choose(link_class: LinkClass | None) -> SSL.Context:
        if context is not None:
            return context
        if link_class is None:
            return endpoint.contexts.server()
        return client_context(endpoint.contexts, link_class)

    return choose


class _Dialled:
    """The visitor of a connection that we make: whoever is there is welcome."""

    __slots__ = ("_outcome",)

    def __init__(self, outcome: asyncio.Future[Channel | Closed]) -> None:
        self._outcome = outcome

    def arrived(self, opening: Opening) -> bool:
        return True

    def admit(self, opening: Opening, opened: Opened) -> tuple[float, str] | None:
        return None

    def done(self, opening: Opening, result: Channel | Closed) -> None:
        if not self._outcome.done():
            self._outcome.set_result(result)

    def lost(self) -> None:
        if not self._outcome.done():  # a fault of ours, which the loop has reported
            self._outcome.set_result(Closed(CloseCode.LOST, "failed on our side", by_peer=False))


async def _open(
    side: Side, host: str, port: int, local_address: str | None
) -> tuple[Channel, Opening]:
    outcome: asyncio.Future[Channel | Closed] = asyncio.get_running_loop().create_future()
    opening = Opening(side, _Dialled(outcome))
    local = None if local_address is None else (local_address, 0)
    try:
        try:
            await connect(lambda: opening.wire, host, port, local=local)
        except OSError as exc:
            raise _unreachable(host, port, _words(exc)) from exc
        except ValueError as exc:
            # A name that no resolver takes; it may have come from a peer.
            raise _unreachable(ascii(host), port, "this is no address") from exc
        result = await outcome
    except BaseException:
        opening.wire.abort()
        raise
    if isinstance(result, Channel):
        return result, opening
    if result.code in SILENT:
        raise _unreachable(host, port, result.text or "it closed the connection")
    raise DialError(
        f"{host}:{port}: {'refused us' if result.by_peer else 'refused by us'} "
        f"({result.code.name.lower()}){': ' if result.text else ''}{result.text}",
        code=result.code,
        by_peer=result.by_peer,
        retry_after=result.retry_after,
        peer_time=result.time,
    )


async def _confirm(channel: Channel, within: float) -> None:
    """Return when the peer has accepted the link; see the top."""
    if channel.link_class is LinkClass.MEMBER:
        await channel.request(Ping(id=0), timeout=within, hold=False)


def _unreachable(host: str, port: int, why: str) -> DialError:
    return DialError(f"{host}:{port} cannot be reached: {why}", code=None)


def _words(error: OSError) -> str:
    if error.errno == errno.ECONNREFUSED:
        return "nothing listens there"
    return reason_of(error)
