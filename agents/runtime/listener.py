"""Accepting links on one TCP port, and not more of them than we can serve.

    accept ──► Gate ──► Opening ──► Channel ──► on_channel
                 │
                 └── too many: RETRY_AFTER after a handshake, or nothing (`admission`)

A zone server's hub port accepts TCP and is the TLS *client* (`server_side=False`): `classify`
says for each connection which class of link to ask for.

Contexts are asked for at each connection, so a change of trust or certificate needs no restart
of the listener. Open links stay as they are: who made them closes them when trust changes.
"""

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from OpenSSL import SSL

from agents.runtime.admission import Admission, Gate, Pass
from agents.runtime.channel import Channel
from agents.runtime.clock import Clock
from agents.runtime.errors import StateError, reason_of
from agents.runtime.network import Address, Endpoint, Handler, Verify, client_context
from agents.runtime.opening import Opening, Side
from agents.runtime.remedies import REMEDIES
from agents.runtime.tcp import Listening, listen
from agents.runtime.wire import Wire
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.link import Closed, Opened

__all__ = ["Admission", "Listener"]

BACKLOG = 512
"""Connections that the kernel keeps until we take them: half a second of handshakes."""

HINTS = {
    errno.EADDRINUSE: "stop the other program that listens there, or set another port",
    errno.EADDRNOTAVAIL: "set an address of this host, or one that means all of them (0.0.0.0)",
    errno.EACCES: "set a port above 1023, or give the service CAP_NET_BIND_SERVICE",
}


class Listener:
    """One listening port. Made by `start`; belongs to one event loop."""

    def __init__(
        self,
        side: Side,
        *,
        admission: Admission,
        on_channel: Callable[[Channel], None],
        on_refused: Callable[[Address, Closed], None] = lambda _remote, _closed: None,
    ) -> None:
        self._side = side
        self._gate = Gate(admission)
        self._on_channel = on_channel
        self._on_refused = on_refused
        self._listening: Listening | None = None
        self._openings: dict[_Visit, Opening] = {}  # the oldest first
        self._channels: dict[_Visit, Channel] = {}
        """Links, until their connection is gone."""
        self.host = ""
        self.port = 0
        """Where it listens; the one that the system chose if 0 was asked for."""

    @classmethod
    async def start(
        cls,
        host: str,
        port: int,
        *,
        endpoint: Endpoint,
        verify: Verify,
        handler: Handler,
        admission: Admission | None = None,
        on_channel: Callable[[Channel], None] = lambda _channel: None,
        on_refused: Callable[[Address, Closed], None] = lambda _remote, _closed: None,
        server_side: bool = True,
        classify: Callable[[Address], LinkClass] | None = None,
        kind: str = "",
        expected: str = "",
    ) -> Self:
        """Listen.

        Args:
            host: Address to listen on.
            port: TCP port; 0 for any that is free.
            endpoint: Who we are.
            verify: Judges the chain of each peer that shows one.
            handler: Answers requests, of every class of link.
            admission: The bounds; its defaults if None.
            on_channel: Called with each link that opens.
            on_refused: Called with each connection that ends before it is a link.
            server_side: Whether we are the TLS server.
            classify: Gives the class of each link, if we are the TLS client.
            kind: Which of the product's links these are, for log lines.
            expected: Whom they expect, for log lines.

        Raises:
            StateError: The address cannot be listened on; its hint says what to do.
        """
        if server_side == (classify is not None):
            raise ValueError("a TLS client states the class of its links, a TLS server is told")

        def context(link_class: LinkClass | None) -> SSL.Context:
            if link_class is None:
                return endpoint.contexts.server()
            return client_context(endpoint.contexts, link_class)

        if admission is not None:
            limits = replace(endpoint.limits, send_high_water=admission.send_buffer)
            endpoint = replace(endpoint, limits=limits)
        side = Side(
            endpoint=endpoint,
            verify=verify,
            handler=handler,
            server_side=server_side,
            context=context,
            link_class=classify,
            kind=kind or f"{endpoint.role} port",
            expected=expected,
        )
        self = cls(
            side,
            admission=admission or Admission(),
            on_channel=on_channel,
            on_refused=on_refused,
        )
        try:
            self._listening = await listen(
                self._accept, host, port, backlog=BACKLOG, exhausted=self._exhausted
            )
        except OSError as exc:
            raise StateError(
                f"cannot listen on {host}:{port}: {_words(exc)}",
                hint=HINTS.get(exc.errno or 0, "set another address or port"),
            ) from exc
        self.host, self.port = self._listening.address
        return self

    @property
    def clock(self) -> Clock:
        """Whose network time the gate counts in."""
        return self._side.endpoint.clock

    @property
    def connections(self) -> int:
        """Connections at this moment, those that are not links yet included."""
        return self._gate.connections

    @property
    def handshakes(self) -> int:
        """Connections that are not links yet."""
        return self._gate.handshakes

    def close(self) -> None:
        """Accept nothing more; drop what is no link yet. Open links stay. Idempotent."""
        if self._listening is not None:
            self._listening.close()
        for opening in list(self._openings.values()):
            opening.wire.abort()

    async def stop(self, code: CloseCode = CloseCode.GOING_AWAY, text: str = "") -> None:
        """Close, end every link with this code, and wait until each peer may have read it."""
        self.close()
        channels = list(self._channels.values())
        for channel in channels:
            channel.close(code, text)
        for channel in channels:
            await channel.gone()

    def _accept(self) -> Wire:
        visit = _Visit(self)
        opening = self._openings[visit] = Opening(self._side, visit)
        return opening.wire

    def _exhausted(self, error: OSError) -> None:
        self._side.endpoint.log.error(
            "listener.paused",
            kind=self._side.kind,
            reason=_words(error),
            remedy=REMEDIES["exhausted"],
        )

    def _make_way(self) -> None:
        """Have the oldest handshake end, if it is old enough, for somebody who comes now."""
        for visit, opening in self._openings.items():
            if visit.holds_a_place:
                if self.clock.monotonic() - visit.since >= self._gate.admission.patience:
                    opening.refused("dropped", "its handshake did not end, and others waited")
                    visit.settle()
                    opening.wire.abort()
                return

    def _done(self, visit: "_Visit", opening: Opening, result: Channel | Closed) -> None:
        self._openings.pop(visit, None)
        if isinstance(result, Channel):
            self._channels[visit] = result
            result.announce()
            self._on_channel(result)
        else:
            self._on_refused(opening.remote, result)

    def _lost(self, visit: "_Visit") -> None:
        self._openings.pop(visit, None)
        self._channels.pop(visit, None)


