"""A server: the first start that makes everything, and the daemon that goes on from there.

Start, in this order; a refusal anywhere leaves what was there as it was:

1. the state directory is ours and nobody else's (a second daemon is refused);
2. keys open, or are made at a first start; a ledger without its keys is never given new ones (C4);
3. ledger opens, or GENESIS is made (A1); `reconcile` completes what a crash left;
4. the server's own subordinate keys exist, and a HEAD counts;
5. listeners and the API open; READY is said.
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from agents.member.contexts import MAX_SHOWN
from agents.member.keyring import Keyring
from agents.member.links import Links
from agents.member.member import Member
from agents.member.renewal import Renewal
from agents.member.status import Status
from agents.member.trust import Trust
from agents.responder.enrolment import APPROVED_ROLES, Enrolment, Signing
from agents.responder.neighbourhoods import Policy as LinePolicy
from agents.responder.records import AckRecord
from agents.responder.registry import Registry
from agents.responder.service import Service
from agents.responder.signing import ClientSigning
from agents.runtime import logs
from agents.runtime.channel import Channel
from agents.runtime.clock import Clock, look_again
from agents.runtime.errors import AgentError, StateError, UnavailableError
from agents.runtime.files import DISK, Files, failure
from agents.runtime.lifecycle import Stop
from agents.runtime.listener import Listener
from agents.runtime.lock import lock_state
from agents.runtime.network import Answer
from agents.runtime.statefiles import LEDGER
from agents.runtime.tasks import Tasks, first_of, until_stopped
from agents.runtime.trouble import Trouble
from agents.server.acknowledgements import Acknowledgements
from agents.server.announcing import Announcing
from agents.server.authority import HEAD_INTERVAL, OWN_KINDS, Authority, found
from agents.server.config import Config
from agents.server.coverage import Component
from agents.server.infrastructure import Infrastructure
from agents.server.operations import ServerOperations
from agents.server.settings import ROOT_AGE_WARNING, Settings
from agents.server.signing import ApprovedSigning
from agents.server.standby import Standby
from agents.server.store import Store, approvals, issued
from agents.server.store.acks import AckTable
from agents.server.store.approvals import Approval, State
from agents.server.store.clients import ClientTable
from agents.server.store.issued import IssuedTable
from pki import certificates, rotation
from pki import trust as ledger_trust
from pki.certificates import Facts, Kind
from pki.heads import MAX_DENIED
from pki.keys import KeyId
from pki.names import Role
from protocol.messages import Message, Relay

__all__ = ["Server", "run"]

log = logs.get_logger()

KEYS = "pki.db"
STORE = "server.db"
KEPT_AFTER_EXPIRY = timedelta(days=30)
"""How long an issue stays on record after its end, for whoever looks into what happened."""
BELIEVED_AFTER = timedelta(days=14)
"""Running time after which a clock that has not jumped meanwhile is believed: as long as whoever
follows us believes a HEAD, an administrator has for setting a wrong one right."""
EPOCH = datetime.fromtimestamp(0, UTC)
HEAD_RETRY = 60.0
"""Seconds after a HEAD that could not be kept, until it is signed again."""


async def run(config: Config, *, clock: Clock, stop: Stop) -> None:
    """Run a server until it is asked to stop.

    Raises:
        StateError: the state cannot be used, or a port is taken.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(lock_state(config.state, Role.SERVER.value))
        store = Store.open(config.state / STORE)
        stack.callback(store.close)
        server = Server(config, clock, store)
        await server.prepare()
        await server.serve(stop, stack)


