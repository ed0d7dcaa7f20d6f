"""The ground that a simulated world stands on does what is real elsewhere."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from agents.runtime.channel import Channel
from agents.runtime.dialer import dial
from agents.runtime.errors import UnavailableError
from agents.runtime.listener import Listener
from pki.certificates import Kind
from pki.names import Role
from protocol.access import LinkClass
from protocol.messages import Message, Ping, Pong
from tests.simulation.chance import drawn
from tests.simulation.clock import BEGIN, Era, SimClock
from tests.simulation.connection import End
from tests.simulation.disk import Disk, Killed, Platter, SimTape, Strike
from tests.simulation.loop import SimLoop, StandstillError
from tests.simulation.network import Network, Weather
from tests.support.deployment import RESPONDER, Deployment
from tests.support.files import Failure

PORT = 14172


class Peer(asyncio.Protocol):
    """Remembers what it was told; says hello when it is connected."""

    def __init__(self, hello: bytes = b"") -> None:
        self.hello = hello
        self.told: list[str] = []
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.end = cast(End, transport)
        self.told.append("made")
        self.end.write(self.hello)

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.told.append("eof")
        return False

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(f"lost {type(exc).__name__}")


class Ground:
    """A loop with a network of two hosts, `a` and `b`; `b` listens."""

    def __init__(self) -> None:
        self.loop = SimLoop()
        self.network = Network(self.loop, 1, owner=lambda: self, source=lambda: "a")
        self.loop.network = self.network
        self.network.weather = Weather(pieces=0.0)
        self.accepted: list[Peer] = []
        self.network.listen(self.accept, "b", PORT)

    def accept(self) -> Peer:
        self.accepted.append(Peer(b"welcome"))
        return self.accepted[-1]

    async def dial(self, hello: bytes = b"") -> tuple[Peer, Peer]:
        made = Peer(hello)
        await self.network.connect(lambda: made, "b", PORT, None)
        await asyncio.sleep(1.0)
        return made, self.accepted[-1]


def grounded(test: Callable[[Ground], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        ground = Ground()
        try:
            ground.loop.run_until_complete(test(ground))
        finally:
            ground.loop.close()

    run.__name__ = test.__name__
    return run


@grounded
async def test_time_leaps(ground: Ground) -> None:
    await asyncio.sleep(1e6)
    assert ground.loop.now == pytest.approx(1e6)


def test_a_world_in_which_nothing_can_happen_ends() -> None:
    loop = SimLoop()
    forever = loop.create_future()
    with pytest.raises(StandstillError):
        loop.run_until_complete(forever)
    loop.close()


@grounded
async def test_both_sides_hear_each_other_in_order(ground: Ground) -> None:
    made, accepted = await ground.dial(b"hello")
    for n in range(50):
        made.end.write(bytes([n]))
    await asyncio.sleep(1.0)
    assert made.data == b"welcome"
    assert accepted.data == b"hello" + bytes(range(50))


@grounded
async def test_nobody_listens_there(ground: Ground) -> None:
    with pytest.raises(ConnectionRefusedError):
        await ground.network.connect(Peer, "b", 1, None)


@grounded
async def test_an_end_is_heard_and_so_is_a_reset(ground: Ground) -> None:
    made, accepted = await ground.dial()
    made.end.write(b"last")
    made.end.close()
    await asyncio.sleep(1.0)
    assert accepted.data == b"last"
    assert accepted.told == ["made", "eof", "lost NoneType"]
    assert made.told == ["made", "lost NoneType"]
    made, accepted = await ground.dial()
    made.end.abort()
    await asyncio.sleep(1.0)
    assert accepted.told == ["made", "lost ConnectionResetError"]


@grounded
async def test_who_does_not_read_holds_up_who_writes(ground: Ground) -> None:
    made, accepted = await ground.dial()
    accepted.end.pause_reading()
    made.end.write(bytes(1 << 20))
    assert made.told[-1] == "pause"
    await asyncio.sleep(60.0)
    assert accepted.data == b""
    accepted.end.resume_reading()
    await asyncio.sleep(1.0)
    assert made.told[-1] == "resume"
    assert len(accepted.data) == 1 << 20


@grounded
async def test_what_was_sent_into_a_cut_arrives_after_the_heal(ground: Ground) -> None:
    made, accepted = await ground.dial()
    ground.network.cut("a", "b")
    made.end.write(b"late")
    await asyncio.sleep(3600.0)
    assert accepted.data == b""
    ground.network.heal()
    await asyncio.sleep(1.0)
    assert accepted.data == b"late"


@grounded
async def test_what_was_held_back_arrives_after_what_was_said_on_a_newer_connection(
    ground: Ground,
) -> None:
    old, heard = await ground.dial()
    assert ground.network.hold("a", 100.0) == 2
    old.end.write(b"one ")
    old.end.write(b"two")
    heard.end.write(b", are you there?")
    await asyncio.sleep(60.0)
    old.end.close()
    new, newly_heard = await ground.dial(b"I am here")
    assert (newly_heard.data, new.data) == (b"I am here", b"welcome")
    assert (heard.told, heard.data, old.data) == (["made"], b"", b"welcome")
    assert not ground.network.is_late("a")
    await asyncio.sleep(40.0)
    assert ground.network.is_late("a")
    await asyncio.sleep(20.0)
    assert heard.data == b"one two"
    assert heard.told[:2] == ["made", "eof"]
    assert not ground.network.is_late("a")
    assert new.told == ["made"]


@grounded
async def test_what_is_held_back_arrives_from_who_is_no_more(ground: Ground) -> None:
    for silent in (False, True):
        made, accepted = await ground.dial()
        made.end.owner = owner = object()
        ground.network.hold("a", 100.0)
        made.end.write(b"last words")
        ground.network.kill(owner, silent=silent)
        await asyncio.sleep(99.0)
        assert (accepted.data, accepted.told) == (b"", ["made"])
        await asyncio.sleep(10.0)
        assert (accepted.data, accepted.told) == (b"last words", ["made"]), "half open"


@grounded
async def test_a_heal_lets_go_what_is_held_back(ground: Ground) -> None:
    made, accepted = await ground.dial()
    ground.network.hold("b", 1000.0)
    made.end.write(b"late")
    await asyncio.sleep(1.0)
    assert accepted.data == b""
    ground.network.heal()
    await asyncio.sleep(1.0)
    assert accepted.data == b"late"
    made.end.write(b", and soon")
    await asyncio.sleep(1.0)
    assert accepted.data == b"late, and soon"


@grounded
async def test_who_closes_behind_a_cut_is_heard_after_the_heal(ground: Ground) -> None:
    made, accepted = await ground.dial()
    ground.network.cut("a", "b")
    made.end.write(b"goodbye")
    made.end.close()
    await asyncio.sleep(60.0)
    ground.network.heal()
    await asyncio.sleep(1.0)
    assert accepted.data == b"goodbye"
    assert accepted.told == ["made", "eof", "lost NoneType"]


@pytest.mark.parametrize("how", ["aborts", "loses power"])
def test_who_cannot_send_again_what_met_a_cut_is_not_heard(how: str) -> None:
    @grounded
    async def test(ground: Ground) -> None:
        made, accepted = await ground.dial()
        made.end.owner = owner = object()
        ground.network.cut("a", "b")
        made.end.write(b"never")
        if how == "aborts":
            made.end.abort()
        else:
            made.end.close()
            await asyncio.sleep(1.0)
            ground.network.kill(owner, silent=True)
        await asyncio.sleep(60.0)
        ground.network.heal()
        await asyncio.sleep(60.0)
        assert (accepted.data, accepted.told) == (b"", ["made"])

    test()


@grounded
async def test_a_reset_that_meets_a_cut_leaves_the_other_half_open(ground: Ground) -> None:
    made, accepted = await ground.dial()
    ground.network.cut("a", "b")
    made.end.abort()
    await asyncio.sleep(1.0)
    ground.network.heal()
    await asyncio.sleep(1.0)
    assert accepted.told == ["made"], "half open"
    accepted.end.write(b"are you there?")
    await asyncio.sleep(1.0)
    assert accepted.told == ["made", "lost ConnectionResetError"]


@grounded
async def test_who_loses_power_says_nothing(ground: Ground) -> None:
    made, accepted = await ground.dial()
    accepted.end.owner = other = object()
    ground.network.host("b").on = False
    ground.network.kill(other, silent=True)
    made.end.write(b"are you there?")
    await asyncio.sleep(3600.0)
    assert made.told == ["made"]
    ground.network.host("b").on = True
    made.end.write(b"are you there?")
    await asyncio.sleep(1.0)
    assert made.told == ["made", "lost ConnectionResetError"]


@grounded
async def test_a_bent_road_leads_somewhere_else(ground: Ground) -> None:
    elsewhere = Peer()
    ground.network.listen(lambda: elsewhere, "c", PORT)
    ground.network.bend("a", "b", "c")
    made = Peer(b"secret")
    await ground.network.connect(lambda: made, "b", PORT, None)
    await asyncio.sleep(1.0)
    assert made.end.get_extra_info("peername") == ("b", PORT)
    assert elsewhere.data == b"secret"
    assert not ground.accepted


def test_a_platter_keeps_what_was_durable_and_a_killed_program_writes_no_more() -> None:
    told: list[Path] = []
    killed: list[str] = []
    platter = Platter(told.append, drawn(1, "platter"))
    disk = Disk(platter, alive=lambda: not killed, kill=killed.append)
    ledger, keys = Path("/x/ledger.0"), Path("/x/keys.db")
    disk.write_atomic(ledger, b"0123456789")
    disk.write_atomic(keys, b"0123456789")
    platter.strike(1, Strike(Failure.TORN, kill=True))
    with pytest.raises(Killed):
        disk.write_atomic(ledger, b"abcdefghij")
    assert platter.content[ledger] == b"abcde"
    with pytest.raises(Killed):
        disk.write_atomic(ledger, b"never")
    with pytest.raises(Killed):
        disk.read_file(ledger)
    assert platter.content[ledger] == b"abcde"
    assert told == [ledger, keys, ledger]
    killed.clear()
    platter.strike(1, Strike(Failure.TORN, kill=True))
    with pytest.raises(Killed):
        disk.write_atomic(keys, b"abcdefghij")
    assert platter.content[keys] == b"0123456789", "only what has two generations is torn"


def grown(struck: Strike | None = None) -> tuple[Platter, SimTape, Path]:
    """A log with one synced batch, whose next write fares so."""
    platter = Platter(lambda _path: None, drawn(1, "platter"))
    disk = Disk(platter, alive=lambda: True, kill=lambda _how: None)
    path = Path("/x/records.log")
    disk.write_atomic(path, b"head")
    tape = disk.tape(path)
    tape.write(b"first", 4)
    tape.sync()
    if struck is not None:
        platter.strike(1, struck)
    return platter, tape, path


def test_what_is_not_synced_goes_with_the_power_and_not_with_the_program() -> None:
    platter, tape, path = grown()
    tape.write(b"second", 9)
    assert platter.read_file(path) == b"headfirstsecond"
    assert platter.survives(path) == b"headfirst"
    platter.lose_power()
    left = platter.read_file(path)
    assert left.startswith(b"headfirst")
    assert b"headfirstsecond".startswith(left)


@pytest.mark.parametrize(
    ("failure", "left"),
    [
        (Failure.BEFORE, b"headfirst"),
        (Failure.MIDDLE, b"headfirstsec"),
        (Failure.TORN, b"headfirstsec\0\0\0"),
        (Failure.AFTER, b"headfirstsecond"),
    ],
)
@pytest.mark.parametrize("kill", [True, False])
def test_a_log_fails_as_a_disk_does(failure: Failure, left: bytes, kill: bool) -> None:
    platter, tape, path = grown(Strike(failure, kill=kill))

    def append() -> None:
        tape.write(b"second", 9)
        tape.sync()

    with pytest.raises(Killed if kill else OSError):
        append()
    assert platter.read_file(path) == left


def test_a_log_that_was_replaced_has_lost_its_name() -> None:
    platter, tape, path = grown()
    platter.write_atomic(path, b"new")
    assert not tape.is_named()
    tape.write(b"unseen", 9)
    tape.sync()
    assert platter.read_file(path) == b"new"


@grounded
async def test_a_thread_does_its_work_later_and_is_heard_later_still(ground: Ground) -> None:
    done: list[float] = []
    work = ground.loop.run_in_executor(None, lambda: done.append(ground.loop.now))
    assert not done
    await work
    assert 0.0 < done[0] < ground.loop.now


@grounded
async def test_noise_changes_every_write_and_nothing_else(ground: Ground) -> None:
    made, accepted = await ground.dial()
    ground.network.weather.noise = 1.0
    whole = bytes(range(256))
    for n in range(1, 30):
        made.end.write(whole)
        await asyncio.sleep(1.0)
        assert accepted.data != whole * n
    ground.network.weather.noise = 0.0
    accepted.data = b""
    made.end.write(whole)
    await asyncio.sleep(1.0)
    assert accepted.data == whole


@grounded
async def test_a_damaged_record_ends_its_link_and_no_other(ground: Ground) -> None:
    site = Deployment(now=BEGIN)
    clock = SimClock(Era(ground.loop))
    server, client = site.member(Role.SERVER, clock=clock), site.member(Role.CLIENT, clock=clock)
    site.certify(server.keyring, Kind.SERVER_TLS)
    site.certify(client.keyring, Kind.CLIENT_TLS)
    heard: list[Message] = []

    async def answer(_channel: Channel, message: Message) -> Message:
        heard.append(message)
        return Pong(id=getattr(message, "id", 0))

    listener = await Listener.start(
        "c",
        PORT,
        endpoint=server.endpoint,
        verify=server.verifier(roles=frozenset({Role.CLIENT}), client_ca_of=lambda: RESPONDER),
        handler=answer,
    )
    links = [
        await dial(
            "c",
            PORT,
            endpoint=client.endpoint,
            link_class=LinkClass.MEMBER,
            verify=client.verifier(roles=frozenset({Role.SERVER})),
        )
        for _ in range(2)
    ]
    heard.clear()
    ground.network.weather.noise = 1.0
    asked = asyncio.ensure_future(links[0].request(Ping(id=1), timeout=600.0))
    await asyncio.sleep(0.0)
    await asyncio.sleep(0.001)
    ground.network.weather.noise = 0.0
    with pytest.raises(UnavailableError):
        await asked
    assert not [message for message in heard if isinstance(message, Ping) and message.id == 1]
    assert links[0].is_closed
    assert isinstance(await links[1].request(Ping(id=2)), Pong)
    await listener.stop()


@grounded
async def test_a_clock_can_be_wrong_and_be_set_right(ground: Ground) -> None:
    era = Era(ground.loop)
    clock, other = SimClock(era), SimClock(era)
    clock.set_wrong(timedelta(days=3))
    assert clock.now() - other.now() == timedelta(days=3)
    date = other.now() + timedelta(hours=2)
    waiting = asyncio.ensure_future(other.wait_until(date))
    await asyncio.sleep(3600.0)
    assert not waiting.done()
    era.leap(timedelta(hours=1))
    await waiting
    assert other.now() >= date
    assert ground.loop.now < 3700
    waiting = asyncio.ensure_future(other.wait_until(other.now() + timedelta(days=1)))
    await asyncio.sleep(1.0)
    other.set_wrong(timedelta(days=1))
    await asyncio.sleep(0.1)
    assert waiting.done()
