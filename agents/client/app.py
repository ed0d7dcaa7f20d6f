"""A client: enrols, registers, stands in the line, renews, follows; for ever and by itself."""

import asyncio
import socket
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from agents.client.chain import Chain
from agents.client.config import Config
from agents.client.control import serve_control
from agents.client.memory import Memory
from agents.client.pings import Pings
from agents.client.registration import Registering
from agents.member.answering import pong, proven
from agents.member.bundle_settings import bundle_settings, take_log_level
from agents.member.following import answer_ledger_get
from agents.member.keyring import Keyring
from agents.member.links import Links
from agents.member.member import Member
from agents.member.renewal import Renewal
from agents.member.starting import opened
from agents.member.status import Status
from agents.member.telling import tell
from agents.member.trust import Trust
from agents.member.uplink import Uplink
from agents.runtime import logs
from agents.runtime.channel import Channel
from agents.runtime.clock import Clock
from agents.runtime.errors import StateError
from agents.runtime.files import DISK
from agents.runtime.lifecycle import Stop, version
from agents.runtime.listener import Listener
from agents.runtime.network import Answer
from agents.runtime.tasks import Tasks, first_of, until_stopped
from pki import rotation
from pki.certificates import Kind
from pki.errors import MalformedError
from pki.names import Role
from pki.rotation import CLIENT_WINDOW, Policy
from protocol.messages import (
    HeadNotice,
    LedgerGet,
    Message,
    PeerHello,
    Ping,
    Refused,
    Registered,
)

__all__ = ["Client", "run"]

log = logs.get_logger()


async def run(config: Config, *, clock: Clock, stop: Stop) -> None:
    """Run a client until it is asked to stop.

    Raises:
        StateError: the state or the bundle cannot be used, or the port is taken.
    """
    with opened(
        config.state,
        Role.CLIENT,
        bundle=config.bundle,
        expect=config.expect_fingerprint,
        clock=clock,
        log=log,
    ) as (keyring, trust):
        told = bundle_settings(config.state, config.bundle, trust)
        take_log_level(config.log_level, told)
        servers = config.servers or list(told.servers)
        if not servers:
            raise StateError(
                f"no server to report to: neither the configuration nor {config.bundle} names one",
                hint="set `servers`, or export a bundle with --set ServerNameList=HOST:PORT,...",
            )
        config = replace(config, servers=servers)
        await Client(config, clock, keyring, trust).serve(stop)