class Server:
    """The rooms of a server, and how they hang together.

    Args:
        files: where keys and ledger lie.
    """

    def __init__(self, config: Config, clock: Clock, store: Store, *, files: Files = DISK) -> None:
        self.config = config
        self.clock = clock
        self.store = store
        self._files = files
        self.fqdn = _fqdn(config)
        self.tasks = Tasks(clock, log)
        self.settings = Settings(store)
        standby_key = config.standby / "standby.key"
        _private_folder(config.standby)
        self.standby = Standby(config.state / "standby.db", standby_key, files)
        self.trust, self.keyring = self._open()
        self.member = Member(
            Role.SERVER,
            Kind.SERVER_TLS,
            keyring=self.keyring,
            trust=self.trust,
            clock=clock,
            log=log,
            tasks=self.tasks,
            relay=self._relay,
        )
        self.links = Links(self.trust)
        self.issued = IssuedTable(store)
        self.authority = Authority(
            self.keyring,
            self.standby,
            self.trust,
            slot=self.trust.slots[0],
            fqdn=self.fqdn,
            clock=clock,
            log=log,
            record=self.issued,
            policies=self.settings.policies,
        )
        self.acknowledgements = Acknowledgements(AckTable(store))
        self.registry = Registry(
            ClientTable(store),
            responder=self.member.id,
            clock=clock,
            log=log,
            policy=LinePolicy(),
            longest=config.registration_seconds,
            settings=self.settings.for_clients,
            heard=lambda zone: self.infrastructure.counts(zone),
        )
        self.enrolment = Enrolment(
            self._signing(),
            deployment=self.trust.deployment,
            record=self.issued,
            clock=clock,
            log=log,
            most=config.admission.requests,
        )
        self.service = Service(
            self.member,
            enrolment=self.enrolment,
            registry=self.registry,
            shown=self._shown,
            acknowledged=self._acknowledged,
            head=self.trust.latest_head,
            spread=lambda: self.announcing.spread,
        )
        self.infrastructure = Infrastructure(
            self.member,
            enrolment=self.enrolment,
            registry=self.registry,
            acknowledged=self._acknowledged,
            approved=lambda: self._zone_ids,
        )
        self.announcing = Announcing(
            self.links, self.settings, self.registry, self.enrolment, self.tasks.spawn
        )
        self.renewals = {kind: self._renewal(kind) for kind in OWN_KINDS}
        self.listener: Listener | None = None
        self._tls_keys: deque[KeyId] = deque(maxlen=MAX_SHOWN)
        self._note_tls_key()
        self._approved: list[Approval] = []
        self._zone_ids: frozenset[bytes] = frozenset()
        self._trouble = Trouble()
        self._headless = asyncio.Event()
        """Set when our ledger has an entry that no HEAD names, for want of a disk."""
        self._warned_at = datetime.min.replace(tzinfo=UTC)
        self._forgot_at = EPOCH
        self._began = clock.now(), clock.elapsed()

    async def prepare(self) -> None:
        """Everything that must be true before anybody is served."""
        logs.identify(self.member.id.hex())
        self.store.gather(self.member.endpoint.turns.lull)
        await self.settings.load()
        await self.acknowledgements.load()
        await self.registry.load()
        await self._load_approved()
        self.authority.reconcile()
        for kind in OWN_KINDS:
            if not self.member.certified(kind) and self.authority.can_sign:
                await self._certify_or_say(kind)
        if self.authority.can_sign and self.clock.now() >= self.authority.head_due():
            self.authority.sign_head()

    async def _certify_or_say(self, kind: Kind) -> None:
        """A root that has not begun (a wrong clock, now or then) keeps no administrator out.

        He sees what is wrong, and can make a new root; `renewals` try again.
        """
        try:
            await self.certify(kind, "first start")
        except UnavailableError as exc:
            log.error("key.renewal_failed", kind=kind.value, reason=str(exc), hint=exc.hint)

    async def serve(self, stop: Stop, stack: AsyncExitStack) -> None:
        """Open the doors, work, and close them when asked."""
        from agents.server.api.serve import listening

        listen = self.config.listen
        self.listener = await Listener.start(
            listen.host,
            listen.port,
            endpoint=self.member.endpoint,
            handler=self.handle,
            verify=self.member.verifier(
                roles=frozenset({Role.CLIENT, Role.HUB}), client_ca_of=lambda: self.member.id
            ),
            admission=self.config.admission,
            on_channel=self._opened,
            expected="a client of ours, or a hub",
        )
        stack.push_async_callback(self.tasks.close)
        stack.push_async_callback(self.listener.stop)
        status = Status(
            self.member,
            self.config.state,
            links=lambda: list(self.links),
            renewals=lambda: {k.value: r.next_at for k, r in self.renewals.items()},
            more=lambda: {"listen": f"{listen.host}:{self.listener.port if self.listener else 0}"},
        )
        operations = ServerOperations(self)
        # Ready means that administrators are answered too: whoever waits for it asks next.
        self.settings.changed.append(self._settings_changed)
        async with listening(operations, self.config.socket):
            status.write()  # for a health check at the moment of "ready"
            loops = (
                self.links.watch(),
                self.links.follow(self.member),
                self._heads(),
                status.run(),
                *(renewal.run() for renewal in self.renewals.values()),
            )
            await until_stopped(stop, loops)
        await self.listener.stop()
        status.write()  # its last word: there are no links any more

    def handle(self, channel: Channel, message: Message) -> Answer | Awaitable[Answer]:
        """Answer a client or a hub."""
        if isinstance(message, Relay):
            return self.infrastructure.relay(channel, message)
        return self.service.handle(channel, message)

    async def certify(self, kind: Kind, reason: str) -> None:
        """Renew one of our own keys, and show it from now on."""
        try:
            await self.authority.certify(kind, reason)
        except StateError as exc:
            raise UnavailableError(exc.text, hint=exc.hint) from exc
        self._keys_changed()

    def _open(self) -> tuple[Trust, Keyring]:
        """The state of the last run, or a new deployment (A1)."""
        state, files = self.config.state, self._files
        trust = Trust.load(state / LEDGER, files=files, clock=self.clock, log=log)
        if trust is not None and not files.exists(state / KEYS):
            raise StateError(
                f"{state / KEYS} is missing, and there is a ledger that it belongs to",
                hint="restore it from a backup; no new root is made over an old one",
            )
        keyring = Keyring(state / KEYS, files)
        if trust is None:
            founding = found(keyring, self.standby, fqdn=self.fqdn, now=self.clock.now())
            trust = Trust(
                ledger_trust.from_chain(founding),
                path=state / LEDGER,
                files=files,
                clock=self.clock,
                log=log,
            )
            trust.persist()
            log.info(
                "deployment.founded",
                deployment=trust.deployment.hex(),
                deployment_fingerprint=trust.state.fingerprint,
                fingerprint=founding.current_root.key_id,
                name=founding.current_root.name,
            )
        return trust, keyring

    def _signing(self) -> dict[Kind, Signing]:
        approved = ApprovedSigning(
            self.authority, self.store, self.clock, log, retry_after=self.config.pending_seconds
        )
        clients = ClientSigning(
            self.keyring,
            self.clock,
            policies=self.settings.policies,
            renew_ca=partial(self.certify, Kind.CLIENT_CA, "too short for the client validity"),
        )
        return {
            Kind.CLIENT_TLS: clients,
            **dict.fromkeys(APPROVED_ROLES, approved),
        }

    def _renewal(self, kind: Kind) -> Renewal:
        return Renewal(
            kind,
            keyring=self.keyring,
            trust=self.trust,
            clock=self.clock,
            log=log,
            obtain=self.certify,
            policy=lambda: self.settings.policies()[kind],
        )

    def _shown(self) -> Sequence[KeyId]:
        """The newest first: nearly every link was shown that one."""
        return tuple(reversed(self._tls_keys))

    def _opened(self, channel: Channel) -> None:
        self.links.accept(channel)
        if channel.peer is not None and channel.peer.name.role is Role.HUB:
            self.announcing.greet(channel, self.trust.latest_head())

    async def _acknowledged(self, record: AckRecord) -> None:
        await self.acknowledgements.take(record, self.trust)

    async def _relay(self, source: Channel | None, notice: object) -> None:
        """Heads are ours to announce; what others announce of our own slot is not passed on."""

    async def _heads(self) -> None:
        """Sign a HEAD once an hour, and announce it."""
        while True:
            await first_of(look_again(self.clock, self.authority.head_due()), self._headless.wait())
            self._headless.clear()
            if not self.authority.can_sign:
                await self.clock.wait_until(self.clock.now() + HEAD_INTERVAL)
                continue
            try:
                with self.clock.hold():
                    head = self.authority.sign_head(await self._denied())
                    self.announcing.head(head)
            except UnavailableError as exc:
                # Nobody judges a head by its age, so none is hurt while a disk is freed.
                if self._trouble.is_news(exc):
                    log.error("head.unsigned", reason=str(exc), hint=exc.hint)
                await self.clock.sleep(HEAD_RETRY)
                continue
            self._trouble.over()
            self._warn_of_age()
            await self._forget_expired()

    async def _forget_expired(self) -> None:
        """Once a day: issues that nobody can use any more need not be on record for ever."""
        past = self._past()
        if past - self._forgot_at >= timedelta(days=1):
            self._forgot_at = past
            with suppress(AgentError):  # tomorrow is soon enough
                await self.store.write(partial(issued.forget, before=past - KEPT_AFTER_EXPIRY))

    def _past(self) -> datetime:
        """The date of which all before it is over, by more than the word of a wall clock.

        One that is years ahead, for an hour, must not lift a denial nor empty the record.
        """
        began, at = self._began
        running = timedelta(seconds=self.clock.elapsed() - at)
        return min(self.clock.now(), began + running) if running >= BELIEVED_AFTER else EPOCH

    def _warn_of_age(self) -> None:
        """Once a day while the newest root is older than it should be (B16)."""
        now = self.clock.now()
        created = certificates.created(self.authority.chain.current_root.der)
        limit = timedelta(days=self.settings.days(ROOT_AGE_WARNING))
        warning = rotation.root_age_warning(created, now, limit)
        if warning is not None and now - self._warned_at >= timedelta(days=1):
            self._warned_at = now
            log.warning("root.old", reason=warning)

    async def new_root(self, audit: bytes) -> Facts:
        """Succeed the current root, and tell everybody (B1, B7)."""
        with self.clock.hold():
            try:
                root = await self.authority.new_root(audit)
            except StateError:  # it may have happened, though not all that follows from it
                self._keys_changed()
                self._tell(self.announcing.rotated)
                raise
            self._keys_changed()
            self._tell(self.announcing.rotated)
        return root

    def revoke(self, roots: Sequence[KeyId], audit: bytes) -> None:
        """Revoke roots, and tell everybody; links under them are closed (B3, B4)."""
        with self.clock.hold():
            try:
                self.authority.revoke(roots, audit)
            except StateError:  # as above
                self._tell(self.announcing.revoked)
                raise
            self._tell(self.announcing.revoked)

    def _tell(self, announce: Callable[[bytes], None]) -> None:
        """Announce our newest HEAD, or have one signed as soon as it can be kept."""
        head = self.trust.latest_head()
        if head is None:
            self._headless.set()
        else:
            announce(head)

    async def approvals_changed(self) -> None:
        """A decision was made: keys of whoever is no longer approved are denied from now on."""
        await self._load_approved()
        denied = await self._denied()
        if self.authority.can_sign and frozenset(denied) != self.trust.denied:
            self.announcing.head(self.authority.sign_head(denied))

    def approved_components(self) -> list[Component]:
        """Hubs and zone servers that are approved, and whether each is there."""
        return [
            Component(
                one.role,
                id := one.component,
                one.host,
                self._is_present(one.role, id),
                one.last_seen,
            )
            for one in self._approved
        ]

    def _is_present(self, role: str, id: bytes) -> bool:
        if role == Role.HUB:
            return bool(self.links.of(id))
        return self.infrastructure.zone_present(id)

    async def _load_approved(self) -> None:
        approved = await self.store.read(partial(approvals.every, state=State.APPROVED))
        self._approved = approved
        self._zone_ids = frozenset(
            one.component for one in approved if one.role == Role.ZONE_SERVER
        )

    async def _denied(self) -> list[KeyId]:
        """Keys of components that are no longer approved, until they would have expired.

        What is under a revoked root is void with it. If a head has no room for all, client
        CAs are denied first, for all that is below them, then what is good for longest.
        """
        past, trusted = self._past(), self.trust.trusted
        revoked = await self.store.read(partial(approvals.every, state=State.REVOKED))
        gone = [one.component for one in revoked]
        records = [
            record
            for record in (await self.issued.unexpired(past, holders=gone) if gone else ())
            if record.root in trusted
        ]
        records.sort(key=lambda record: record.not_after, reverse=True)
        records.sort(key=lambda record: record.kind != Kind.CLIENT_CA)
        denied = list(dict.fromkeys(KeyId(record.key_id) for record in records))
        if len(denied) > MAX_DENIED:
            log.error("denied.crowded", reason=f"{len(denied)} keys, a head has {MAX_DENIED}")
        return denied[:MAX_DENIED]

    def _note_tls_key(self) -> None:
        held = self.keyring.credential(Kind.SERVER_TLS)
        if held is not None and held.leaf.key_id not in self._tls_keys:
            self._tls_keys.append(held.leaf.key_id)

    def _keys_changed(self) -> None:
        """Our own keys were renewed: show the new ones, and plan their next renewals."""
        self._note_tls_key()
        self.member.credential_changed()
        for renewal in self.renewals.values():
            renewal.poke()

    def _settings_changed(self) -> None:
        self.announcing.settings()
        for renewal in self.renewals.values():
            renewal.poke()


def _fqdn(config: Config) -> str:
    """The name in the roots.

    Raises:
        StateError: there is no room for it in a certificate.
    """
    name = config.fqdn or socket.getfqdn()
    if not 0 < len(name) <= certificates.MAX_FQDN:
        raise StateError(
            f"the name of this server, {name!r:.80}, has {len(name)} characters, and a root has"
            f" room for {certificates.MAX_FQDN}",
            hint="set fqdn in its configuration",
        )
    return name


def _private_folder(folder: Path) -> None:
    """Make a folder for a key file, or refuse one that others may enter.

    Raises:
        StateError: it cannot be made, or is not ours alone.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as exc:
        raise failure("use standby folder", folder, exc) from exc
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise StateError(
            f"{folder} can be entered by others",
            hint=f"chown it to the user of the service, and chmod 700 {folder}",
        )
