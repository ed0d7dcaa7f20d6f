"""The report of a component in its state directory (J7)."""

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from agents.member.member import Member
from agents.member.status import INTERVAL, Status
from agents.runtime.statefiles import STATUS
from pki.certificates import Kind
from pki.names import Role
from tests.support.channels import FakeChannel
from tests.support.clock import FakeClock
from tests.support.deployment import Deployment
from tests.support.logs import logged


class Case:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = Deployment()
        self.clock = FakeClock()
        self.member: Member = self.site.member(Role.HUB, clock=self.clock)
        self.held = self.site.certify(self.member.keyring, Kind.HUB_TLS)
        self.links: list[FakeChannel] = []
        self.more: dict[str, Any] = {}
        self.status = Status(
            self.member,
            folder,
            links=lambda: [link.channel for link in self.links],
            more=lambda: self.more,
            renewals=lambda: {Kind.HUB_TLS.value: self.held.leaf.not_after},
        )

    @property
    def read(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.folder / STATUS).read_text())
        return report


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


@pytest.mark.req("J7", "A11")
def test_says_who_it_is_and_what_it_holds(case: Case) -> None:
    case.status.write()
    report = case.read
    assert (report["role"], report["id"]) == ("hub", case.member.id.hex())
    assert report["newest_root"] == case.site.root_id().hex()
    assert [root["name"] for root in report["roots"]] == ["server.test Root 0"]
    assert [root["fingerprint"] for root in report["roots"]] == [case.site.root_id().hex()]
    (key,) = report["keys"]
    assert key["kind"] == "hub-tls"
    assert key["fingerprint"] == case.held.leaf.key_id.hex()
    assert key["next_renewal"] == case.held.leaf.not_after.isoformat()
    (ledger,) = report["ledger"]
    assert (ledger["n"], ledger["entry_id"]) == (0, case.site.chain.last.id.hex())


async def test_says_who_is_at_its_links(case: Case) -> None:
    peer = case.site.peer(Role.SERVER)
    case.links = [FakeChannel(peer=peer), FakeChannel()]
    case.status.write()
    proven, stranger = case.read["links"]
    assert (proven["peer_role"], proven["peer"]) == ("server", peer.name.id.hex())
    assert proven["fingerprint"] == peer.leaf.key_id.hex()
    assert (stranger["peer_role"], stranger["peer"]) == (None, None)


@pytest.mark.req("A4")
def test_says_no_secret(case: Case) -> None:
    case.member.keyring.prepare(Kind.HUB_TLS)
    case.status.write()
    text = (case.folder / STATUS).read_text()
    for key in (case.held.key, case.member.keyring.identity):
        number = key.private_numbers().private_value
        assert format(number, "x") not in text
        assert str(number) not in text


async def test_is_written_at_a_change_and_not_otherwise(case: Case) -> None:
    task = asyncio.ensure_future(case.status.run())
    await case.clock.advance_network(0)
    path = case.folder / STATUS
    first = path.stat().st_ino
    await case.clock.advance_network(5 * INTERVAL)
    assert path.stat().st_ino == first
    case.more = {"clients": 1}
    await case.clock.advance_network(INTERVAL)
    assert path.stat().st_ino != first
    assert case.read["clients"] == 1
    task.cancel()


async def test_a_link_that_comes_or_goes_is_a_change(case: Case) -> None:
    task = asyncio.ensure_future(case.status.run())
    await case.clock.advance_network(0)
    assert case.read["links"] == []
    first, second = FakeChannel(peer=case.site.peer(Role.SERVER)), FakeChannel()
    for links in ([first], [first, second], [second], []):
        case.links = links
        await case.clock.advance_network(INTERVAL)
        assert [row["link"] for row in case.read["links"]] == [link.id for link in links]
    task.cancel()


async def test_time_alone_is_no_change(case: Case) -> None:
    task = asyncio.ensure_future(case.status.run())
    await case.clock.advance_network(0)
    written = case.read["time"]
    case.clock.jump(case.held.window)
    await case.clock.advance_network(2 * INTERVAL)
    assert case.read["time"] == written
    task.cancel()


def test_a_reader_never_sees_half_of_it(case: Case) -> None:
    case.status.write()
    held = (case.folder / STATUS).open()
    case.more = {"long": "x" * 10000}
    case.status.write()
    with held:
        json.loads(held.read())
    assert [path.name for path in case.folder.iterdir()] == [STATUS]
    assert stat.S_ISREG((case.folder / STATUS).stat().st_mode)


def test_a_disk_that_takes_no_more_is_said_once_and_ends_nothing(case: Case) -> None:
    (case.folder / f".{STATUS}.new").mkdir()  # whatever it is: the report cannot be written
    with logged() as lines:
        case.status.write()
        case.status.write()
    assert [line["event"] for line in lines] == ["status.unwritable"]
    (case.folder / f".{STATUS}.new").rmdir()
    case.status.write()
    assert case.read["role"] == "hub"
