"""A member of the deployment: what a server, a hub, a zone server and a client have in common.

`Member` is composition: the keyring, the trust, the contexts made of both, and the habits that
need all three (verifying a peer, following the ledger, asking for certificates, acknowledging).
What a role adds is in that role's own folder.

First start without a ledger needs the init bundle (D4); later starts do not, and take a newer
bundle as one more source (B6). A bundle that is refused then is a line in the log: what is known
is known from the ledger, and a file that somebody has spoilt must not keep a fleet from starting.
"""

import asyncio
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from agents.member.acknowledgement import Acknowledgement
from agents.member.contexts import Contexts
from agents.member.fingerprints import same_deployment
from agents.member.following import Following, Relay
from agents.member.keyring import Credential, Keyring
from agents.member.requesting import Standing, request_certificate
from agents.member.trust import Trust
from agents.runtime.channel import Channel
from agents.runtime.clock import Clock
from agents.runtime.errors import StateError
from agents.runtime.files import DISK, Files
from agents.runtime.logs import Logger
from agents.runtime.network import Endpoint
from agents.runtime.statefiles import LEDGER
from agents.runtime.tasks import Tasks, first_of
from pki import bundle as bundles
from pki import certificates
from pki import trust as ledger_trust
from pki.certificates import Kind
from pki.errors import PKIError
from pki.names import Name, Role
from pki.peers import Expectation, Peer

__all__ = ["Member", "MemberState", "open_bundle_file", "open_state"]

MAX_BUNDLE = 40 << 20
LOOK_AGAIN = 60.0
"""Seconds between two looks at a certificate that is not valid yet."""


@dataclass(frozen=True, slots=True)
class MemberState:
    """Where a member's state lies, and through which ports."""

    folder: Path
    files: Files = DISK


def open_bundle_file(path: Path, *, files: Files, expect: str | None) -> bundles.Bundle:
    """Read and verify an init bundle (D4, D5).

    Raises:
        StateError: it is missing, damaged, or of another deployment than expected.
    """
    hint = "get one from the server's administrator: anchorline bundle export FILE"
    if not files.exists(path):
        raise StateError(f"no init bundle at {path}", hint=hint)
    try:
        bundle = bundles.open_bundle(files.read_file(path, max_bytes=MAX_BUNDLE))
    except PKIError as exc:
        raise StateError(f"init bundle {path} is refused: {exc}", hint=hint) from exc
    if expect is not None and not same_deployment(expect, bundle.fingerprint):
        raise StateError(
            f"init bundle {path} is of deployment {bundle.fingerprint}, expected {expect}",
            hint="compare with the fingerprint that `anchorline bundle export` printed",
        )
    return bundle


def open_state(
    state: MemberState, *, bundle: Path | None, expect: str | None, clock: Clock, log: Logger
) -> Trust:
    """The trust of an earlier run, or of the bundle at a first start.

    Raises:
        StateError: there is neither, or what there is cannot be used. A bundle beside a ledger
            that is good is not needed, and raises nothing.
    """
    path = state.folder / LEDGER
    trust = Trust.load(path, files=state.files, clock=clock, log=log)
    if trust is None:
        if bundle is None:
            raise StateError(
                "no ledger yet and no init bundle configured",
                hint="set `bundle` to the file that `anchorline bundle export FILE` made",
            )
        opened = open_bundle_file(bundle, files=state.files, expect=expect)
        trust = Trust(
            ledger_trust.from_bundle(opened), path=path, files=state.files, clock=clock, log=log
        )
        trust.persist()
        log.info(
            "bundle.imported",
            source=str(bundle),
            deployment=opened.deployment.hex(),
            deployment_fingerprint=opened.fingerprint,
        )
    elif bundle is not None and state.files.exists(bundle):
        try:
            _hear(trust, bundle, files=state.files, expect=expect)
        except StateError as exc:
            log.error("bundle.refused", source=str(bundle), reason=str(exc), hint=exc.hint)
    return trust


def _hear(trust: Trust, bundle: Path, *, files: Files, expect: str | None) -> None:
    """Take a bundle as one more source."""
    opened = open_bundle_file(bundle, files=files, expect=expect)
    if opened.deployment != trust.deployment:
        raise StateError(
            f"init bundle {bundle} is of deployment {opened.fingerprint}, the state is not",
            hint="remove the bundle, or start with a state directory of its own",
        )
    trust.bundle(opened, source=str(bundle))


@lru_cache(maxsize=64)
def _expectation(
    roles: frozenset[Role], deployment: bytes, id: bytes | None, client_ca_of: bytes | None
) -> Expectation:
    """Return the same value for the same link of every peer."""
    return Expectation(roles=roles, deployment=deployment, id=id, client_ca_of=client_ca_of)


