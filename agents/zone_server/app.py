"""A zone server: answers outside clients with a client CA of its own, and waits for its hub.

It opens no connection at all. On its hub port the hub dials in and is then the TLS server; the
zone server is the TLS client and picks what the link is for: discovery if it could not verify
the hub, enrolment while it has no certificate, member otherwise. Everything it asks of a server
goes over that link.

It keeps working without its hub: clients enrol and renew by the client CA that it has; of a new
root they hear when the hub is back, and then only once its CA is under that root (*Catching
up* 5), so that none of them has to renew twice.
"""

import asyncio
from functools import partial

from agents.member.acknowledging import Acknowledging
from agents.member.answering import pong
from agents.member.approach import Approaches
from agents.member.bundle_settings import bundle_settings, take_log_level
from agents.member.following import answer_ledger_get
from agents.member.keyring import Keyring
from agents.member.links import Links
from agents.member.member import Member
from agents.member.renewal import Renewal
from agents.member.requesting import RELAYED
from agents.member.shared_settings import SharedSettings
from agents.member.starting import opened
from agents.member.status import Status
from agents.member.telling import tell
from agents.member.trust import Trust
from agents.responder.enrolment import Enrolment
from agents.responder.neighbourhoods import Policy as LinePolicy
from agents.responder.records import AckRecord
from agents.responder.registry import Registry
from agents.responder.service import Service
from agents.responder.signing import ClientSigning
from agents.runtime import logs
from agents.runtime.backoff import MAX_RETRY_AFTER
from agents.runtime.channel import Channel
from agents.runtime.clock import Clock
from agents.runtime.errors import UnavailableError
from agents.runtime.files import DISK
from agents.runtime.lifecycle import Stop
from agents.runtime.listener import Listener
from agents.runtime.network import Address, answered
from agents.runtime.tasks import Tasks, until_stopped
from agents.zone_server.config import Config
from agents.zone_server.records import ZoneRecords
from agents.zone_server.reporting import Reporting
from pki import rotation
from pki.certificates import Kind
from pki.names import Role
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.link import Closed
from protocol.messages import HeadNotice, LedgerGet, Message, Ping, Refused, Settings

__all__ = ["ZoneServer", "run"]

log = logs.get_logger()

KINDS = (Kind.ZONE_SERVER_TLS, Kind.CLIENT_CA)


async def run(config: Config, *, clock: Clock, stop: Stop) -> None:
    """Run a zone server until it is asked to stop.

    Raises:
        StateError: the state or the bundle cannot be used, or a port is taken; or nobody knows
            any more what of its records is on the disk, until they are read again.
    """
    with opened(
        config.state,
        Role.ZONE_SERVER,
        bundle=config.bundle,
        expect=config.expect_fingerprint,
        clock=clock,
        log=log,
    ) as (keyring, trust):
        told = bundle_settings(config.state, config.bundle, trust)
        take_log_level(config.log_level, told)
        records = await ZoneRecords.open(config.state / "records.log", clock)
        try:
            await ZoneServer(config, clock, keyring, trust, records).serve(stop)
        finally:
            await records.close()


