"""The first steps of a component with a bundle: what starts, what is refused, what it leaves."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.member.starting import KEYS, opened
from agents.runtime import logs
from agents.runtime.errors import StateError
from pki import bundle as bundles
from pki.names import Role
from tests.support.clock import FakeClock
from tests.support.deployment import Deployment
from tests.support.logs import logged


class Case:
    def __init__(self, folder: Path) -> None:
        self.site = Deployment()
        self.folder = folder
        self.state = folder / "state"
        self.bundle = folder / "init.dat"
        self.bundle.write_bytes(self.site.bundle())

    def start(self, role: Role = Role.CLIENT, *, expect: str | None = None) -> tuple[bytes, bytes]:
        """Start and end; the component's id, and its newest root."""
        with opened(
            self.state,
            role,
            bundle=self.bundle,
            expect=expect,
            clock=FakeClock(),
            log=logs.get_logger(),
        ) as (keyring, trust):
            return keyring.id, trust.newest_root

    def refused(self, match: str, *, expect: str | None = None) -> StateError:
        with pytest.raises(StateError, match=match) as caught:
            self.start(expect=expect)
        assert caught.value.hint
        return caught.value

    @property
    def left(self) -> set[str]:
        """What lies in the state directory, but for its lock."""
        if not self.state.exists():
            return set()
        return {path.name for path in self.state.iterdir()} - {"lock"}


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


@pytest.mark.req("D4")
def test_the_first_start_makes_an_identity_and_knows_the_bundles_root(case: Case) -> None:
    id, root = case.start()
    assert len(id) == 16
    assert root == case.site.root_id()


def test_a_later_start_is_the_same_component(case: Case) -> None:
    assert case.start() == case.start()


def test_a_later_start_needs_no_bundle(case: Case) -> None:
    before = case.start()
    case.bundle.unlink()
    assert case.start() == before


@pytest.mark.req("B6")
def test_a_newer_bundle_is_heard(case: Case) -> None:
    id, _ = case.start()
    case.site.rotate()
    case.bundle.write_bytes(case.site.bundle())
    assert case.start() == (id, case.site.root_id())


@pytest.mark.req("D4")
def test_without_a_bundle_it_does_not_start_and_says_where_to_get_one(case: Case) -> None:
    case.bundle.unlink()
    assert "bundle export" in case.refused("no init bundle").hint
    assert case.left == set()


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    return data[:200] + bytes([data[200] ^ 1]) + data[201:]


def empty(data: bytes) -> bytes:
    return b""


def longer(data: bytes) -> bytes:
    return data + b"\0"


@pytest.mark.req("D5")
@pytest.mark.parametrize("damage", [cut, flipped, empty, longer], ids=lambda d: d.__name__)
def test_a_damaged_bundle_leaves_no_trace(case: Case, damage: Callable[[bytes], bytes]) -> None:
    whole = case.bundle.read_bytes()
    case.bundle.write_bytes(damage(whole))
    case.refused("is refused")
    assert case.left == set()
    case.bundle.write_bytes(whole)
    case.start()


@pytest.mark.req("D5")
def test_a_bundle_of_another_deployment_is_found_by_its_fingerprint(case: Case) -> None:
    expected = bundles.open_bundle(case.bundle.read_bytes()).fingerprint
    case.bundle.write_bytes(Deployment(id=bytes(16)).bundle())
    assert "bundle export" in case.refused("expected", expect=expected).hint
    assert case.left == set()
    case.bundle.write_bytes(case.site.bundle())
    case.start(expect=expected)


@pytest.mark.req("D5")
def test_a_bundle_of_another_deployment_changes_no_state(case: Case) -> None:
    before = case.start()
    case.bundle.write_bytes(Deployment(id=bytes(16)).bundle())
    with logged() as lines:
        assert case.start() == before
    (line,) = (line for line in lines if line["event"] == "bundle.refused")
    assert "is of deployment" in str(line["reason"])
    assert line["hint"]


@pytest.mark.req("D5")
@pytest.mark.parametrize("damage", [cut, flipped, empty, longer], ids=lambda d: d.__name__)
def test_a_bundle_that_was_spoilt_later_keeps_nobody_from_starting(
    case: Case, damage: Callable[[bytes], bytes]
) -> None:
    before = case.start()
    case.site.rotate()
    case.bundle.write_bytes(damage(case.site.bundle()))
    with logged() as lines:
        assert case.start() == before
    assert [line["event"] for line in lines] == ["bundle.refused"]


def test_a_ledger_without_its_keys_is_not_started_with_new_ones(case: Case) -> None:
    case.start()
    (case.state / KEYS).unlink()
    left = case.left
    case.refused("is missing")
    assert case.left == left


def test_a_second_daemon_on_the_same_state_is_refused(case: Case) -> None:
    with opened(
        case.state,
        Role.CLIENT,
        bundle=case.bundle,
        expect=None,
        clock=FakeClock(),
        log=logs.get_logger(),
    ):
        case.refused(str(os.getpid()))
    case.start()


@pytest.mark.req("I5")
def test_a_state_of_another_role_is_refused(case: Case) -> None:
    case.start(Role.CLIENT)
    with pytest.raises(StateError, match="client"):
        case.start(Role.HUB)


def test_files_are_for_the_owner_alone(case: Case) -> None:
    case.start()
    assert case.state.stat().st_mode & 0o077 == 0
    for path in case.state.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path.name
