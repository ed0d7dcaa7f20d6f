"""The start of a server: what it refuses, and what it finds of the run before."""

import gc
import os
import warnings
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from agents.member.keyring import Keyring
from agents.runtime.errors import DamagedError, StateError
from agents.runtime.files import DISK
from agents.runtime.lifecycle import Stop
from agents.runtime.lock import lock_state
from agents.runtime.notify import Notifier
from agents.server.app import Server, run
from agents.server.authority import OWN_KINDS
from agents.server.operations import ServerOperations
from agents.server.store import Store
from pki import heads
from pki.certificates import Kind
from tests.agents.server.operations.machines import Machine
from tests.support.clock import FakeClock
from tests.support.components import Component
from tests.support.files import MemoryFiles
from tests.support.logs import logged
from tests.support.servers import config_in, enrolled, opened, prepared, restore_older_keys, tls_key


@pytest.mark.req("A1")
@pytest.mark.parametrize("length", [0, 54, 250])
async def test_a_machine_whose_name_is_none_for_a_root_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr("socket.getfqdn", lambda: "x" * length)
    config = replace(config_in(tmp_path), fqdn="")
    config.state.mkdir(mode=0o700)
    store = Store.open(tmp_path / "server.db")
    try:
        with pytest.raises(StateError, match="has room for 53") as refusal:
            Server(config, FakeClock(), store)
    finally:
        store.close()
    assert f"has {length} characters" in str(refusal.value)
    assert len(str(refusal.value)) < 200
    assert "set fqdn" in refusal.value.hint
    assert list(config.state.iterdir()) == []  # no key, no ledger


# --- what a start refuses


async def test_a_standby_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    config_in(tmp_path).standby.mkdir(mode=0o755)
    with pytest.raises(StateError, match="entered by others") as refusal:
        async with opened(tmp_path):
            pass
    assert "chmod 700" in refusal.value.hint
    assert list(config_in(tmp_path).state.iterdir()) == []


async def test_a_standby_folder_is_made_where_there_is_none(tmp_path: Path) -> None:
    config = replace(config_in(tmp_path), standby=tmp_path / "some" / "where")
    async with prepared(tmp_path, config=config, clock=FakeClock()):
        assert config.standby.stat().st_mode & 0o777 == 0o700


async def test_a_standby_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_in(tmp_path).standby.mkdir(mode=0o700)
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(StateError, match="entered by others"):
        async with opened(tmp_path):
            pass


async def test_a_standby_folder_that_cannot_be_is_refused_by_name(tmp_path: Path) -> None:
    config_in(tmp_path).standby.write_text("a file")
    with pytest.raises(StateError, match=f"cannot use standby folder {tmp_path}"):
        async with opened(tmp_path):
            pass


@pytest.mark.parametrize("standby", ["state", "state/standby", "."])
def test_standby_keys_lie_apart_from_the_state(tmp_path: Path, standby: str) -> None:
    config = config_in(tmp_path)
    with pytest.raises(ValueError, match=r"standby is .* the keys of both"):
        replace(config, standby=tmp_path / standby)


@pytest.mark.sockets
async def test_a_server_without_its_socket_has_begun_nothing(tmp_path: Path) -> None:
    """What has begun and is waited for by nobody would be told at the end, as our fault."""
    config = config_in(tmp_path)
    config.socket.write_text("a file")
    clock, reason = FakeClock(), ""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            await run(config, clock=clock, stop=Stop(clock, Notifier(None)))
        except StateError as exc:
            reason = str(exc)
        gc.collect()  # what nobody has waited for is said when it is thrown away
    assert "is in the way" in reason
    assert [str(one.message) for one in said] == []


@pytest.mark.req("C4")
async def test_a_ledger_whose_keys_are_missing_is_told_with_what_to_do(tmp_path: Path) -> None:
    async with prepared(tmp_path):
        pass
    keys = config_in(tmp_path).state / "pki.db"
    keys.unlink()
    with pytest.raises(StateError, match=f"{keys} is missing, and there is a ledger") as refusal:
        async with opened(tmp_path):
            pass
    assert "restore it from a backup" in refusal.value.hint
    assert not keys.exists()


@pytest.mark.req("A1")
async def test_what_was_founded_is_a_line(tmp_path: Path) -> None:
    with logged() as lines:
        async with prepared(tmp_path) as server:
            root = server.authority.chain.current_root
    (line,) = [line for line in lines if line["event"] == "deployment.founded"]
    assert line["deployment"] == server.trust.deployment.hex()
    assert line["deployment_fingerprint"] == server.trust.state.fingerprint
    assert line["fingerprint"] == root.key_id.hex()
    assert line["name"] == root.name == "server.example Root 0"