class _Visit:
    """What the gate knows of one connection, from its arrival to its end."""

    __slots__ = ("_address", "_listener", "_pass", "_reason", "_retry_after", "_settled", "since")

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._address = ""
        self._pass: Pass | None = None
        self._retry_after = 0.0
        self._reason = ""
        self._settled = False
        self.since = listener.clock.monotonic()
        """Network time of its arrival."""

    @property
    def holds_a_place(self) -> bool:
        """Whether its handshake is one of those that are counted."""
        return self._pass is Pass.ENTER and not self._settled

    def arrived(self, opening: Opening) -> bool:
        gate, self._address = self._listener._gate, opening.remote[0]
        if gate.waits_for_place(self._address):
            self._listener._make_way()
        verdict, self._retry_after, self._reason = gate.arrive(self._address)
        if verdict is Pass.DROP:
            opening.refused("dropped", self._reason)
            return False
        self._pass = verdict
        return True

    def admit(self, opening: Opening, opened: Opened) -> tuple[float, str] | None:
        if self._pass is Pass.COURTESY:
            return self._retry_after, self._reason
        if opened.link_class is LinkClass.DISCOVERY:
            gate = self._listener._gate
            wait = gate.discovery(self._address, self._listener.clock.monotonic())
            if wait > 0:
                bound = gate.admission
                return wait, f"more than {bound.discovery_burst} discovery links of one address"
        return None

    def done(self, opening: Opening, result: Channel | Closed) -> None:
        self.settle()
        self._listener._done(self, opening, result)

    def lost(self) -> None:
        self._listener._lost(self)
        self.settle()
        if self._pass is not None:
            self._listener._gate.left(self._address)
            self._pass = None

    def settle(self) -> None:
        """Its handshake is over, however."""
        if self._pass is not None and not self._settled:
            self._settled = True
            self._listener._gate.settled(self._pass, self._address)


def _words(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use"
    return reason_of(error)
