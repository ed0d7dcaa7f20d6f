"""What a component says of itself in its state directory, for commands that look from outside.

`status.json` is replaced at every change that an operator would want to see, so `pki show`,
`status` and `healthcheck` work when the daemon is down and need no port (J7). It is a report,
not state: nothing reads it back, and it is not forced to disk.

A server has thousands of links. So their rows are written one by one, and what is kept to see a
change is which links they were.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from agents.member.keyring import Credential
from agents.member.member import Member
from agents.runtime.channel import Channel
from agents.runtime.errors import reason_of
from agents.runtime.statefiles import STATUS
from pki import certificates
from pki.keys import key_id

__all__ = ["Status", "credential_row", "link_row"]

INTERVAL = 1.0
"""Seconds of network time between two looks."""


class Status:
    """Writes the report of one member.

    Args:
        more: what the role adds to the report.
        links: the links that are up now.
    """

    def __init__(
        self,
        member: Member,
        folder: Path,
        *,
        links: Callable[[], list[Channel]],
        more: Callable[[], Mapping[str, Any]] = dict,
        renewals: Callable[[], Mapping[str, datetime | None]] = dict,
    ) -> None:
        self._member = member
        self._path = folder / STATUS
        self._links = links
        self._more = more
        self._renewals = renewals
        self._complaint = ""

    async def run(self) -> None:
        """Write it at every change worth looking at, until cancelled; looked for each second."""
        before: object = None
        while True:
            report, links = self._report(), self._links()
            now = report, [channel.id for channel in links]  # a link stays what it is
            if now != before:
                before = now
                self._put(report, links)
            await self._member.clock.sleep(INTERVAL)

    def write(self) -> None:
        """Replace the report."""
        self._put(self._report(), self._links())

    def _report(self) -> dict[str, Any]:
        """The report without the time and the links, as JSON can carry it."""
        member = self._member
        trust = member.trust
        renewals = self._renewals()
        return {
            "role": member.role.value,
            "id": member.id.hex(),
            "identity": key_id(member.keyring.identity_spki).hex(),
            "pid": os.getpid(),
            "deployment": trust.deployment.hex(),
            "newest_root": trust.newest_root.hex(),
            "roots": [root_row(der) for der in trust.roots],
            "ledger": [
                {
                    "slot": slot.hex(),
                    "n": trust.last(slot).n,
                    "entry_id": trust.last(slot).id.hex(),
                }
                for slot in trust.slots
            ],
            "denied": sorted(k.hex() for k in trust.denied),
            "keys": [
                credential_row(held, renewals.get(held.kind.value))
                for held in member.keyring.credentials
            ],
            **self._more(),
        }

    def _put(self, report: Mapping[str, Any], links: Sequence[Channel]) -> None:
        """Readers see the old report or the new one; a full disk is no reason to end."""
        temporary = self._path.with_name(f".{STATUS}.new")
        report = {"time": self._member.clock.now().isoformat(), **report}
        try:
            with temporary.open("wb") as file:
                file.writelines(_written(report, links))
            temporary.replace(self._path)
        except OSError as exc:
            reason = reason_of(exc)
            if reason != self._complaint:
                self._member.log.warning("status.unwritable", reason=reason)
            self._complaint = reason
        else:
            self._complaint = ""


def _written(report: Mapping[str, Any], links: Sequence[Channel]) -> Iterator[bytes]:
    """The report as JSON, its links last and each in a line."""
    yield json.dumps(report, indent=1).removesuffix("\n}").encode()
    separator = b',\n "links": [\n  '
    for channel in links:
        yield separator + msgspec.json.encode(link_row(channel))
        separator = b",\n  "
    yield b"\n ]\n}\n" if links else b',\n "links": []\n}\n'


def root_row(der: bytes) -> dict[str, Any]:
    """One root, for people and programs."""
    facts = certificates.read(der)
    return {
        "name": facts.subject,
        "fingerprint": facts.fingerprint,
        "created": certificates.created(der).isoformat(),
    }


def credential_row(held: Credential, next_renewal: datetime | None) -> dict[str, Any]:
    """One certificate in use, with the date of its next renewal."""
    leaf = held.leaf
    return {
        "kind": held.kind.value,
        "fingerprint": leaf.fingerprint,
        "root": held.root.hex(),
        "serial": format(leaf.serial, "x"),
        "not_before": leaf.not_before.isoformat(),
        "not_after": leaf.not_after.isoformat(),
        "window": int(held.window.total_seconds()),
        "next_renewal": None if next_renewal is None else next_renewal.isoformat(),
    }


def link_row(channel: Channel) -> dict[str, Any]:
    """One link that is up."""
    peer, local = channel.peer, channel.local
    return {
        "link": channel.id,
        "class": channel.link_class.value,
        "peer_role": None if peer is None else peer.name.role.value,
        "peer": None if peer is None else peer.name.id.hex(),
        "root": None if peer is None else peer.root.hex(),
        "fingerprint": None if peer is None else peer.leaf.fingerprint,
        "not_after": None if peer is None else peer.leaf.not_after.isoformat(),
        "remote": f"{channel.remote[0]}:{channel.remote[1]}",
        "local": f"{local[0]}:{local[1]}",
    }
