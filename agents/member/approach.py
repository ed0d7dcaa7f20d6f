"""Which class of link to try next: discovery, enrolment or member.

    what is true                                             next
    a strict handshake failed since we last looked for news  discovery
    no certificate, or ours has expired or was refused       enrolment
    otherwise                                                member

Refused by the peer means both: news first (it may know roots that we do not), then a new
certificate. A peer that says *clock* or *retry after* changes nothing: that is no question of
keys. One discovery answers one suspicion, whether it brought news or not, so a peer that is
merely wrong is not asked in a loop; back-off is the dialer's.

Where peers come to us, each has an approach of its own, by the host it comes from: a stranger
who shows us a bad chain changes what is tried with him, and with nobody else.
"""

from collections import OrderedDict

from protocol.access import LinkClass
from protocol.codes import CloseCode

__all__ = ["MAX_HOSTS", "Approach", "Approaches"]

MAX_HOSTS = 64
"""Hosts that are told apart; of more, the one that was not seen for longest is forgotten."""

REFUSALS = frozenset(
    {CloseCode.UNTRUSTED, CloseCode.REVOKED, CloseCode.EXPIRED, CloseCode.WRONG_ROLE}
)


class Approach:
    """The choice, from what was observed."""

    def __init__(self) -> None:
        self._suspicious = False
        self._refused = False

    def choose(self, *, certified: bool) -> LinkClass:
        """The class to try now.

        Args:
            certified: we hold a certificate that is in date, under a root that we trust.
        """
        if self._suspicious:
            return LinkClass.DISCOVERY
        if self._refused or not certified:
            return LinkClass.ENROLMENT
        return LinkClass.MEMBER

    def failed(self, tried: LinkClass, code: CloseCode | None, *, by_peer: bool) -> None:
        """A link of this class could not be made; `code` says why, None for unreachable."""
        if tried is LinkClass.DISCOVERY:
            self._suspicious = False
        elif code in REFUSALS:
            self._suspicious = True
            self._refused |= by_peer and tried is LinkClass.MEMBER

    def discovered(self) -> None:
        """Every slot was caught up with over a discovery link."""
        self._suspicious = False

    def enrolled(self) -> None:
        """A new certificate is in use."""
        self._refused = False


class Approaches:
    """An approach for each host that comes to us, bounded."""

    def __init__(self) -> None:
        self._hosts: OrderedDict[str, Approach] = OrderedDict()

    def of(self, host: str) -> Approach:
        """The approach to whoever comes from this host."""
        approach = self._hosts.setdefault(host, Approach())
        self._hosts.move_to_end(host)
        if len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)
        return approach

    def enrolled(self) -> None:
        """A new certificate is in use, whoever refused the one before."""
        for approach in self._hosts.values():
            approach.enrolled()
