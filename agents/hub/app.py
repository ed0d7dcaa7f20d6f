"""A hub: dials its server and its zone servers, and carries what is between them (E2, I3).

Towards the server it is a member like others: identity, approval, certificate, renewal. Towards
a zone server it dials TCP and is then the TLS server, so it listens on no port and the zone
server opens no connection inwards. Heads and settings go outwards, requests in envelopes go
inwards; what the hub itself knows of the ledger it answers itself.
"""

from typing import Any

from agents.hub.config import Config
from agents.hub.relaying import relay
from agents.member.acknowledging import Acknowledging
from agents.member.answering import pong
from agents.member.bundle_settings import bundle_settings, take_log_level
from agents.member.following import answer_ledger_get
from agents.member.keyring import Keyring
from agents.member.links import Links
from agents.member.member import Member
from agents.member.renewal import Renewal
from agents.member.shared_settings import SharedSettings
from agents.member.starting import opened
from agents.member.status import Status
from agents.member.telling import tell
from agents.member.trust import Trust
from agents.member.uplink import Uplink
from agents.runtime import logs
from agents.runtime.address import HostPort
from agents.runtime.backoff import Backoff, Pace
from agents.runtime.channel import Channel
from agents.runtime.clock import Clock
from agents.runtime.dialer import dial
from agents.runtime.errors import UnavailableError
from agents.runtime.files import DISK
from agents.runtime.lifecycle import Stop
from agents.runtime.tasks import Tasks, first_of, until_stopped
from agents.runtime.trouble import Trouble
from pki.certificates import Kind
from pki.names import Role
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.messages import (
    Ack,
    Enrol,
    HeadNotice,
    LedgerGet,
    Message,
    NonceGet,
    Ping,
    Refused,
    Report,
    Settings,
)

__all__ = ["Hub", "run"]

log = logs.get_logger()


async def run(config: Config, *, clock: Clock, stop: Stop) -> None:
    """Run a hub until it is asked to stop.

    Raises:
        StateError: the state or the bundle cannot be used.
    """
    with opened(
        config.state,
        Role.HUB,
        bundle=config.bundle,
        expect=config.expect_fingerprint,
        clock=clock,
        log=log,
    ) as (keyring, trust):
        told = bundle_settings(config.state, config.bundle, trust)
        take_log_level(config.log_level, told)
        await Hub(config, clock, keyring, trust).serve(stop)


