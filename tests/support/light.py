"""A client without a process: the real member code over real sockets, and nothing listening."""

from datetime import timedelta
from pathlib import Path

from agents.member.keyring import Credential, Keyring
from agents.member.member import Member, MemberState, open_state
from agents.member.requesting import standing_of
from agents.member.uplink import Uplink
from agents.runtime import logs
from agents.runtime.channel import Channel
from agents.runtime.clock import Clock, SystemClock
from agents.runtime.dialer import dial, refuse
from agents.runtime.files import DISK
from agents.runtime.tasks import Tasks
from pki.certificates import Kind
from pki.names import Role
from protocol.access import LinkClass
from protocol.codes import CloseCode
from protocol.messages import HeadNotice
from tests.support.daemons import Site

__all__ = ["LightClient", "shifted"]

log = logs.get_logger()


def shifted(by: timedelta) -> Clock:
    """The clock of a machine that is wrong."""
    right = SystemClock()
    return SystemClock(wall=lambda: (right.now() + by).timestamp())


class LightClient:
    """One client of a site's server."""

    def __init__(self, site: Site, folder: Path, *, clock: Clock | None = None) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._server = site.address(1), site.port
        self.clock = clock or SystemClock()
        self.keyring = Keyring(folder / "keys.db", DISK)
        self.tasks = Tasks(self.clock, log)
        self.member = Member(
            Role.CLIENT,
            Kind.CLIENT_TLS,
            keyring=self.keyring,
            trust=open_state(
                MemberState(folder), bundle=site.bundle, expect=None, clock=self.clock, log=log
            ),
            clock=self.clock,
            log=log,
            tasks=self.tasks,
            relay=_relays_nothing,
        )
        self.uplink = Uplink(
            self.member,
            addresses=lambda: [self._server],
            roles=frozenset({Role.SERVER}),
            handler=refuse,
            kind=Kind.CLIENT_TLS,
        )

    async def dial(self, link_class: LinkClass) -> Channel:
        """One link of a class to the server."""
        host, port = self._server
        return await dial(
            host,
            port,
            endpoint=self.member.endpoint,
            link_class=link_class,
            verify=self.member.verifier(roles=frozenset({Role.SERVER})),
        )

    async def enrol(self) -> Credential:
        """Get a certificate over an enrolment link; returns as soon as the answer is here."""
        channel = await self.dial(LinkClass.ENROLMENT)
        try:
            await self.member.enrol(
                channel, Kind.CLIENT_TLS, standing_of(channel), reason="enrolment"
            )
        finally:
            channel.close(CloseCode.NORMAL)
            self.last = channel
        held = self.keyring.credential(Kind.CLIENT_TLS)
        assert held is not None
        return held

    async def gone(self) -> None:
        """Wait until the last link's connection is no more."""
        await self.last.gone()


async def _relays_nothing(_source: Channel | None, _notice: HeadNotice) -> None:
    """A light client has no neighbours."""
