"""What a bundle says of servers and logs: when it counts, and when it does not."""

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from agents.member import bundle_settings as rooms
from agents.member.bundle_settings import (
    KEPT,
    NAMES,
    BundleSettings,
    bundle_settings,
    parse_settings,
    take_log_level,
)
from agents.member.starting import opened
from agents.runtime import logs
from agents.runtime.address import HostPort
from agents.runtime.errors import StateError
from agents.runtime.logs import Level
from pki import bundle as bundles
from pki.names import Role
from tests.support.clock import FakeClock
from tests.support.deployment import Deployment

PICKED = {"ServerNameList": "a.example, b.example:9", "port": "5", "log_level": "debug"}
SERVERS = (HostPort("a.example", 5), HostPort("b.example", 9))


class Case:
    """A component that is started with one bundle after another."""

    def __init__(self, folder: Path) -> None:
        self.site = Deployment()
        self.state, self.path = folder / "state", folder / "init.dat"

    def put(self, settings: Mapping[str, str]) -> bytes:
        """Install a bundle of what is true now."""
        data = bundles.make_bundle(
            self.site.keys[len(self.site.roots) - 1],
            chains=[self.site.chain],
            heads=[self.site.head],
            settings=settings,
        )
        self.path.write_bytes(data)
        return data

    def start(self) -> BundleSettings:
        """Start and end; what is in force."""
        with opened(
            self.state,
            Role.CLIENT,
            bundle=self.path,
            expect=None,
            clock=FakeClock(),
            log=logs.get_logger(),
        ) as (_, trust):
            return bundle_settings(self.state, self.path, trust)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


@pytest.mark.req("D3")
def test_what_was_picked_at_export_is_in_force(case: Case) -> None:
    case.put(PICKED)
    assert case.start() == BundleSettings(SERVERS, Level.DEBUG)
    case.put({})
    assert case.start() == BundleSettings()


@pytest.mark.req("D3")
def test_it_stays_in_force_without_the_bundle_and_when_the_ledger_has_gone_on(case: Case) -> None:
    old = case.put(PICKED)
    case.start()
    case.path.unlink()
    assert case.start().servers == SERVERS
    # A newer bundle says something else, and the one of the first day says nothing any more.
    case.site.rotate()
    case.put({"ServerNameList": "new.example"})
    assert case.start() == BundleSettings((HostPort("new.example", 14172),))
    case.path.write_bytes(old)
    assert case.start() == BundleSettings((HostPort("new.example", 14172),))


@pytest.mark.req("D5")
def test_it_stays_in_force_when_the_bundle_is_spoilt(case: Case) -> None:
    data = case.put(PICKED)
    case.start()
    case.path.write_bytes(data[:-1])
    assert case.start() == BundleSettings(SERVERS, Level.DEBUG)


@pytest.mark.req("B10", "D3")
def test_a_thief_of_an_old_root_sets_nothing(case: Case) -> None:
    """He can sign a bundle over the history that he knows; ours is longer."""
    case.put(PICKED)
    case.start()
    stolen = Case(case.path.parent / "thief")
    stolen.site = case.site.twin()
    case.site.rotate()
    case.put(PICKED)
    case.start()
    stolen.path = case.path
    stolen.put({"ServerNameList": "evil.example"})
    assert case.start().servers == SERVERS


@pytest.mark.req("D3")
def test_what_a_newer_server_may_say_is_left_out(case: Case) -> None:
    case.put({**PICKED, "colour": "green"})
    assert case.start() == BundleSettings(SERVERS, Level.DEBUG)
    assert set(json.loads((case.state / KEPT).read_text())) == set(NAMES)


@pytest.mark.parametrize("wrong", [{"port": "x"}, {"log_level": "loud"}, {"ServerNameList": ","}])
def test_what_has_no_sense_is_refused_and_nothing_of_it_is_kept(
    case: Case, wrong: dict[str, str]
) -> None:
    case.put(PICKED)
    case.start()
    case.put({**PICKED, **wrong})
    with pytest.raises(StateError, match="are refused") as refusal:
        case.start()
    assert "export another one" in refusal.value.hint
    case.path.unlink()
    assert case.start().servers == SERVERS


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"port": 1}', b"\xff", b"[" * 10_000])
def test_a_damaged_file_is_named(case: Case, content: bytes) -> None:
    case.put(PICKED)
    case.start()
    (case.state / KEPT).write_bytes(content)
    with pytest.raises(StateError, match=f"{KEPT} is damaged") as refusal:
        case.start()
    assert refusal.value.hint


def test_every_name_is_read() -> None:
    for name in NAMES:
        assert parse_settings(PICKED) != parse_settings(
            {other: text for other, text in PICKED.items() if other != name}
        )
    assert 2 * len(msgspec.json.encode(dict.fromkeys(NAMES, "x" * 4096))) < rooms.MAX_FILE


@pytest.mark.req("D3")
@pytest.mark.parametrize(
    ("own", "told", "level"),
    [
        (None, None, "info"),
        (None, Level.DEBUG, "debug"),
        (Level.ERROR, Level.DEBUG, "info"),  # set by whoever has read the configuration
        (Level.INFO, None, "info"),
    ],
)
def test_the_level_of_the_bundle_counts_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, own: Level | None, told: Level | None, level: str
) -> None:
    said = ["info"]
    monkeypatch.setattr(logs, "set_level", said.append)
    take_log_level(own, BundleSettings(log_level=told))
    assert said[-1] == level