class Client:
    """The rooms of a client, and how they hang together."""

    def __init__(self, config: Config, clock: Clock, keyring: Keyring, trust: Trust) -> None:
        self.config = config
        self.clock = clock
        self.keyring = keyring
        self.tasks = Tasks(clock, log)
        self.member = Member(
            Role.CLIENT,
            Kind.CLIENT_TLS,
            keyring=keyring,
            trust=trust,
            clock=clock,
            log=log,
            tasks=self.tasks,
            relay=self._relay,
        )
        self.links = Links(trust)
        self.memory = Memory(config.state / "registration.json", DISK)
        self.listener: Listener | None = None
        self.uplink = Uplink(
            self.member,
            addresses=lambda: [(server.host, server.port) for server in config.servers],
            roles=frozenset({Role.SERVER, Role.ZONE_SERVER}),
            handler=self.handle,
            kind=Kind.CLIENT_TLS,
            local_address=config.source,
        )
        self.uplink.opened = self._responder_link
        self.chain = Chain(
            self.member,
            self.links,
            handler=self.handle,
            listen=self._listen,
            source=config.source,
            poke=lambda: self.registering.poke(),
            responder=self._issuer,
        )
        self.registering = Registering(
            self.member,
            self.uplink,
            self.memory,
            facts=self._facts,
            lost=self.chain.take_lost,
            placed=self._placed,
            interval=(config.registration_min, config.registration_max),
        )
        self.renewal = Renewal(
            Kind.CLIENT_TLS,
            keyring=keyring,
            trust=trust,
            clock=clock,
            log=log,
            obtain=self.uplink.obtain,
            policy=self._policy,
            spread=lambda: self.member.following.spread,
        )
        self.pings = Pings(self.member, links=self._standing, interval=config.ping)
        self.received = 0
        """Pings of others that were answered here."""
        self._leading = asyncio.Event()
        self._placed_once = asyncio.Event()

    async def serve(self, stop: Stop) -> None:
        """Work until asked to stop."""
        config = self.config
        self.listener = await Listener.start(
            config.listen.host,
            config.listen.port,
            endpoint=self.member.endpoint,
            handler=self.handle,
            verify=self.member.verifier(roles=frozenset({Role.CLIENT}), client_ca_of=self._issuer),
            on_channel=self.links.accept,
            kind="client to client",
            expected="a client of our responder",
        )
        status = Status(
            self.member,
            config.state,
            links=lambda: list(self.links),
            renewals=lambda: {Kind.CLIENT_TLS.value: self.renewal.next_at},
            more=self._more,
        )
        loops = (
            self.links.watch(),
            self.links.follow(self.member),
            self.registering.run(),
            self._renew(),
            self.renewal.follow(),
            self._lead(),
            self.chain.run(),
            self.pings.run(),
            status.run(),
            serve_control(config.state, {"renew": self._renew_now}),
        )
        await until_stopped(stop, loops)
        await self.listener.stop()
        await self.links.close()
        await self.tasks.close()
        status.write()

    def handle(self, channel: Channel, message: Message) -> Answer | Awaitable[Answer]:
        """Answer a responder or a neighbour."""
        match message:
            case Ping():
                self.received += 1
                return pong(channel, message)
            case HeadNotice():
                return self.member.following.notice(channel, message)
            case LedgerGet():
                return answer_ledger_get(self.member.trust, message)
            case PeerHello():
                return self.chain.accept(channel, message)
            case _:
                return Refused(reason="unknown", text=f"{type(message).__name__} is not for us")

    async def _lead(self) -> None:
        """Keep a link to the responder for as long as we are an end of our chain (G2)."""
        while True:
            await self._leading.wait()
            # `keep` never ends by itself: if it fails, the client does.
            await first_of(self.uplink.keep(), self._until_inside())

    async def _until_inside(self) -> None:
        """Wait until both our neighbours are there, and so no link to the responder is due."""
        while self._leading.is_set():
            self._placed_once.clear()
            await self._placed_once.wait()

    def _placed(self, answer: Registered) -> None:
        self.chain.put(answer)
        if answer.leader:
            self._leading.set()
        else:
            self._leading.clear()
        self._placed_once.set()
        self.renewal.poke()

    async def _responder_link(self, channel: Channel) -> None:
        self.links.add(channel)
        await self.member.acknowledge(channel, proven(channel).name.id)

    async def _relay(self, source: Channel | None, notice: HeadNotice) -> None:
        """Pass a counted HEAD down the chain, both ways but the one it came from."""
        await tell([peer for peer in self.chain.peers if peer is not source], notice)

    async def _renew(self) -> None:
        """Renew from the first certificate on: until then the first link asks for it."""
        await self.member.until_certified(Kind.CLIENT_TLS)
        await self.renewal.run()

    async def _renew_now(self) -> None:
        await self.uplink.obtain(Kind.CLIENT_TLS, "asked")
        self.renewal.poke()

    def _standing(self) -> Mapping[str, Channel]:
        """The links that stand, by their place."""
        places = {
            "forward": self.chain.forward,
            "backward": self.chain.backward,
            "responder": self.uplink.link,
        }
        return {place: c for place, c in places.items() if c is not None and c.is_open}

    def _issuer(self) -> bytes | None:
        """Id of the responder whose client CA has signed our certificate."""
        held = self.keyring.credential(Kind.CLIENT_TLS)
        return None if held is None else held.issuer_id

    def _policy(self) -> Policy:
        """The window: as the responder says now, or as it came with the certificate."""
        held = self.keyring.credential(Kind.CLIENT_TLS)
        default = rotation.policies(rotation.SETTINGS)[0][Kind.CLIENT_TLS]
        validity = held.leaf.not_after - held.leaf.not_before if held else default.validity
        said = self.memory.last.settings.get(CLIENT_WINDOW)
        if said is not None:
            with suppress(MalformedError):
                return Policy(
                    validity, timedelta(hours=rotation.parse_setting(CLIENT_WINDOW, said))
                )
        return Policy(validity, held.window if held else default.window)

    def _listen(self) -> tuple[str, int]:
        port = self.listener.port if self.listener else self.config.listen.port
        return self.config.source or "", port

    def _facts(self) -> dict[str, Any]:
        """What a registration says of us; the fields of REGISTER."""
        held = self.keyring.credential(Kind.CLIENT_TLS)
        address, port = self._listen()
        return {
            "host": self.config.host or socket.gethostname(),
            "version": version(),
            "port": port,
            "address": address,
            "root": held.root if held else None,
            "key_not_after": int(held.leaf.not_after.timestamp()) if held else None,
        }

    def _more(self) -> Mapping[str, Any]:
        place = self.chain.place
        responder = self.registering.responder
        return {
            "host": self.config.host or socket.gethostname(),
            "listen": self._listen(),
            "responder": responder.hex() if responder else None,
            "registrations": self.registering.done,
            "leader": place.leader,
            "neighbours": {
                "revision": place.revision,
                "forward": place.forward.id.hex() if place.forward else None,
                "backward": place.backward.id.hex() if place.backward else None,
            },
            "standing": {name: c.id for name, c in self._standing().items()},
            "pings": {
                "sent": self.pings.sent,
                "answered": self.pings.answered,
                "open": self.pings.unanswered,
                "received": self.received,
            },
        }