class Member:
    """One component at work.

    Args:
        kind: the certificate that this member shows on its links.
        relay: passes a counted HEAD on to the other links.
    """

    def __init__(
        self,
        role: Role,
        kind: Kind,
        *,
        keyring: Keyring,
        trust: Trust,
        clock: Clock,
        log: Logger,
        tasks: Tasks,
        relay: Relay,
    ) -> None:
        self.role = role
        self.kind = kind
        self.keyring = keyring
        self.trust = trust
        self.clock = clock
        self.log = log
        self.tasks = tasks
        self.spawn = tasks.spawn
        self.contexts = Contexts(trust, self.shown, lambda: keyring.credential(Kind.CLIENT_CA))
        self.following = Following(
            trust,
            clock=clock,
            spawn=tasks.spawn,
            log=log,
            relay=relay,
            longest_spread=self._longest_spread,
        )
        self.acknowledgement = Acknowledgement(keyring, trust)
        self.endpoint = Endpoint(role=role.value, clock=clock, log=log, contexts=self.contexts)
        self._credentials_changed = asyncio.Event()

    @property
    def id(self) -> bytes:
        """Our component id."""
        return self.keyring.id

    def name(self, kind: Kind) -> Name:
        """The name that a certificate of ours of this kind carries."""
        return certificates.name_of(self.trust.deployment, kind, self.id)

    def shown(self) -> Credential | None:
        """The credential that is shown on links, if it would be taken."""
        return self._good(self.kind)

    def certified(self, kind: Kind) -> bool:
        """Whether we hold a certificate of this kind, in date, under a root that is trusted."""
        return self._good(kind) is not None

    def _good(self, kind: Kind) -> Credential | None:
        held = self.keyring.credential(kind)
        if held is None:
            return None
        leaf = held.leaf
        in_date = leaf.not_before <= self.clock.now() < leaf.not_after
        return held if in_date and held.root in self.trust.trusted else None

    async def until_certified(self, kind: Kind) -> None:
        """Wait for the first certificate of a kind, which comes with the first member link.

        One that is held and not valid yet becomes so without any change of ours, when a clock
        that was behind is set right: so it is looked at again now and then.
        """
        while not self.certified(kind):
            changed = self.changed_from(kind, self.version(kind))
            await first_of(changed, self.clock.sleep(LOOK_AGAIN))

    def verifier(
        self,
        *,
        roles: frozenset[Role],
        id: bytes | None = None,
        client_ca_of: Callable[[], bytes | None] = lambda: None,
    ) -> Callable[[tuple[bytes, ...]], Peer]:
        """What a link asks of its peer: one of these roles, of this deployment."""
        return self.trust.verifier(
            lambda: _expectation(roles, self.trust.deployment, id, client_ca_of())
        )

    async def enrol(self, channel: Channel, kind: Kind, standing: Standing, *, reason: str) -> None:
        """Get a certificate of this kind over this link, and put it into use.

        Raises:
            UnavailableError: not now; see `requesting`.
        """
        credential = await request_certificate(
            channel,
            kind,
            keyring=self.keyring,
            trust=self.trust,
            name=self.name(kind),
            now=self.clock.now(),
            standing=standing,
            host=platform.node(),
        )
        leaf = credential.leaf
        self.log.info(
            "key.activated",
            kind=kind.value,
            fingerprint=leaf.fingerprint,
            root=credential.root.hex(),
            not_after=leaf.not_after,
            reason=reason,
        )
        self.credential_changed()

    def credential_changed(self) -> None:
        """Wake whoever shows a credential of ours."""
        self._credentials_changed.set()
        self._credentials_changed = asyncio.Event()

    def version(self, kind: Kind) -> tuple[int, bytes | None]:
        """What a link of ours was made with: state of trust, certificate shown."""
        held = self.keyring.credential(kind)
        return self.trust.revision, None if held is None else held.chain[0]

    async def changed_from(self, kind: Kind, version: object) -> None:
        """Wait until links that were made with `version` are to be made again."""
        while self.version(kind) == version:
            await first_of(
                self.trust.changed(self.trust.revision), self._credentials_changed.wait()
            )

    def _longest_spread(self) -> float:
        """A quarter of the shortest window that we hold a certificate with (B13)."""
        windows = [held.window.total_seconds() for held in self.keyring.credentials]
        return min(windows, default=0.0) / 4

    async def acknowledge(self, channel: Channel, responder: bytes) -> None:
        """Tell this responder how far we have followed, if it has not heard."""
        if self.acknowledgement.due(responder):
            await self.acknowledgement.send(channel, responder)