@pytest.mark.req("C4")
async def test_a_ledger_that_is_damaged_is_kept_as_it_is(tmp_path: Path) -> None:
    async with prepared(tmp_path):
        pass
    state = config_in(tmp_path).state
    for path in state.glob("ledger.*"):
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    before = {path: path.read_bytes() for path in state.iterdir()}
    with pytest.raises(DamagedError):
        async with opened(tmp_path):
            pass
    assert {path: path.read_bytes() for path in state.iterdir()} == before


@pytest.mark.req("C4")
async def test_the_key_file_of_another_backup_makes_no_new_keys(tmp_path: Path) -> None:
    async with prepared(tmp_path):
        pass
    state = config_in(tmp_path).state
    (state / "pki.key").write_bytes(bytes(32))
    before = {path: path.read_bytes() for path in state.iterdir()}
    with pytest.raises(StateError, match="does not open"):
        async with opened(tmp_path):
            pass
    assert {path: path.read_bytes() for path in state.iterdir()} == before


@pytest.mark.sockets
async def test_a_second_server_on_the_same_state_is_refused(tmp_path: Path) -> None:
    config, clock = config_in(tmp_path), FakeClock()
    with lock_state(config.state, "server"), pytest.raises(StateError):
        await run(config, clock=clock, stop=Stop(clock, Notifier(None)))
    assert not (config.state / "pki.db").exists()
    assert not (config.state / "server.db").exists()


async def test_the_first_head_names_genesis(tmp_path: Path) -> None:
    async with prepared(tmp_path) as server:
        head = heads.parse_head(server.trust.latest_head() or b"").head
        assert (head.n, head.denied) == (0, ())
        assert head.entry_id == server.authority.slot


# --- what the next start finds


@pytest.mark.sockets
async def test_a_run_has_made_everything_and_leaves_its_database_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, clock, closed = config_in(tmp_path), FakeClock(), list[Store]()
    close, stop = Store.close, Stop(clock, Notifier(None))

    def noted(store: Store) -> None:
        closed.append(store)
        close(store)

    monkeypatch.setattr(Store, "close", noted)
    stop.request("test")
    await run(config, clock=clock, stop=stop)
    assert len(closed) == 1
    keyring = Keyring(config.state / "pki.db", DISK)
    assert {held.kind for held in keyring.credentials} == set(OWN_KINDS)


@pytest.mark.req("B12", "F1", "I2")
async def test_what_was_told_and_decided_is_known_after_a_restart(tmp_path: Path) -> None:
    clock = FakeClock()
    async with prepared(tmp_path, clock=clock) as server:
        operations = ServerOperations(server)
        await operations.setting_set("me", "pki_hub_tls_key_duration_days", "33")
        zone, client = Component(), Machine(server, "127.0.1.1")
        await enrolled(server, zone, Kind.ZONE_SERVER_TLS, host="zone-1")
        await operations.approvals_decide("me", zone.key_id.hex(), "approve", "")
        await client.follow()
        shown = tuple(server._shown())
    async with prepared(tmp_path, clock=clock) as server:
        assert server.settings.policies()[Kind.HUB_TLS].validity == timedelta(days=33)
        assert server.registry.row(client.component.id) is not None
        assert set(server.acknowledgements.of(server.authority.slot)) == {client.component.id}
        (one,) = server.approved_components()
        assert (one.role, one.id, one.host) == ("zone-server", zone.id, "zone-1")
        assert one.last_seen == clock.now()
        assert server.infrastructure.counts(zone.id)
        assert tuple(server._shown()) == shown == (tls_key(server),)


async def test_each_line_says_whose_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path) as server:
        with logged() as lines:
            await server.prepare()
        assert {line["id"] for line in lines} == {server.member.id.hex()}


async def test_who_cannot_sign_starts_all_the_same_and_says_once_why(tmp_path: Path) -> None:
    files, clock = MemoryFiles(), FakeClock()
    async with prepared(tmp_path, files=files, clock=clock):
        pass
    await restore_older_keys(tmp_path, files, clock)
    clock.move(timedelta(days=400))
    with logged() as lines:
        async with prepared(tmp_path, files=files, clock=clock) as server:
            assert not server.member.certified(Kind.SERVER_TLS)
    said = [line["event"] for line in lines if line["level"] == "error"]
    assert said == ["root.key_missing"]


async def test_a_root_that_has_not_begun_keeps_no_administrator_out(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as server:
        clock.jump(-timedelta(days=10))
        with logged() as lines:
            await server.prepare()
        failed = [line for line in lines if line["event"] == "key.renewal_failed"]
        assert [line["kind"] for line in failed] == [kind.value for kind in OWN_KINDS]
        assert all("can be signed" in str(line["reason"]) for line in failed)
        assert all("set the clock" in str(line["hint"]) for line in failed)
        clock.jump(timedelta(days=10))
        await server.certify(Kind.SERVER_TLS, "test")
