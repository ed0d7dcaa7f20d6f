"""A server as a whole: what it does by the hour, and what it answers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import select

from agents.member.contexts import MAX_SHOWN
from agents.member.renewal import Renewal
from agents.responder.enrolment import Binding
from agents.responder.registry import MISSED
from agents.runtime.admission import Admission
from agents.runtime.clock import MAX_PAUSE
from agents.runtime.errors import StateError, UnwritableError
from agents.runtime.network import answered
from agents.runtime.turns import Turns
from agents.server import app
from agents.server.app import BELIEVED_AFTER, KEPT_AFTER_EXPIRY, Server
from agents.server.authority import OWN_KINDS
from agents.server.operations import ServerOperations
from agents.server.store.schema import issued as table
from pki import certificates, keys
from pki.certificates import Kind
from pki.keys import KeyId
from pki.rotation import CLIENT_WINDOW
from protocol.messages import Issued, NonceGet, Pending, Refused, Register, Registered
from tests.agents.server.operations.machines import machines
from tests.support.clock import START, FakeClock, settle
from tests.support.components import EXPORTER, Component, FakeChannel, given, peer_of
from tests.support.files import MemoryFiles
from tests.support.links import DEADLINE, until
from tests.support.logs import logged
from tests.support.servers import config_in, enrolled, prepared, restore_older_keys, tls_key

HOUR = timedelta(hours=1)


@asynccontextmanager
async def by_the_hour(server: Server) -> AsyncIterator[None]:
    """The loop that signs heads, beside the test."""
    loop = asyncio.create_task(server._heads())
    await settle()
    try:
        yield
        assert not loop.done()
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


def head_time(server: Server) -> int:
    head = server.trust.head(server.authority.slot)
    assert head is not None
    return head.time


async def issued_to(server: Server, component: Component, kind: Kind) -> KeyId:
    answer = await enrolled(server, component, kind)
    assert isinstance(answer, Issued)
    return certificates.read(answer.chain[0]).key_id


async def pass_hours(server: Server, clock: FakeClock, hours: int) -> None:
    for _ in range(hours):
        before = head_time(server)
        await clock.advance(HOUR)
        async with asyncio.timeout(DEADLINE):
            while head_time(server) == before:  # the store answers on another thread
                await server.store.read(lambda _: None)
                await settle()


@pytest.mark.req("C8")
async def test_a_full_disk_delays_a_head_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, files = FakeClock(), MemoryFiles()
    async with prepared(tmp_path, clock=clock, files=files) as server, by_the_hour(server):
        before = head_time(server)
        files.full = True
        with logged() as lines:
            await clock.advance(HOUR)
            while not any(line["event"] == "head.unsigned" for line in lines):
                await server.store.read(lambda _: None)
                await settle()
            await clock.advance_network(app.HEAD_RETRY)
        files.full = False
        assert head_time(server) == before
        while head_time(server) == before:
            await clock.advance_network(app.HEAD_RETRY)
            await server.store.read(lambda _: None)
        assert [e["hint"] for e in lines if e["event"] == "head.unsigned"] == ["free some space"]


@pytest.mark.req("C8")
async def test_why_no_head_can_be_kept_is_said_once_for_as_long_as_it_is_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, tried = FakeClock(), list[float]()
    async with prepared(tmp_path, clock=clock) as server, by_the_hour(server):
        sign, full = server.authority.sign_head, True

        def noted(denied: Sequence[KeyId] | None = None) -> bytes:
            tried.append(clock.monotonic())
            if full:
                raise UnwritableError("no space left", hint="free some space")
            return sign(denied)

        monkeypatch.setattr(server.authority, "sign_head", noted)
        with logged() as lines:
            await clock.advance(HOUR)
            for tries in range(1, 5):
                await until(lambda tries=tries: len(tried) == tries)  # type: ignore[misc]  # a default is the loop's own
                await settle()
                full = tries < 4
                await clock.advance_network(app.HEAD_RETRY)
            await until(lambda: len(tried) == 5)
            await settle()
            full = True
            await clock.advance(HOUR)
            await until(lambda: len(tried) == 6)
            await settle()
        assert [after - before for before, after in pairwise(tried)][:4] == [app.HEAD_RETRY] * 4
        said = [line for line in lines if line["event"] == "head.unsigned"]
        assert [(line["reason"], line["hint"]) for line in said] == [
            ("no space left", "free some space")
        ] * 2


async def test_a_head_is_signed_every_hour(tmp_path: Path) -> None:
    clock = FakeClock()
    async with prepared(tmp_path, clock=clock) as server, by_the_hour(server):
        times = [head_time(server)]
        for _ in range(3):
            await pass_hours(server, clock, 1)
            times.append(head_time(server))
        assert [after - before for before, after in pairwise(times)] == [3600] * 3


async def test_a_clock_that_is_set_right_brings_the_next_head_in_an_hour(tmp_path: Path) -> None:
    clock = FakeClock()
    async with prepared(tmp_path, clock=clock) as server, by_the_hour(server):
        before = head_time(server)
        clock.jump(timedelta(days=10))
        await until(lambda: head_time(server) != before)
        await settle()
        ahead = head_time(server)
        clock.jump(-timedelta(days=10))
        await clock.advance_network(MAX_PAUSE)
        await clock.advance(HOUR)
        await until(lambda: head_time(server) != ahead)


@pytest.mark.parametrize("what", ["head", "new root", "revocation"])
async def test_policy_time_waits_for_what_is_told_to_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    clock, held = FakeClock(), list[int]()
    async with prepared(tmp_path, clock=clock) as server, by_the_hour(server):
        await server.new_root(bytes(32))
        await settle()
        assert clock.holds == 0
        sign = server.authority.sign_head

        def noted(denied: Sequence[KeyId] | None = None) -> bytes:
            held.append(clock.holds)
            return sign(denied)

        monkeypatch.setattr(server.authority, "sign_head", noted)
        match what:
            case "head":
                await clock.advance(HOUR)
                await until(lambda: held != [])
            case "new root":
                await server.new_root(bytes(32))
            case _:
                server.revoke([server.authority.chain.roots[0].key_id], bytes(32))
        assert held == [1]


async def test_a_new_root_has_the_server_show_a_key_under_it(tmp_path: Path) -> None:
    async with prepared(tmp_path) as server:
        version = server.member.version(Kind.SERVER_TLS)
        changed = asyncio.ensure_future(server.member.changed_from(Kind.SERVER_TLS, version))
        before = tls_key(server)
        await server.new_root(bytes(32))
        assert list(server._shown()) == [tls_key(server), before]
        await settle()
        assert changed.done()


@pytest.mark.req("I2")
async def test_a_denial_is_in_each_head_until_the_key_would_have_expired(tmp_path: Path) -> None:
    clock = FakeClock()
    async with prepared(tmp_path, clock=clock) as server, by_the_hour(server):
        operations, hub = ServerOperations(server), Component()
        await operations.setting_set("me", "pki_hub_tls_key_duration_days", "1")
        await enrolled(server, hub, Kind.HUB_TLS)
        await operations.approvals_decide("me", hub.key_id.hex(), "approve", "")
        answer = await enrolled(server, hub, Kind.HUB_TLS)
        assert isinstance(answer, Issued)
        denied = frozenset({peer_of(answer.chain).leaf.key_id})
        await operations.approvals_decide("me", hub.key_id.hex(), "revoke", "")
        await pass_hours(server, clock, 3)
        assert server.trust.denied == denied
        await pass_hours(server, clock, 22)
        assert server.trust.denied == denied  # for so long, a clock alone lifts none
        clock.move(BELIEVED_AFTER)
        await pass_hours(server, clock, 1)
        assert server.trust.denied == frozenset()


@pytest.mark.req("B16")
async def test_an_old_root_is_logged_once_a_day(tmp_path: Path) -> None:
    clock = FakeClock()
    async with prepared(tmp_path, clock=clock) as server:
        await ServerOperations(server).setting_set("me", "root_age_warning_days", "1")
        with logged() as lines:
            async with by_the_hour(server):
                await pass_hours(server, clock, 24)
                assert [line["event"] for line in lines].count("root.old") == 0
                await pass_hours(server, clock, 30)
        old = [line["reason"] for line in lines if line["event"] == "root.old"]
        assert len(old) == 2
        assert all("days old" in str(reason) for reason in old)


async def test_issues_that_nobody_can_use_any_more_are_forgotten(tmp_path: Path) -> None:
    clock = FakeClock()

    def on_record() -> Awaitable[list[int]]:
        return server.store.read(
            lambda connection: list(connection.execute(select(table.c.serial)).scalars())
        )

    async with prepared(tmp_path, clock=clock) as server:
        await enrolled(server, Component(), Kind.CLIENT_TLS)
        before = len(await on_record())
        clock.move(timedelta(days=7) + KEPT_AFTER_EXPIRY - timedelta(hours=1))
        await server._forget_expired()
        assert len(await on_record()) == before
        clock.move(timedelta(days=1, hours=2))
        await server._forget_expired()
        assert len(await on_record()) == before - 1  # the client's; the server's own are good


async def test_issues_are_forgotten_once_a_day_and_if_not_today_tomorrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, forgotten = FakeClock(), list[timedelta]()
    async with prepared(tmp_path, clock=clock) as server:
        clock.move(BELIEVED_AFTER)

        async def noted(_work: object) -> None:
            forgotten.append(clock.now() - START)
            raise StateError("the disk is full")

        monkeypatch.setattr(server.store, "write", noted)
        for _ in range(50):
            await server._forget_expired()
            clock.move(HOUR)
        days = [timedelta(days=days) for days in range(3)]
        assert forgotten == [BELIEVED_AFTER + day for day in days]


async def test_issues_are_forgotten_by_the_hour(tmp_path: Path) -> None:
    clock = FakeClock()
    async with prepared(tmp_path, clock=clock) as server, by_the_hour(server):
        client = Component()
        await enrolled(server, client, Kind.CLIENT_TLS)
        clock.move(timedelta(days=40))
        await pass_hours(server, clock, 1)
        for _ in range(20):  # the store answers on another thread
            await server.store.read(lambda _: None)
            await settle()
        assert await server.issued.unexpired(START, holders=[client.id]) == []


async def test_a_clock_that_has_jumped_has_no_issue_forgotten(tmp_path: Path) -> None:
    clock = FakeClock()
    async with prepared(tmp_path, clock=clock) as server:
        before = await server.issued.unexpired(clock.now())
        clock.move(BELIEVED_AFTER)
        clock.jump(timedelta(days=3652))
        await server._forget_expired()
        assert await server.issued.unexpired(START) == before
    async with prepared(tmp_path, clock=clock) as server:
        clock.move(BELIEVED_AFTER - timedelta(hours=1))
        await server._forget_expired()
        kept = await server.issued.unexpired(START)
        assert [one for one in kept if one in before] == before
        clock.jump(-timedelta(days=3652))  # it began while the clock was ahead
        clock.move(HOUR)
        await server._forget_expired()
        assert await server.issued.unexpired(START) == kept


async def test_a_new_root_whose_head_could_not_be_kept_has_one_as_soon_as_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with prepared(tmp_path) as server, by_the_hour(server):
        with monkeypatch.context() as patch:
            patch.setattr(server.trust, "take_head", _no_space)
            with pytest.raises(StateError):
                await server.new_root(bytes(32))
        assert server.trust.latest_head() is None
        assert server._shown()[0] == tls_key(server)
        await _only_one_head(server)


async def test_a_revocation_whose_head_could_not_be_kept_has_one_as_soon_as_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with prepared(tmp_path) as server, by_the_hour(server):
        old = server.authority.chain.current_root.key_id
        await server.new_root(bytes(32))
        with monkeypatch.context() as patch:
            patch.setattr(server.trust, "take_head", _no_space)
            with pytest.raises(StateError):
                server.revoke([old], bytes(32))
        assert server.trust.latest_head() is None
        await _only_one_head(server)


async def _only_one_head(server: Server) -> None:
    for _ in range(20):  # the store answers on another thread
        await server.store.read(lambda _: None)
        await settle()
    head = server.trust.latest_head()
    assert head is not None
    for _ in range(20):
        await server.store.read(lambda _: None)
        await settle()
    assert server.trust.latest_head() == head


def _no_space(*_args: object, **_options: object) -> None:
    raise StateError("no space left on device")


async def test_a_root_key_that_is_found_again_certifies_at_the_same_start(tmp_path: Path) -> None:
    """As after a disk that kept the entry of a new root and said that it had not."""
    files, clock = MemoryFiles(), FakeClock()
    async with prepared(tmp_path, files=files, clock=clock):
        pass
    names = [config_in(tmp_path).state / name for name in ("pki.db", "standby.db")]
    before = {path: files.content[path] for path in names}
    async with prepared(tmp_path, files=files, clock=clock) as server:
        await server.new_root(bytes(32))
    files.content.update(before)
    clock.move(timedelta(days=200))
    async with prepared(tmp_path, files=files, clock=clock) as server:
        assert len(server.authority.chain.roots) == 2
        assert all(server.member.certified(kind) for kind in OWN_KINDS)


async def test_who_cannot_sign_goes_on_without_heads(tmp_path: Path) -> None:
    files, clock = MemoryFiles(), FakeClock()
    async with prepared(tmp_path, files=files, clock=clock):
        pass
    await restore_older_keys(tmp_path, files, clock)
    async with prepared(tmp_path, files=files, clock=clock) as server, by_the_hour(server):
        before = server.trust.latest_head()
        await clock.advance(5 * HOUR)
        assert server.trust.latest_head() == before
        assert not (await ServerOperations(server).status())["can_sign"]


@pytest.mark.req("I2")
async def test_who_cannot_sign_decides_without_heads(tmp_path: Path) -> None:
    files, clock, hub = MemoryFiles(), FakeClock(), Component()
    async with prepared(tmp_path, files=files, clock=clock) as server:
        await enrolled(server, hub, Kind.HUB_TLS)
        await ServerOperations(server).approvals_decide("me", hub.key_id.hex(), "approve", "")
        await issued_to(server, hub, Kind.HUB_TLS)
    await restore_older_keys(tmp_path, files, clock)
    async with prepared(tmp_path, files=files, clock=clock) as server:
        before = server.trust.latest_head()
        operations = ServerOperations(server)
        await operations.approvals_decide("me", hub.key_id.hex(), "revoke", "")
        assert [row["state"] for row in await operations.approvals()] == ["revoked"]
        assert server.trust.latest_head() == before
        assert server.trust.denied == frozenset()
        await operations.approvals_decide("me", hub.key_id.hex(), "approve", "")
        assert server.trust.latest_head() == before


async def test_more_denials_than_a_head_has_room_for_stop_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "MAX_DENIED", 3)
    async with prepared(tmp_path) as server:
        operations, zone = ServerOperations(server), Component()
        await enrolled(server, zone, Kind.ZONE_SERVER_TLS)
        await operations.approvals_decide("me", zone.key_id.hex(), "approve", "")
        issued = []
        for kind in (*[Kind.ZONE_SERVER_TLS] * 4, Kind.CLIENT_CA):
            answer = await enrolled(server, zone, kind)
            assert isinstance(answer, Issued)
            issued.append(certificates.read(answer.chain[0]).key_id)
        with logged() as lines:
            await operations.approvals_decide("me", zone.key_id.hex(), "revoke", "")
        assert issued[-1] in server.trust.denied
        assert len(server.trust.denied) == 3
        (line,) = [line for line in lines if line["event"] == "denied.crowded"]
        assert line["reason"] == f"{len(issued)} keys, a head has 3"


@pytest.mark.req("I2")
async def test_a_key_that_was_certified_twice_is_denied_once_and_a_full_head_is_no_crowd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "MAX_DENIED", 1)
    async with prepared(tmp_path) as server:
        operations, hub, key = ServerOperations(server), Component(), keys.generate()
        await enrolled(server, hub, Kind.HUB_TLS)
        await operations.approvals_decide("me", hub.key_id.hex(), "approve", "")
        asked = NonceGet(kind=Kind.HUB_TLS.value, spki=hub.spki)
        for _ in range(2):
            message = hub.request(
                Kind.HUB_TLS,
                given(server.enrolment.nonce(asked, "a link")),
                deployment=server.trust.deployment,
                issuer=tls_key(server),
                key=key,
            )
            binding = Binding(frozenset({tls_key(server)}), EXPORTER, None, "127.0.1.11")
            assert isinstance(await server.enrolment.enrol(message, binding), Issued)
        with logged() as lines:
            await operations.approvals_decide("me", hub.key_id.hex(), "revoke", "")
        assert server.trust.denied == {keys.key_id(key.public_key())}
        assert "denied.crowded" not in {line["event"] for line in lines}


@pytest.mark.req("I2")
async def test_where_a_head_is_full_a_client_ca_goes_before_what_lives_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "MAX_DENIED", 1)
    async with prepared(tmp_path) as server:
        operations, zone = ServerOperations(server), Component()
        await operations.setting_set("me", "pki_zoneserver_tls_key_duration_days", "400")
        await enrolled(server, zone, Kind.ZONE_SERVER_TLS)
        await operations.approvals_decide("me", zone.key_id.hex(), "approve", "")
        ca = await issued_to(server, zone, Kind.CLIENT_CA)
        await issued_to(server, zone, Kind.ZONE_SERVER_TLS)
        await operations.approvals_decide("me", zone.key_id.hex(), "revoke", "")
        assert server.trust.denied == {ca}


@pytest.mark.req("I2")
async def test_where_a_head_is_full_what_lives_longest_is_denied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "MAX_DENIED", 1)
    clock = FakeClock()
    async with prepared(tmp_path, clock=clock) as server:
        operations, hub = ServerOperations(server), Component()
        await enrolled(server, hub, Kind.HUB_TLS)
        await operations.approvals_decide("me", hub.key_id.hex(), "approve", "")
        await issued_to(server, hub, Kind.HUB_TLS)
        clock.move(HOUR)
        await operations.setting_set("me", "pki_hub_tls_key_duration_days", "400")
        longest = await issued_to(server, hub, Kind.HUB_TLS)
        await operations.approvals_decide("me", hub.key_id.hex(), "revoke", "")
        assert server.trust.denied == {longest}


@pytest.mark.req("I2")
async def test_what_is_under_a_revoked_root_takes_no_room_in_a_head(tmp_path: Path) -> None:
    async with prepared(tmp_path) as server:
        operations, hub = ServerOperations(server), Component()
        await enrolled(server, hub, Kind.HUB_TLS)
        await operations.approvals_decide("me", hub.key_id.hex(), "approve", "")
        await issued_to(server, hub, Kind.HUB_TLS)
        old = server.authority.chain.current_root.key_id
        await server.new_root(bytes(32))
        new = await issued_to(server, hub, Kind.HUB_TLS)
        server.revoke([old], bytes(32))
        await operations.approvals_decide("me", hub.key_id.hex(), "revoke", "")
        assert server.trust.denied == {new}


async def test_a_decision_that_denies_nobody_signs_no_head(tmp_path: Path) -> None:
    async with prepared(tmp_path) as server:
        operations, hub = ServerOperations(server), Component()
        before = server.trust.latest_head()
        await enrolled(server, hub, Kind.HUB_TLS)
        await operations.approvals_decide("me", hub.key_id.hex(), "approve", "")
        assert server.trust.latest_head() == before


# --- what is answered


@pytest.mark.req("B13", "F2")
async def test_a_registration_is_answered_with_what_is_in_force(tmp_path: Path) -> None:
    async with prepared(tmp_path) as server:
        (client,) = await machines(server, "127.0.1.1")
        await ServerOperations(server).setting_set("me", CLIENT_WINDOW, "9")
        await server.new_root(bytes(32))
        server.announcing._spread = 5.0  # of a fleet that is larger than this one
        message = Register(token=client.token, full=True, address="127.0.1.1", port=4000)
        answer = await answered(server.handle(client.link.channel, message))
        assert isinstance(answer, Registered)
        assert answer.settings == {CLIENT_WINDOW: "9"}
        assert answer.head == server.trust.latest_head()
        assert answer.spread == 5.0


@pytest.mark.req("A13", "B8")
async def test_a_client_ca_that_is_too_short_is_replaced_first_and_its_renewal_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Kind] = []
    monkeypatch.setattr(Renewal, "poke", lambda renewal: planned.append(renewal.kind))
    async with prepared(tmp_path) as server:
        operations = ServerOperations(server)
        before = server.keyring.credential(Kind.CLIENT_CA)
        await operations.setting_set("me", "pki_client_tls_ca_key_duration_days", "500")
        await operations.setting_set("me", "pki_client_tls_key_duration_days", "400")
        planned.clear()
        with logged() as lines:
            answer = await enrolled(server, Component(), Kind.CLIENT_TLS)
        assert isinstance(answer, Issued)
        leaf = certificates.read(answer.chain[0])
        assert leaf.not_after - leaf.not_before >= timedelta(days=400)
        assert server.keyring.credential(Kind.CLIENT_CA) != before
        (line,) = [line for line in lines if line["event"] == "key.activated"]
        assert line["reason"] == "too short for the client validity"
        assert planned == list(OWN_KINDS)


@pytest.mark.req("E6")
async def test_requests_at_once_are_bounded_as_is_configured(tmp_path: Path) -> None:
    config = replace(config_in(tmp_path), admission=Admission(requests=2))
    async with prepared(tmp_path, config=config, clock=FakeClock()) as server:
        asking = [enrolled(server, Component(), Kind.CLIENT_TLS) for _ in range(3)]
        answers = await asyncio.gather(*asking)
        assert [type(answer) for answer in answers].count(Refused) == 1
        assert "busy" in {answer.reason for answer in answers if isinstance(answer, Refused)}


@pytest.mark.req("F2", "F3")
async def test_a_client_is_missed_after_the_intervals_that_are_configured(tmp_path: Path) -> None:
    clock, config = FakeClock(), replace(config_in(tmp_path), registration_seconds=10.0)
    async with prepared(tmp_path, config=config, clock=clock) as server:
        (client,) = await machines(server, "127.0.1.1")
        clock.move_network(10.0 * MISSED - 1)
        row = server.registry.row(client.component.id)
        assert row is not None
        assert row.present
        clock.move_network(2)
        row = server.registry.row(client.component.id)
        assert row is not None
        assert not row.present


@pytest.mark.req("I2")
async def test_who_waits_for_approval_is_told_when_to_ask_again(tmp_path: Path) -> None:
    config = replace(config_in(tmp_path), pending_seconds=7.0)
    async with prepared(tmp_path, config=config, clock=FakeClock()) as server:
        answer = await enrolled(server, Component(), Kind.HUB_TLS)
        assert isinstance(answer, Pending)
        assert answer.retry_after == 7.0


# --- coverage's question: is it there?


@pytest.mark.req("B12")
async def test_what_is_written_waits_for_a_lull_of_the_heavy_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited, lull = list[Turns](), Turns.lull

    def noted(turns: Turns, work: Callable[[], None]) -> None:
        waited.append(turns)
        lull(turns, work)

    monkeypatch.setattr(Turns, "lull", noted)
    async with prepared(tmp_path) as server:
        waited.clear()
        await server.store.write(lambda _: None)
        assert waited == [server.member.endpoint.turns]


async def test_the_newest_key_is_the_one_that_a_link_was_most_likely_shown(
    tmp_path: Path,
) -> None:
    async with prepared(tmp_path) as server:
        shown = [tls_key(server)]
        for _ in range(MAX_SHOWN):
            await server.certify(Kind.SERVER_TLS, "test")
            server._keys_changed()  # as when another key was renewed
            shown.insert(0, tls_key(server))
        assert list(server._shown()) == shown[:MAX_SHOWN]


async def test_a_hub_is_there_while_its_link_is(tmp_path: Path) -> None:
    async with prepared(tmp_path) as server:
        operations, hub = ServerOperations(server), Component()
        await enrolled(server, hub, Kind.HUB_TLS)
        await operations.approvals_decide("me", hub.key_id.hex(), "approve", "")
        answer = await enrolled(server, hub, Kind.HUB_TLS)
        assert isinstance(answer, Issued)
        assert [one.present for one in server.approved_components()] == [False]
        link = FakeChannel(peer_of(answer.chain))
        link.on_closed = asyncio.get_running_loop().create_future()  # type: ignore[attr-defined]  # what Links needs
        server.links.add(link.channel)
        assert [one.present for one in server.approved_components()] == [True]
        link.on_closed.set_result(None)  # type: ignore[attr-defined]  # as above
        await settle()
        assert [one.present for one in server.approved_components()] == [False]
