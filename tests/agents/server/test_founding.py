"""The server's first start: everything is made, once, and a crash in it is taken up."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agents.member.keyring import Keyring
from agents.runtime.errors import StateError
from agents.server.app import Server
from agents.server.authority import OWN_KINDS, STANDBY_KEYS, found
from agents.server.standby import Standby
from pki import certificates, keys
from pki.certificates import NEVER
from tests.support.authority import AUDIT, check_whole, copy
from tests.support.clock import START, FakeClock
from tests.support.files import Crash, Failure, MemoryFiles
from tests.support.servers import FQDN, config_in, opened, prepared

WAYS = (Failure.BEFORE, Failure.MIDDLE, Failure.AFTER)
"""How an atomic write can fail; a disk that lies is for the ledger's two generations."""

Operation = Callable[[Server], Awaitable[None]]


@pytest.mark.req("A1", "A2")
async def test_a_first_start_makes_everything_and_asks_nothing(tmp_path: Path) -> None:
    async with prepared(tmp_path) as server:
        chain = server.authority.chain
        check_whole(server)
        assert [root.name for root in chain.roots] == [f"{FQDN} Root 0"]
        assert certificates.read(chain.current_root.der).not_after == NEVER
        assert chain.last.n == 0
        assert len(server.standby.load()) == STANDBY_KEYS == 16
        assert {held.kind for held in server.keyring.credentials} == set(OWN_KINDS)
        assert all(held.root == chain.current_root.key_id for held in server.keyring.credentials)
    names = {path.name for path in config_in(tmp_path).state.iterdir()}
    assert {"pki.db", "pki.key", "standby.db"} <= names
    assert "standby.key" not in names
    assert (config_in(tmp_path).standby / "standby.key").exists()
    for path in (*config_in(tmp_path).state.iterdir(), *config_in(tmp_path).standby.iterdir()):
        assert path.stat().st_mode & 0o077 == 0


async def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    files, clock = MemoryFiles(), FakeClock()
    async with prepared(tmp_path, files=files, clock=clock) as server:
        before = (
            server.trust.state,
            server.keyring.id,
            [held.chain for held in server.keyring.credentials],
            list(server.standby.load()),
        )
    written = files.changes
    async with prepared(tmp_path, files=files, clock=clock) as server:
        assert files.changes == written
        assert before == (
            server.trust.state,
            server.keyring.id,
            [held.chain for held in server.keyring.credentials],
            list(server.standby.load()),
        )


@pytest.mark.req("A1")
@pytest.mark.parametrize("way", WAYS)
async def test_a_first_start_that_was_cut_short_is_completed(tmp_path: Path, way: Failure) -> None:
    whole = MemoryFiles()
    (tmp_path / "whole").mkdir()
    async with prepared(tmp_path / "whole", files=whole):
        pass
    assert whole.changes > 12
    for change in range(1, whole.changes + 1):
        folder = tmp_path / str(change)
        folder.mkdir()
        files = MemoryFiles()
        files.fail(change, way, crash=True)
        with pytest.raises(Crash):
            async with prepared(folder, files=files):
                pass
        founded = any(path.name.startswith("ledger.") for path in files.content)
        ids = {id for path, id in files.content.items() if path.name.startswith("ledger.")}
        async with prepared(folder, files=files) as server:
            check_whole(server)
            assert [root.name for root in server.authority.chain.roots] == [f"{FQDN} Root 0"]
            if founded:  # what was on disk is what is followed
                assert any(server.authority.chain.entries[0].encode() in data for data in ids)


@pytest.mark.parametrize("roots", [1, 2])
async def test_keys_without_the_ledger_found_no_second_deployment(
    tmp_path: Path, roots: int
) -> None:
    files = MemoryFiles()
    async with prepared(tmp_path, files=files) as server:
        for _ in range(roots - 1):
            await server.new_root(AUDIT)
    kept = copy(files)
    for path in list(files.content):
        if path.name.startswith("ledger"):
            del files.content[path]
    lost = dict(files.content)
    with pytest.raises(StateError, match="ledger is missing") as refusal:
        async with opened(tmp_path, files=files):
            pass
    assert "restore it" in refusal.value.hint
    assert files.content == lost
    async with prepared(tmp_path, files=kept) as server:
        check_whole(server)


def test_two_roots_without_a_certificate_are_of_a_deployment_too() -> None:
    files = MemoryFiles()
    keyring = Keyring(Path("/s/pki.db"), files)
    made = [keys.generate() for _ in range(2)]
    keyring.keep_roots({keys.key_id(key.public_key()): key for key in made})
    standby = Standby(Path("/s/standby.db"), Path("/k/standby.key"), files)
    with pytest.raises(StateError, match="ledger is missing"):
        found(keyring, standby, fqdn="a.example", now=START)
    assert not standby.exists


@pytest.mark.req("C4")
async def test_a_ledger_without_its_keys_gets_no_new_ones(tmp_path: Path) -> None:
    files = MemoryFiles()
    async with prepared(tmp_path, files=files):
        pass
    state = config_in(tmp_path).state
    for gone in (state / "pki.db", state / "pki.key"):
        left = copy(files)
        del left.content[gone]
        before = dict(left.content)
        with pytest.raises(StateError, match=gone.name):
            async with opened(tmp_path, files=left):
                pass
        assert left.content == before


def test_what_is_founded_twice_has_the_same_root() -> None:
    files = MemoryFiles()
    standby = Standby(Path("/s/standby.db"), Path("/k/standby.key"), files)
    first = found(Keyring(Path("/s/pki.db"), files), standby, fqdn="a.example", now=START)
    again = found(Keyring(Path("/s/pki.db"), files), standby, fqdn="a.example", now=START)
    assert first.current_root.key_id == again.current_root.key_id
    assert first.state.next == again.state.next


def test_no_two_deployments_are_of_one_id() -> None:
    made = []
    for _ in range(2):
        files = MemoryFiles()
        standby = Standby(Path("/s/standby.db"), Path("/k/standby.key"), files)
        made.append(found(Keyring(Path("/s/pki.db"), files), standby, fqdn="a.example", now=START))
    assert len({chain.deployment for chain in made}) == 2