class Hub:
    """The rooms of a hub, and how they hang together."""

    def __init__(self, config: Config, clock: Clock, keyring: Keyring, trust: Trust) -> None:
        self.config = config
        self.clock = clock
        self.tasks = Tasks(clock, log)
        self.member = Member(
            Role.HUB,
            Kind.HUB_TLS,
            keyring=keyring,
            trust=trust,
            clock=clock,
            log=log,
            tasks=self.tasks,
            relay=self._relay,
        )
        self.links = Links(trust)
        self.settings = SharedSettings(
            config.state / "settings.json", DISK, log, self._settings_changed
        )
        self.uplink = Uplink(
            self.member,
            addresses=lambda: [(config.server.host, config.server.port)],
            roles=frozenset({Role.SERVER}),
            handler=self.handle_server,
            kind=Kind.HUB_TLS,
        )
        self.uplink.opened = self._server_link
        self.acknowledging = Acknowledging(
            self.member.acknowledgement,
            trust,
            link=lambda: self.uplink.link,
            clock=clock,
            log=log,
        )
        self.renewal = Renewal(
            Kind.HUB_TLS,
            keyring=keyring,
            trust=trust,
            clock=clock,
            log=log,
            obtain=self.uplink.obtain,
            policy=lambda: self.settings.policies()[Kind.HUB_TLS],
        )

    async def serve(self, stop: Stop) -> None:
        """Work until asked to stop."""
        status = Status(
            self.member,
            self.config.state,
            links=lambda: list(self.links),
            renewals=lambda: {Kind.HUB_TLS.value: self.renewal.next_at},
            more=self._more,
        )
        loops = (
            self.links.watch(),
            self.uplink.keep(),
            self.acknowledging.run(),
            self._renew(),
            self.renewal.follow(),
            status.run(),
            *(self._keep_zone(address) for address in self.config.zone_servers),
        )
        await until_stopped(stop, loops)
        await self.links.close()
        await self.tasks.close()
        status.write()

    async def handle_server(self, channel: Channel, message: Message) -> Message | None:
        """Answer the server."""
        match message:
            case Ping():
                return pong(channel, message)
            case HeadNotice():
                return await self.member.following.notice(channel, message)
            case Settings():
                answer = self.settings.take(channel, message)
                self.tasks.spawn(tell(self._zones(), self.settings.message))
                return answer
            case _:
                return Refused(reason="unknown", text=f"{type(message).__name__} is not for us")

    async def handle_zone(self, channel: Channel, message: Message) -> Message | None:
        """Answer a zone server, or have the server answer it."""
        match message:
            case LedgerGet():
                return answer_ledger_get(self.member.trust, message)
            case Ping():
                return pong(channel, message)
            case NonceGet() | Enrol() | Ack() | Report():
                return await relay(self.uplink.link, channel, message)
            case _:
                return Refused(reason="unknown", text=f"{type(message).__name__} is not for us")

    async def _renew(self) -> None:
        """Renew from the first certificate on: until then `uplink.keep` asks for it."""
        await self.member.until_certified(Kind.HUB_TLS)
        await self.renewal.run()

    async def _keep_zone(self, address: HostPort) -> None:
        """Hold a link to one zone server until cancelled; a new one before the old one goes."""
        backoff, pace, trouble = Backoff(first=0.5, last=30.0), Pace(), Trouble()
        held: Channel | None = None
        while True:
            await self.member.until_certified(Kind.HUB_TLS)
            state = self.member.version(Kind.HUB_TLS)
            try:
                channel = await self._dial_zone(address)
            except UnavailableError as exc:
                if trouble.is_news(exc):
                    log.info("zone.unavailable", remote=str(address), reason=str(exc))
                await self.clock.sleep(backoff.next(exc.retry_after))
                continue
            if channel.link_class is LinkClass.MEMBER:
                backoff.reset()
                trouble.over()
            if held is not None:
                self.tasks.spawn(held.retire(CloseCode.SUPERSEDED))
            held, began = channel, self.clock.monotonic()
            await self._until_stale(channel, state)
            if channel.link_class is not LinkClass.MEMBER:
                # It has read the ledger, or got its certificate: what follows is another link.
                await self.clock.sleep(0.1)
            elif channel.is_closed:
                await self.clock.sleep(pace.after(self.clock.monotonic() - began))

    async def _dial_zone(self, address: HostPort) -> Channel:
        channel = await dial(
            address.host,
            address.port,
            endpoint=self.member.endpoint,
            link_class=None,
            server_side=True,
            verify=self.member.verifier(roles=frozenset({Role.ZONE_SERVER})),
            handler=self.handle_zone,
            kind="hub to zone server",
            expected="a zone server of ours",
        )
        self.links.add(channel)
        if channel.link_class is LinkClass.MEMBER:
            self.tasks.spawn(self._greet(channel))
        return channel

    async def _greet(self, zone: Channel) -> None:
        await tell([zone], self.settings.message)
        await self.member.following.greet(zone)

    async def _until_stale(self, channel: Channel, state: object) -> None:
        await first_of(channel.closed(), self.member.changed_from(Kind.HUB_TLS, state))

    async def _server_link(self, channel: Channel) -> None:
        self.links.add(channel)
        self.acknowledging.poke()

    async def _relay(self, source: Channel | None, notice: HeadNotice) -> None:
        """Pass a counted HEAD outwards."""
        await tell(self._zones(), notice)

    def _zones(self) -> list[Channel]:
        return self.links.find(Role.ZONE_SERVER)

    def _settings_changed(self) -> None:
        self.renewal.poke()

    def _more(self) -> dict[str, Any]:
        return {
            "server": str(self.config.server),
            "zone_servers": [str(address) for address in self.config.zone_servers],
        }