class ZoneServer:
    """The rooms of a zone server, and how they hang together."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        keyring: Keyring,
        trust: Trust,
        records: ZoneRecords,
    ) -> None:
        self.config = config
        self.clock = clock
        self.keyring = keyring
        self.trust = trust
        self.records = records
        self.tasks = Tasks(clock, log)
        self.member = Member(
            Role.ZONE_SERVER,
            Kind.ZONE_SERVER_TLS,
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
        self.registry = Registry(
            records,
            responder=self.member.id,
            clock=clock,
            log=log,
            policy=LinePolicy(),
            longest=config.registration_seconds,
            settings=self._client_settings,
        )
        signing = ClientSigning(
            keyring,
            clock,
            policies=self.settings.policies,
            renew_ca=lambda: self._obtain(Kind.CLIENT_CA, "too short for the client validity"),
        )
        self.enrolment = Enrolment(
            {Kind.CLIENT_TLS: signing},
            deployment=trust.deployment,
            record=records,
            clock=clock,
            log=log,
            most=config.admission.requests,
        )
        self.service = Service(
            self.member,
            enrolment=self.enrolment,
            registry=self.registry,
            shown=lambda: self.member.contexts.shown_keys,
            acknowledged=self._acknowledged,
            head=self._head_for_clients,
            spread=lambda: self.member.following.spread,
        )
        self.reporting = Reporting(
            self.registry,
            hub=self._hub,
            signed=lambda: records.signed,
            clock=clock,
            log=log,
        )
        self.acknowledging = Acknowledging(
            self.member.acknowledgement, trust, link=self._hub, clock=clock, log=log
        )
        self.renewals = {kind: self._renewal(kind) for kind in KINDS}
        self._approaches = Approaches()
        self._asked: dict[Address, LinkClass] = {}
        self._withheld: HeadNotice | None = None

    async def serve(self, stop: Stop) -> None:
        """Work until asked to stop."""
        await self.registry.load()
        self.reporting.load(await self.records.load_acks())
        clients = await self._listen_for_clients()
        hubs = await self._listen_for_hubs()
        status = Status(
            self.member,
            self.config.state,
            links=lambda: list(self.links),
            renewals=lambda: {kind.value: r.next_at for kind, r in self.renewals.items()},
            more=lambda: {
                "listen": f"{clients.host}:{clients.port}",
                "hub_listen": f"{hubs.host}:{hubs.port}",
                "clients": len(self.registry.rows()),
                "signed": self.records.signed,
            },
        )
        loops = (
            self.links.watch(),
            self.links.follow(self.member),
            self.acknowledging.run(),
            self.reporting.run(),
            # After a failed fsync only a new start knows what is on the disk (`journal`).
            self.records.failed(),
            status.run(),
            *(renewal.follow() for renewal in self.renewals.values()),
            *(self._renew(renewal) for renewal in self.renewals.values()),
        )
        try:
            await until_stopped(stop, loops)
        finally:
            await hubs.stop()
            await clients.stop()
        await self.links.close()
        await self.tasks.close()
        status.write()

    async def handle_client(self, channel: Channel, message: Message) -> Message | None:
        """Answer a client."""
        answer = await answered(self.service.handle(channel, message))
        if self.registry.changed:
            self.reporting.poke()
        return answer

    async def handle_hub(self, channel: Channel, message: Message) -> Message | None:
        """Answer a hub."""
        match message:
            case Ping():
                return pong(channel, message)
            case LedgerGet():
                return answer_ledger_get(self.trust, message)
            case HeadNotice():
                return await self.member.following.notice(channel, message)
            case Settings():
                return self.settings.take(channel, message)
            case _:
                return Refused(reason="unknown", text=f"{type(message).__name__} is not for us")

    async def _listen_for_clients(self) -> Listener:
        listen = self.config.listen
        return await Listener.start(
            listen.host,
            listen.port,
            endpoint=self.member.endpoint,
            handler=self.handle_client,
            verify=self.member.verifier(
                roles=frozenset({Role.CLIENT}), client_ca_of=lambda: self.member.id
            ),
            admission=self.config.admission,
            on_channel=self.links.accept,
            kind="zone server port",
            expected="a client of ours",
        )

    async def _listen_for_hubs(self) -> Listener:
        listen = self.config.hub_listen
        return await Listener.start(
            listen.host,
            listen.port,
            endpoint=self.member.endpoint,
            handler=self.handle_hub,
            verify=self.member.verifier(roles=frozenset({Role.HUB})),
            admission=self.config.admission,
            server_side=False,
            classify=self._classify,
            on_channel=self._hub_opened,
            on_refused=self._hub_refused,
            kind="zone server to hub",
            expected="a hub of ours",
        )

    def _classify(self, remote: Address) -> LinkClass:
        """What this connection of a hub is to be for."""
        certified = self.member.certified(Kind.ZONE_SERVER_TLS)
        chosen = self._approaches.of(remote[0]).choose(certified=certified)
        self._asked[remote] = chosen
        return chosen

    def _hub_refused(self, remote: Address, closed: Closed) -> None:
        asked = self._asked.pop(remote, LinkClass.MEMBER)
        self._approaches.of(remote[0]).failed(asked, closed.code, by_peer=closed.by_peer)

    def _hub_opened(self, channel: Channel) -> None:
        self._asked.pop(channel.remote, None)
        self.links.accept(channel)
        channel.on_closed.add_done_callback(partial(self._hub_closed, channel))
        match channel.link_class:
            case LinkClass.DISCOVERY:
                self.tasks.spawn(self._discover(channel))
            case LinkClass.ENROLMENT:
                self.tasks.spawn(self._enrol(channel), hold=False)
            case LinkClass.MEMBER:
                self._joined()

    def _hub_closed(self, channel: Channel, closed: asyncio.Future[Closed]) -> None:
        """A hub that ends a member link because of our certificate is answered by a new one."""
        result = closed.result()
        if channel.link_class is LinkClass.MEMBER and result.by_peer:
            approach = self._approaches.of(channel.remote[0])
            approach.failed(LinkClass.MEMBER, result.code, by_peer=True)

    async def _discover(self, channel: Channel) -> None:
        try:
            await self.member.following.catch_up(channel)
        finally:
            self._approaches.of(channel.remote[0]).discovered()
            channel.close(CloseCode.NORMAL)

    async def _enrol(self, channel: Channel) -> None:
        """Ask on this link until an administrator has decided, then have a member link made."""
        said = ""
        while channel.is_open:
            try:
                await self.member.enrol(channel, Kind.ZONE_SERVER_TLS, RELAYED, reason="enrolment")
            except UnavailableError as exc:
                if str(exc) != said:
                    said = str(exc)
                    log.info("enrolment.waiting", reason=said, hint=exc.hint)
                await self.clock.sleep(_pause(exc.retry_after))
                continue
            self._approaches.enrolled()
            channel.close(CloseCode.NORMAL)

    def _joined(self) -> None:
        for renewal in self.renewals.values():
            renewal.poke()
        self.acknowledging.poke()
        self.reporting.everything()

    def _hub(self) -> Channel | None:
        """A member link to a hub: the newest."""
        hubs = self.links.find(Role.HUB)
        return hubs[-1] if hubs else None

    async def _renew(self, renewal: Renewal) -> None:
        """Renew from the first TLS certificate on: until then the hub's link enrols."""
        await self.member.until_certified(Kind.ZONE_SERVER_TLS)
        await renewal.run()

    async def _obtain(self, kind: Kind, reason: str) -> None:
        hub = self._hub()
        if hub is None:
            raise UnavailableError("no hub is connected")
        await self.member.enrol(hub, kind, RELAYED, reason=reason)
        self.acknowledging.poke()
        if kind is Kind.CLIENT_CA and self._withheld is not None:
            notice, self._withheld = self._withheld, None
            await self._relay(None, notice)

    def _renewal(self, kind: Kind) -> Renewal:
        return Renewal(
            kind,
            keyring=self.keyring,
            trust=self.trust,
            clock=self.clock,
            log=log,
            obtain=self._obtain,
            policy=lambda: self.settings.policies()[kind],
        )

    async def _acknowledged(self, record: AckRecord) -> None:
        """Keep an acknowledgement of an entry that we have; whoever invents some fills nothing.

        A client may be ahead of us, so what we do not know yet is to be said again.
        """
        if not self.trust.has(record.slot, record.n, record.entry_id):
            raise UnavailableError("no entry that we know is acknowledged")
        await self.records.save_ack(record)
        self.reporting.acknowledged(record)

    async def _relay(self, source: Channel | None, notice: HeadNotice) -> None:
        """Tell our clients of a HEAD, once our client CA is under its root."""
        if self._head_for_clients() is None:
            self._withheld = notice
            return
        await tell(self.links.find(Role.CLIENT), notice)

    def _head_for_clients(self) -> bytes | None:
        ca = self.keyring.credential(Kind.CLIENT_CA)
        if ca is None or ca.root != self.trust.newest_root:
            return None
        return self.trust.latest_head()

    def _client_settings(self) -> dict[str, str]:
        return rotation.for_clients(self.settings.policies())

    def _settings_changed(self) -> None:
        for renewal in self.renewals.values():
            renewal.poke()


def _pause(retry_after: float | None) -> float:
    """Seconds until a hub is asked again; it is believed within reason."""
    return 2.0 if retry_after is None else min(max(retry_after, 0.5), MAX_RETRY_AFTER)
