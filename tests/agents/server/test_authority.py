"""The server's roots: new ones, revocations, and a crash at any moment."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from agents.member.keyring import Keyring
from agents.runtime.errors import StateError
from agents.server.app import Server
from agents.server.authority import OWN_KINDS, found
from agents.server.standby import Standby
from pki import certificates, keys, ledger
from pki.certificates import Kind
from pki.errors import MalformedError, RefusedError, UntrustedError
from tests.support.authority import AUDIT, check_whole, copy, make_root, revoke_first
from tests.support.clock import START, FakeClock
from tests.support.components import Component
from tests.support.files import Crash, Failure, MemoryFiles
from tests.support.logs import logged
from tests.support.servers import FQDN, config_in, enrolled, opened, prepared

WAYS = (Failure.BEFORE, Failure.MIDDLE, Failure.AFTER)
"""How an atomic write can fail; a disk that lies is for the ledger's two generations."""

Operation = Callable[[Server], Awaitable[None]]


class Noted(MemoryFiles):
    """Notes which files are written, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def write_atomic(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        super().write_atomic(path, data, mode)
        self.written.append(path.stem)


async def make_tls_key(server: Server) -> None:
    await server.authority.certify(Kind.SERVER_TLS, "test")


# --- the order on the disk


@pytest.mark.req("B3", "C8")
async def test_what_is_written_is_written_in_the_order_that_a_crash_needs(tmp_path: Path) -> None:
    files = Noted()
    async with prepared(tmp_path, files=files) as server:
        for _ in range(2):
            files.written.clear()
            await make_root(server)
            keys_of_our_own = ["pki"] * 2 * len(OWN_KINDS)  # prepared, and put into use
            assert files.written == [
                *("standby", "pki", "ledger", "standby"),
                *keys_of_our_own,
                "ledger",
            ]
        files.written.clear()
        server.revoke([server.authority.chain.roots[1].key_id], AUDIT)
        assert files.written == ["ledger", "pki", "ledger"]


# --- crash matrix


@pytest.mark.req("B11", "C8")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("operation", [make_root, revoke_first])
async def test_a_crash_at_any_moment_leaves_the_state_before_or_after(
    tmp_path: Path, operation: Operation, way: Failure
) -> None:
    base, clock = MemoryFiles(), FakeClock()
    async with prepared(tmp_path, files=base, clock=clock) as server:
        await make_root(server)
        old = server.authority.chain
    probe = copy(base)
    async with prepared(tmp_path, files=probe, clock=clock) as server:
        start = probe.changes
        await operation(server)
        count = probe.changes - start
        assert server.authority.chain.last.n == old.last.n + 1
    assert count >= 2
    seen = set()
    for change in range(1, count + 1):
        files = copy(base)
        async with prepared(tmp_path, files=files, clock=clock) as server:
            files.fail(change, way, crash=True)
            with pytest.raises(Crash):
                await operation(server)
        clock.move(timedelta(minutes=1))
        async with prepared(tmp_path, files=files, clock=clock) as server:
            check_whole(server)
            chain = server.authority.chain
            assert chain.begins_with(old)
            seen.add(chain.last.n - old.last.n)
            # It can be asked for again, and is then done.
            await operation(server)
            check_whole(server)
            assert server.authority.chain.last.n > old.last.n
    at_once = operation is revoke_first and way is Failure.AFTER  # its first write is the ledger
    assert seen == ({1} if at_once else {0, 1})


@pytest.mark.req("B11", "C8")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("operation", [make_root, revoke_first])
async def test_a_write_that_fails_leaves_a_server_that_can_try_again(
    tmp_path: Path, operation: Operation, way: Failure
) -> None:
    base, clock = MemoryFiles(), FakeClock()
    async with prepared(tmp_path, files=base, clock=clock) as server:
        await make_root(server)
        old = server.authority.chain
    probe = copy(base)
    async with prepared(tmp_path, files=probe, clock=clock) as server:
        start = probe.changes
        await operation(server)
        count = probe.changes - start
    failed: set[int] = set()
    for change in range(1, count + 1):
        files = copy(base)
        async with prepared(tmp_path, files=files, clock=clock) as server:
            files.fail(change, way)
            try:
                await operation(server)
            except StateError:
                failed.add(change)
                server.authority.reconcile()
                await operation(server)
            # A key that could not be renewed is no reason to say that there is no new root:
            # its renewal comes to it again.
            for kind in OWN_KINDS:
                await server.authority.certify(kind, "older root")
            server.authority.sign_head()
            check_whole(server)
            live = server.authority.chain
            assert live.begins_with(old)
        async with prepared(tmp_path, files=files, clock=clock) as server:
            assert server.authority.chain == live
            check_whole(server)
    assert 1 in failed


@pytest.mark.req("C8")
async def test_a_disk_that_lied_about_the_ledger_costs_no_more_than_the_last_entry(
    tmp_path: Path,
) -> None:
    base, clock = MemoryFiles(), FakeClock()
    async with prepared(tmp_path, files=base, clock=clock) as server:
        old = server.authority.chain
    files = copy(base)
    async with prepared(tmp_path, files=files, clock=clock) as server:
        files.fail(3, Failure.TORN, crash=True)  # standby.db, pki.db, ledger
        with pytest.raises(Crash):
            await make_root(server)
    async with prepared(tmp_path, files=files, clock=clock) as server:
        assert server.authority.chain == old
        check_whole(server)
        await make_root(server)
        check_whole(server)


async def test_a_root_that_nobody_was_told_of_before_a_crash_is_announced_at_once(
    tmp_path: Path,
) -> None:
    files, clock = MemoryFiles(), FakeClock()
    async with prepared(tmp_path, files=files, clock=clock) as server:
        files.fail(3, Failure.AFTER, crash=True)  # the ledger has it, and nothing else
        with pytest.raises(Crash):
            await make_root(server)
    async with opened(tmp_path, files=files, clock=clock) as server:
        assert len(server.authority.chain.roots) == 2
        assert server.authority.head_due() <= clock.now()
        await server.prepare()
        check_whole(server)


# --- new root


@pytest.mark.req("A2", "B1", "B7")
async def test_a_new_root_stands_beside_the_old_one_and_signs_from_then_on(tmp_path: Path) -> None:
    clock = FakeClock()
    async with prepared(tmp_path, clock=clock) as server:
        for number in range(1, 4):
            clock.move(timedelta(days=200))
            await make_root(server)
            chain = server.authority.chain
            check_whole(server)
            assert chain.current_root.name == f"{FQDN} Root {number}"
            assert len(server.trust.roots) == number + 1  # older ones stay trusted
            assert all(
                held.root == chain.current_root.key_id for held in server.keyring.credentials
            )
            answer = await enrolled(server, Component(), Kind.CLIENT_TLS)
            assert certificates.read(answer.chain[-1]).key_id == chain.current_root.key_id  # type: ignore[union-attr]  # a refusal fails here
        roots = server.authority.chain.roots
        assert len({root.key_id for root in roots}) == 4
        assert [root.name for root in roots] == [f"{FQDN} Root {n}" for n in range(4)]


@pytest.mark.req("B11")
async def test_the_private_halves_of_two_roots_at_most_are_kept(tmp_path: Path) -> None:
    async with prepared(tmp_path) as server:
        for _ in range(3):
            await make_root(server)
            held = server.keyring.root_ids
            assert held == {root.key_id for root in server.authority.chain.roots[-2:]}


@pytest.mark.req("B11")
async def test_each_root_is_the_one_promised_sixteen_roots_before(tmp_path: Path) -> None:
    async with prepared(tmp_path) as server:
        promised = list(server.authority.chain.state.next)
        for key_id in promised[:3]:
            await make_root(server)
            assert server.authority.chain.current_root.key_id == key_id
        assert server.authority.chain.state.next[:13] == tuple(promised[3:])


@pytest.mark.req("B11")
async def test_who_steals_pki_db_can_name_no_successor(tmp_path: Path) -> None:
    async with prepared(tmp_path) as server:
        await make_root(server)
        chain, keyring = server.authority.chain, server.keyring
        stolen = {id: keyring.root(id) for id in keyring.root_ids}
        assert not stolen.keys() & set(chain.state.next)
        thief = keys.generate()
        current = stolen[chain.current_root.key_id]
        assert current is not None
        root = certificates.make_root(thief, FQDN, len(chain.roots), START, 1 << 120)
        with pytest.raises(UntrustedError, match="committed"):
            ledger.make_rotate(
                chain, root, current, thief, keys.key_id(keys.generate().public_key()), 0, AUDIT
            )


@pytest.mark.req("B11")
@pytest.mark.parametrize("change", [1, 2, 3])  # standby.db, pki.db, ledger
@pytest.mark.parametrize("way", WAYS)
async def test_a_new_root_that_failed_leaves_no_key_of_a_root_to_come_in_pki_db(
    tmp_path: Path, way: Failure, change: int
) -> None:
    files, clock = MemoryFiles(), FakeClock()
    async with prepared(tmp_path, files=files, clock=clock) as server:
        files.fail(change, way)
        with pytest.raises(StateError):
            await make_root(server)
        chain = server.authority.chain
        assert server.keyring.root_ids == {chain.current_root.key_id}
        assert set(chain.state.next) <= server.standby.load().keys()
    async with prepared(tmp_path, files=files, clock=clock) as server:
        check_whole(server)
        # Both, for a disk that lied about the ledger makes the older one the current root again.
        roots = server.authority.chain.roots
        assert server.keyring.root_ids == {root.key_id for root in roots[-2:]}
        await make_root(server)
        check_whole(server)


@pytest.mark.req("C8")
@pytest.mark.parametrize("way", WAYS)
async def test_a_root_whose_key_is_in_standby_db_alone_keeps_it_through_a_crash(
    tmp_path: Path, way: Failure
) -> None:
    base, clock = MemoryFiles(), FakeClock()
    async with prepared(tmp_path, files=base, clock=clock) as server:
        base.fail(3, Failure.AFTER)  # the ledger has it, though the server is told otherwise
        with pytest.raises(StateError):
            await make_root(server)
    probe = copy(base)
    async with prepared(tmp_path, files=probe, clock=clock):
        count = probe.changes
    assert count >= 2
    for change in range(1, count + 1):
        files = copy(base)
        files.fail(change, way, crash=True)
        with pytest.raises(Crash):
            async with prepared(tmp_path, files=files, clock=clock):
                pass
        async with prepared(tmp_path, files=files, clock=clock) as server:
            assert len(server.authority.chain.roots) == 2
            check_whole(server)


@pytest.mark.req("B11")
async def test_a_key_of_a_root_to_come_that_no_disk_could_take_back_goes_with_the_next_head(
    tmp_path: Path,
) -> None:
    files = MemoryFiles()
    async with prepared(tmp_path, files=files) as server:
        files.fail(3, Failure.BEFORE)  # standby.db, pki.db, ledger
        files.fail(4, Failure.BEFORE)  # pki.db
        with pytest.raises(StateError, match="ledger"):
            await make_root(server)
        server.authority.sign_head()
        assert server.keyring.root_ids == {server.authority.chain.current_root.key_id}


async def test_a_new_root_that_our_own_ledger_does_not_take_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with prepared(tmp_path) as server:
        before = server.trust.state
        monkeypatch.setattr(ledger, "make_rotate", lambda chain, *_args, **_options: chain)
        with pytest.raises(StateError, match="does not extend"):
            await make_root(server)
        assert server.trust.state == before
        assert server.keyring.root_ids == {server.authority.chain.current_root.key_id}


@pytest.mark.parametrize("way", WAYS)
async def test_a_new_root_after_which_standby_db_cannot_be_tidied_is_taken_up_all_the_same(
    tmp_path: Path, way: Failure
) -> None:
    files, clock = MemoryFiles(), FakeClock()
    async with prepared(tmp_path, files=files, clock=clock) as server:
        before = server.authority.chain
        files.fail(4, way)  # standby.db, pki.db, ledger, pki.db or standby.db again
        with pytest.raises(StateError):
            await make_root(server)
        chain = server.authority.chain
        assert len(chain.roots) == len(before.roots) + 1
        assert server.trust.latest_head() is not None, "and it is the one that was announced"
        for kind in OWN_KINDS:
            held = server.keyring.credential(kind)
            assert held is not None
            assert held.root == chain.current_root.key_id
        await make_root(server)
        check_whole(server)


@pytest.mark.req("B11")
async def test_a_ledger_without_room_for_a_new_root_gets_none_and_no_key_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = MemoryFiles()
    async with prepared(tmp_path, files=files) as server:
        monkeypatch.setattr(ledger, "MAX_ENTRIES", 1)
        before = dict(files.content)
        with pytest.raises(MalformedError, match="more than 1 entries"):
            await make_root(server)
        assert files.content == before
        check_whole(server)


async def test_a_new_root_needs_its_standby_key_and_changes_nothing_without(tmp_path: Path) -> None:
    async with prepared(tmp_path) as server:
        before, held = server.authority.chain, server.keyring.root_ids
        kept = server.standby.load()
        del kept[before.state.next[0]]
        server.standby.save(kept)
        with pytest.raises(StateError, match=r"standby\.db") as refusal:
            await make_root(server)
        assert "restore" in refusal.value.hint
        assert server.authority.chain == before
        assert server.keyring.root_ids == held


async def test_standby_keys_of_an_older_backup_are_good_as_far_as_they_go(tmp_path: Path) -> None:
    files, clock = MemoryFiles(), FakeClock()
    path = config_in(tmp_path).state / "standby.db"
    async with prepared(tmp_path, files=files, clock=clock):
        pass
    backup = files.content[path]
    with logged() as lines:
        async with prepared(tmp_path, files=files, clock=clock) as server:
            await make_root(server)
    assert "standby.incomplete" not in [line["event"] for line in lines]
    files.content[path] = backup
    with logged() as lines:
        async with prepared(tmp_path, files=files, clock=clock) as server:
            promised = server.authority.chain.state.next
            # Not that of a root that is made.
            assert list(server.standby.load()) == list(promised[:-1])
    (line,) = [line for line in lines if line["event"] == "standby.incomplete"]
    assert (line["count"], line["fingerprint"]) == (1, promised[-1].hex())
    assert "newest backup" in str(line["remedy"])
    async with prepared(tmp_path, files=files, clock=clock) as server:
        await make_root(server)
        assert server.authority.chain.current_root.key_id == promised[0]


async def test_a_lost_standby_folder_does_not_stop_the_present_root(tmp_path: Path) -> None:
    files, clock = MemoryFiles(), FakeClock()
    async with prepared(tmp_path, files=files, clock=clock):
        pass
    del files.content[config_in(tmp_path).standby / "standby.key"]
    with logged() as lines:
        async with prepared(tmp_path, files=files, clock=clock) as server:
            assert server.authority.can_sign
            before = server.authority.chain
            answer = await enrolled(server, Component(), Kind.CLIENT_TLS)
            assert type(answer).__name__ == "Issued"
            with pytest.raises(StateError, match=r"standby\.key"):
                await make_root(server)
            assert server.authority.chain == before
    (line,) = [line for line in lines if line["event"] == "standby.unreadable"]
    assert "standby.key does not exist" in str(line["reason"])
    assert "restore" in str(line["remedy"])


# --- revocation


@pytest.mark.req("B3")
async def test_a_revocation_destroys_the_private_half_and_voids_the_root(tmp_path: Path) -> None:
    files, clock = MemoryFiles(), FakeClock()
    async with prepared(tmp_path, files=files, clock=clock) as server:
        old = server.authority.chain.current_root
        await make_root(server)
        assert old.key_id in server.keyring.root_ids
        revision = server.trust.revision
        await revoke_first(server)
        check_whole(server)
        assert server.keyring.root_ids == {server.authority.chain.current_root.key_id}
        assert old.key_id not in server.trust.trusted
        assert old.der not in server.trust.roots
        assert server.trust.revision > revision
    async with prepared(tmp_path, files=files, clock=clock) as server:
        assert server.keyring.root(old.key_id) is None
        assert old.key_id not in server.trust.trusted


@pytest.mark.req("B3")
@pytest.mark.parametrize("changes", [(2,), (2, 4)])  # ledger, pki.db, ledger for the HEAD, pki.db
@pytest.mark.parametrize("way", WAYS)
async def test_a_revocation_whose_key_could_not_be_destroyed_is_announced_and_the_key_goes_soon(
    tmp_path: Path, way: Failure, changes: tuple[int, ...]
) -> None:
    files, clock = MemoryFiles(), FakeClock()
    async with prepared(tmp_path, files=files, clock=clock) as server:
        await make_root(server)
        revoked = server.authority.chain.roots[0].key_id
        for change in changes:
            files.fail(change, way)
        with pytest.raises(StateError):
            await revoke_first(server)
        assert revoked in server.authority.chain.revoked
        assert server.trust.latest_head() is not None, "and it is the one that was announced"
        server.authority.sign_head()
        check_whole(server)


@pytest.mark.req("A2")
async def test_the_number_of_a_revoked_root_does_not_come_back(tmp_path: Path) -> None:
    async with prepared(tmp_path) as server:
        await make_root(server)
        await revoke_first(server)
        await make_root(server)
        assert server.authority.chain.current_root.name == f"{FQDN} Root 2"


async def test_the_current_root_cannot_be_revoked_even_by_its_own_key(tmp_path: Path) -> None:
    async with prepared(tmp_path) as server:
        await make_root(server)
        before = server.trust.state
        with pytest.raises(UntrustedError):
            server.revoke([server.authority.chain.current_root.key_id], AUDIT)
        assert server.trust.state == before
        check_whole(server)


# --- the current root's key


@pytest.mark.req("B10")
async def test_an_old_backup_of_the_keys_signs_nothing(tmp_path: Path) -> None:
    files, clock = MemoryFiles(), FakeClock()
    state = config_in(tmp_path).state
    async with prepared(tmp_path, files=files, clock=clock):
        pass
    backup = files.content[state / "pki.db"]
    async with prepared(tmp_path, files=files, clock=clock) as server:
        await make_root(server)
        await make_root(server)
        chain = server.authority.chain
        head = server.trust.latest_head()
    files.content[state / "pki.db"] = backup
    clock.move(timedelta(days=2))
    with logged() as lines:
        async with prepared(tmp_path, files=files, clock=clock) as server:
            assert not server.authority.can_sign
            before = dict(files.content)
            for operation in (make_root, revoke_first, make_tls_key):
                with pytest.raises(StateError, match=chain.current_root.key_id.hex()) as refusal:
                    await operation(server)
                assert "old backup" in refusal.value.hint
            with pytest.raises(StateError):
                server.authority.sign_head()
            with pytest.raises(StateError):
                server.authority.terms(Kind.HUB_TLS)
            assert files.content == before
            assert server.authority.chain == chain
            assert server.trust.latest_head() == head
    (line,) = [line for line in lines if line["event"] == "root.key_missing"]
    assert line["fingerprint"] == chain.current_root.key_id.hex()


@pytest.mark.req("B11")
async def test_of_the_roots_in_a_backup_none_is_kept_that_is_older_than_the_last_two(
    tmp_path: Path,
) -> None:
    async with prepared(tmp_path) as server:
        oldest = server.authority.chain.current_root.key_id
        restored = {oldest: server.authority.issuer().key}
        for _ in range(2):
            await make_root(server)
        restored |= {id: key for id in server.keyring.root_ids if (key := server.keyring.root(id))}
        server.keyring.keep_roots(restored)
        server.authority.reconcile()
        assert server.keyring.root_ids == restored.keys() - {oldest}


def test_the_ledger_itself_refuses_another_key_than_the_current_root() -> None:
    files = MemoryFiles()
    keyring = Keyring(Path("/s/pki.db"), files)
    standby = Standby(Path("/s/standby.db"), Path("/k/standby.key"), files)
    chain = found(keyring, standby, fqdn="a.example", now=START)
    held = standby.load()
    wrong, new = held[chain.state.next[1]], held[chain.state.next[0]]
    root = certificates.make_root(new, "a.example", 1, START, 1 << 120)
    more = keys.key_id(keys.generate().public_key())
    with pytest.raises(RefusedError):
        ledger.make_rotate(chain, root, wrong, new, more, 0, AUDIT)
