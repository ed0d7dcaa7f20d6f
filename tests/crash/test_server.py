"""A server that dies while it recovers from its death: create, rotate, revoke and enrol."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from agents.responder.records import IssuedRecord
from agents.runtime.errors import StateError, UnavailableError
from agents.server.app import Server
from agents.server.authority import OWN_KINDS
from agents.server.operations import ServerOperations
from pki import certificates
from pki.certificates import Kind
from protocol.messages import Issued, Refused
from tests.crash.faults import ATOMIC, copy, spread
from tests.support.authority import check_whole, make_root, revoke_first
from tests.support.clock import FakeClock
from tests.support.components import Component
from tests.support.files import Crash, Failure, MemoryFiles
from tests.support.logs import logged
from tests.support.servers import enrolled, prepared

Operation = Callable[[Server], Awaitable[None]]

depths = pytest.mark.parametrize(
    "deep", [False, pytest.param(True, marks=pytest.mark.needs("fuzz"))], ids=["some", "all"]
)


async def recovery_changes(folder: Path, files: MemoryFiles, clock: FakeClock) -> int:
    """How many durable changes a start makes of what is there."""
    probe = copy(files)
    async with prepared(folder, files=probe, clock=clock):
        return probe.changes


@depths
@pytest.mark.req("C8", "B10")
@pytest.mark.parametrize("operation", [make_root, revoke_first])
async def test_a_crash_in_the_recovery_from_a_crash(
    tmp_path: Path, operation: Operation, deep: bool
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
    tried = 0
    for first in range(1, count + 1):
        for way in ATOMIC if deep else (Failure.AFTER,):
            once = copy(base)
            async with prepared(tmp_path, files=once, clock=clock) as server:
                once.fail(first, way, crash=True)
                with pytest.raises(Crash):
                    await operation(server)
            clock.move(timedelta(minutes=1))
            again = await recovery_changes(tmp_path, once, clock)
            for second, second_way in spread(first, ATOMIC, again, all_=deep):
                files = copy(once)
                files.fail(second, second_way, crash=True)
                with pytest.raises(Crash):
                    async with prepared(tmp_path, files=files, clock=clock):
                        pass
                tried += 1
                async with prepared(tmp_path, files=files, clock=clock) as server:
                    check_whole(server)
                    chain = server.authority.chain
                    assert chain.begins_with(old)
                    assert chain.last.n - old.last.n in (0, 1)
                    await operation(server)
                    check_whole(server)
    assert tried >= 2


@depths
@pytest.mark.req("C8", "A1")
async def test_a_first_start_that_dies_twice(tmp_path: Path, deep: bool) -> None:
    clock = FakeClock()
    whole = MemoryFiles()
    async with prepared(tmp_path, files=whole, clock=clock):
        pass
    firsts = range(1, whole.changes + 1, 1 if deep else 4)
    for first in firsts:
        once = MemoryFiles()
        once.fail(first, ATOMIC[first % 3], crash=True)
        with pytest.raises(Crash):
            async with prepared(tmp_path, files=once, clock=clock):
                pass
        again = await recovery_changes(tmp_path, once, clock)
        for second, way in spread(first, ATOMIC, again, all_=deep and first % 4 == 0):
            files = copy(once)
            founded = _ledgers(files)
            files.fail(second, way, crash=True)
            with pytest.raises(Crash):
                async with prepared(tmp_path, files=files, clock=clock):
                    pass
            async with prepared(tmp_path, files=files, clock=clock) as server:
                check_whole(server)
                if founded:
                    genesis = server.authority.chain.entries[0].encode()
                    assert any(genesis in data for data in founded)


def _ledgers(files: MemoryFiles) -> list[bytes]:
    return [data for path, data in files.content.items() if path.name.startswith("ledger.")]


# --- enrolment: the durable write is the record of the issue


class Dying:
    """A record of issues that dies before or after it keeps the first one."""

    def __init__(self, server: Server, *, after: bool) -> None:
        self._record = server.issued.record
        self._after = after
        self._died = False

    async def record(self, issued: IssuedRecord) -> None:
        if self._died:
            await self._record(issued)
            return
        self._died = True
        if self._after:
            await self._record(issued)
        raise Crash("in the middle of an enrolment")


@pytest.mark.req("C8")
@pytest.mark.parametrize("after", [False, True])
async def test_a_server_that_dies_while_it_issues(
    tmp_path: Path, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, clock, client = MemoryFiles(), FakeClock(), Component()
    async with prepared(tmp_path, files=files, clock=clock) as server:
        before = await server.issued.unexpired(clock.now())
        monkeypatch.setattr(server.issued, "record", Dying(server, after=after).record)
        with pytest.raises(Crash):
            await enrolled(server, client, Kind.CLIENT_TLS)
    async with prepared(tmp_path, files=files, clock=clock) as server:
        kept = await server.issued.unexpired(clock.now(), holders=[client.id])
        # Whether it was recorded or not, nobody holds a certificate that is not on record.
        assert len(kept) == int(after)
        answer = await enrolled(server, client, Kind.CLIENT_TLS)
        assert isinstance(answer, Issued)
        leaf = certificates.read(answer.chain[0])
        now = await server.issued.unexpired(clock.now(), holders=[client.id])
        assert leaf.serial in {record.serial for record in now}
        assert len(await server.issued.unexpired(clock.now())) == len(before) + int(after) + 1


# --- disks that are full, read-only or torn


@pytest.mark.req("C8")
@pytest.mark.parametrize("operation", [make_root, revoke_first])
async def test_a_disk_that_refuses_every_write_costs_nothing_but_the_operation(
    tmp_path: Path, operation: Operation
) -> None:
    files, clock = MemoryFiles(), FakeClock()
    async with prepared(tmp_path, files=files, clock=clock) as server:
        await make_root(server)
        before, lines = server.authority.chain, dict(files.content)
        for change in range(1, 200):
            files.fail(change, Failure.BEFORE)
        for _ in range(3):
            with pytest.raises(StateError, match="cannot write"):
                await operation(server)
        assert files.content == lines
        assert server.authority.chain == before
        # It answers and signs for clients as before: those records are in the database.
        assert isinstance(await enrolled(server, Component(), Kind.CLIENT_TLS), Issued)
        files._failures.clear()
        server.authority.reconcile()
        await operation(server)
        check_whole(server)


@pytest.mark.req("C8")
async def test_a_database_that_refuses_every_write_issues_nothing_and_says_when_to_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_issued: IssuedRecord) -> None:
        raise StateError("database or disk is full")

    async with prepared(tmp_path) as server:
        monkeypatch.setattr(server.issued, "record", full)
        for _ in range(3):
            answer = await enrolled(server, Component(), Kind.CLIENT_TLS)
            assert isinstance(answer, Refused)
            assert answer.reason == "unavailable"
            assert answer.retry_after
        monkeypatch.undo()
        assert isinstance(await enrolled(server, Component(), Kind.CLIENT_TLS), Issued)


@pytest.mark.req("C8")
@pytest.mark.parametrize("name", ["pki.db", "standby.db", "ledger.0", "ledger.1"])
async def test_each_torn_file_is_named_or_survived_and_nothing_is_written_over(
    tmp_path: Path, name: str
) -> None:
    base, clock = MemoryFiles(), FakeClock()
    async with prepared(tmp_path, files=base, clock=clock) as server:
        await make_root(server)
        chain = server.authority.chain
        ids = server.keyring.root_ids
    (path,) = [path for path in base.content if path.name == name]
    for kept in (0, 1, len(base.content[path]) // 2, len(base.content[path]) - 1):
        files = copy(base)
        files.content[path] = base.content[path][:kept]
        torn = dict(files.content)
        if name == "pki.db":
            with pytest.raises(StateError, match=r"pki\.db"):
                async with prepared(tmp_path, files=files, clock=clock):
                    pass
            assert files.content == torn
            continue
        async with prepared(tmp_path, files=files, clock=clock) as server:
            assert server.keyring.root_ids == ids
            assert chain.begins_with(server.authority.chain)
            if name == "standby.db":
                assert server.authority.chain == chain
                with pytest.raises(StateError, match=r"standby\.db"):
                    await make_root(server)
                assert files.content[path] == torn[path]
            else:
                check_whole(server)


# --- clocks


@pytest.mark.req("C8")
@pytest.mark.parametrize("days", [-365, 3652])
async def test_a_clock_that_jumps_is_survived_and_nothing_is_lost(
    tmp_path: Path, days: int
) -> None:
    files, clock = MemoryFiles(), FakeClock()
    async with prepared(tmp_path, files=files, clock=clock) as server:
        await make_root(server)
        chain = server.authority.chain
        head = server.trust.head(server.authority.slot)
    clock.jump(timedelta(days=days))
    with logged() as lines:
        async with prepared(tmp_path, files=files, clock=clock) as server:
            assert server.authority.chain == chain
            check_kept(server)
            server.authority.sign_head()
            after = server.trust.head(server.authority.slot)
            assert head is not None
            assert after is not None
            assert after.time > head.time
            if days < 0:  # no certificate of ours has begun, nor has the root
                assert _named(lines) >= {kind.value for kind in OWN_KINDS}
            await make_root(server)
            check_whole(server)
    clock.jump(timedelta(days=-days))
    with logged() as lines:
        async with prepared(tmp_path, files=files, clock=clock) as server:
            check_kept(server)
            assert server.authority.chain.begins_with(chain)
            assert server.authority.chain.last.n == chain.last.n + 1
            if days > 0:  # a root that begins in ten years signs nothing now: another one does
                assert _named(lines) >= {kind.value for kind in OWN_KINDS}
                with pytest.raises(UnavailableError, match="no server-tls key can be signed"):
                    await server.certify(Kind.SERVER_TLS, "test")
                clock.move(timedelta(minutes=1))
                await make_root(server)
            check_whole(server)
            for kind in (Kind.SERVER_TLS, Kind.CLIENT_CA):
                await server.certify(kind, "test")
            assert isinstance(await enrolled(server, Component(), Kind.CLIENT_TLS), Issued)


@pytest.mark.req("C8", "I2")
@pytest.mark.parametrize("days", [-365, 3652])
async def test_a_clock_that_jumps_lifts_no_denial(tmp_path: Path, days: int) -> None:
    clock, hub = FakeClock(), Component()
    async with prepared(tmp_path, clock=clock) as server:
        operations = ServerOperations(server)
        await enrolled(server, hub, Kind.HUB_TLS)
        await operations.approvals_decide("me", hub.key_id.hex(), "approve", "")
        answer = await enrolled(server, hub, Kind.HUB_TLS)
        assert isinstance(answer, Issued)
        denied = frozenset({certificates.read(answer.chain[0]).key_id})
        # Revoked with the wrong clock or with the right one: it is denied with either.
        clock.jump(timedelta(days=days))
        await operations.approvals_decide("me", hub.key_id.hex(), "revoke", "")
        assert server.trust.denied == denied
        await _sign_by_the_hour(server)
        assert server.trust.denied == denied
    async with prepared(tmp_path, clock=clock) as server:
        await _sign_by_the_hour(server)
        assert server.trust.denied == denied
        clock.jump(timedelta(days=-days))
        await _sign_by_the_hour(server)
        assert server.trust.denied == denied
        assert len(await server.issued.unexpired(clock.now(), holders=[hub.id])) == 1


async def _sign_by_the_hour(server: Server) -> None:
    """What a server does once an hour."""
    server.authority.sign_head(await server._denied())
    await server._forget_expired()


def check_kept(server: Server) -> None:
    """No key is lost, whatever the clock says of certificates."""
    chain = server.authority.chain
    assert server.authority.can_sign
    assert list(server.standby.load()) == list(chain.state.next)
    assert server.trust.latest_head() is not None


def _named(lines: list[dict[str, object]]) -> set[object]:
    """The kinds of keys of which it was said that they cannot be signed, and what to do."""
    said = [line for line in lines if line["event"] == "key.renewal_failed"]
    assert all("clock" in str(line["hint"]) for line in said)
    return {line["kind"] for line in said}
