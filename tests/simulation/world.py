"""A deployment, put together from the product's parts on simulated ground, and what befalls it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, cast
from unittest.mock import patch

import agents.client.app
import agents.member.starting
import agents.server.api.serve
import agents.server.app
from agents.client.app import Client
from agents.client.config import Config as ClientConfig
from agents.member.keyring import Credential, Keyring
from agents.member.starting import opened
from agents.member.trust import Trust
from agents.responder.records import AckRecord
from agents.runtime import logs
from agents.runtime.address import HostPort
from agents.runtime.errors import AgentError
from agents.runtime.files import DiskFiles
from agents.runtime.lifecycle import Stop as RealStop
from agents.server.acknowledgements import Acknowledgements
from agents.server.app import Server
from agents.server.config import Config as ServerConfig
from agents.server.errors import OperationError
from agents.server.operations import ServerOperations
from agents.server.store import Store
from pki import certificates
from pki.ledger import Chain
from pki.names import Role
from tests.simulation import plan as acts
from tests.simulation.chance import drawn, seeded
from tests.simulation.clock import Era, SimClock
from tests.simulation.disk import Killed, Platter
from tests.simulation.loop import SimLoop
from tests.simulation.machine import GoneError, Machine, Program, current
from tests.simulation.network import Network, Weather
from tests.simulation.plan import Act, Plan
from tests.simulation.store import Database, SimStore
from tests.simulation.thief import ADDRESS as THIEF
from tests.simulation.thief import PORT, Thief
from tests.simulation.watch import Watch

__all__ = ["World", "world"]

FQDN: Final = "server.test"
REASON: Final = "because"
ADMINISTRATOR: Final = "unix:admin"
BREATH: Final = 3.0
"""Seconds after each step of a leap, for what has come due."""


class World:
    """One simulated deployment. Made by `world`."""

    def __init__(self, plan: Plan, loop: SimLoop) -> None:
        self.plan = plan
        self.loop = loop
        self.era = Era(loop)
        self.network = Network(loop, plan.seed, owner=current.get, source=_source)
        loop.network = self.network
        self.database = Database(drawn(plan.seed, "store"))
        self.thief = Thief(SimClock(self.era), FQDN)
        self.watch = Watch(loop, self.thief, self.database)
        self.server = self._machine("server", "10.0.0.1", self._run_server)
        self.watch.server = self.server
        self.clients = [
            self._machine(f"client-{n}", f"10.0.{1 + (n == 5)}.{10 + n}", self._run_client)
            for n in range(1, plan.clients + 1)
        ]

    @property
    def machines(self) -> list[Machine]:
        """Everything that runs: the server first."""
        return [self.server, *self.clients]

    def _machine(self, name: str, address: str, main: Any) -> Machine:  # noqa: ANN401 - a program
        machine = Machine(
            name,
            address,
            folder=Path("/") / name,
            main=main,
            platter=Platter(lambda path: self.watch.disk_changed(name, path)),
            clock=SimClock(self.era),
            loop=self.loop,
            network=self.network,
            note=self.watch.note,
            broken=self.watch.fail,
        )
        self.watch.machines.append(machine)
        return machine

    # --- programs

    async def _run_server(self, program: Program) -> None:
        machine = program.machine
        config = ServerConfig(
            fqdn=FQDN,
            state=machine.folder,
            standby=Path("/standby"),
            listen=HostPort(machine.address, PORT),
        )
        store = SimStore(self.database, alive=lambda: program.alive, kill=program.die)
        async with AsyncExitStack() as stack:
            server = Server(config, machine.clock, cast(Store, store))
            await server.prepare()
            program.part = server
            self.watch.check_kept()
            await server.serve(cast(RealStop, program.stop), stack)

    async def _run_client(self, program: Program) -> None:
        machine = program.machine
        config = ClientConfig(
            servers=[HostPort(self.server.address, PORT)],
            listen=HostPort(machine.address, PORT),
            source=machine.address,
            host=machine.name,
            state=machine.folder,
            bundle=machine.folder / "bundle",
        )
        with opened(
            config.state,
            Role.CLIENT,
            bundle=config.bundle,
            expect=None,
            clock=machine.clock,
            log=agents.client.app.log,
        ) as (keyring, trust):
            client = Client(config, machine.clock, keyring, trust)
            program.part = client
            await client.serve(cast(RealStop, program.stop))

    # --- the course of things

    async def begin(self) -> None:
        """Install a server, export its bundle, and give it to clients."""
        await self.thief.listen()
        self.server.start()
        await self.until(lambda: self.ready, 30.0)
        content = (await self.administer(self._bundle))[0]
        for client in self.clients:
            client.platter.content[client.folder / "bundle"] = content
            client.start()
        await asyncio.sleep(2.0)

    async def play(self) -> None:
        """Let everything befall them that is planned."""
        for pause, act in self.plan.acts:
            self.watch.note("world", _describe(act))
            await self.apply(act)
            await asyncio.sleep(pause)

    async def calm(self) -> None:
        """Take every evil away: from here on everything must become well."""
        self.watch.note("world", "calm: every fault is taken away")
        await self.apply(acts.Release())
        await self.apply(acts.Heal())
        self.database.strike = None
        for machine in self.machines:
            machine.platter.spare()
            machine.clock.set_wrong(timedelta())
        await self.apply(acts.Wake())
        await self.until(lambda: self.ready, 60.0)
        if self.ready and self._needs_a_new_root():
            await self.apply(acts.Rotate())
            await self.apply(acts.Revoke())

    def _needs_a_new_root(self) -> bool:
        """Whether the administrator has to act before all can be well."""
        root = self.server.part.authority.chain.current_root
        # With the newest root the thief is the server, and with one that was made while the
        # server's clock was ahead nobody is valid yet. A new root ends both.
        stolen = root.key_id in self.thief.loot.roots
        return stolen or certificates.created(root.der) > self.era.now()

    async def until(self, true: Callable[[], bool], seconds: float) -> bool:
        """Wait until something is true; False if it is not in time."""
        end = self.loop.now + seconds
        while not true():
            if self.loop.now >= end:
                return False
            await asyncio.sleep(0.5)
        return True

    async def apply(self, act: Act) -> None:
        """Let one act befall them."""
        network, machines = self.network, self.machines
        match act:
            case acts.Rotate():
                await self._change(self._rotate)
            case acts.Revoke():
                await self._change(self._revoke)
            case acts.Leap(hours, step):
                for _ in range(0, hours, step):
                    self.era.leap(timedelta(hours=step))
                    await asyncio.sleep(BREATH)
            case acts.Kill(machine, power):
                machines[machine].kill("by the plan", power=power)
            case acts.Struck(machine, change, strike):
                machines[machine].platter.strike(change, strike)
            case acts.StruckStore(strike):
                self.database.strike = strike
            case acts.Sleep(machine):
                await machines[machine].shut_down()
            case acts.Wake():
                for one in machines:
                    one.start()
            case acts.Cut(one, other):
                network.cut(machines[one].address, machines[other].address)
            case acts.Heal():
                network.weather = Weather()
                network.heal()
                for place in self._bent():
                    self._isolate(place)
            case acts.Storm(slow, loss):
                network.weather = Weather(slow, loss, 0.3)
            case acts.Reset(share):
                network.reset(share)
            case acts.Clock(machine, wrong):
                machines[machine].clock.set_wrong(wrong)
            case acts.Steal():
                if self.server.part is not None:
                    chain = self.server.part.authority.chain
                    self.thief.steal(self.server.platter, self.server.folder, chain)
            case acts.Bend(machine):
                self._bend(machines[machine])
            case acts.Release():
                for place in self._bent():
                    network.straighten(place)
                    network.heal(place)
                    network.sever(place)

    # --- the administrator

    @property
    def ready(self) -> bool:
        """Whether the server serves."""
        program = self.server.program
        return program is not None and program.stop.is_ready.is_set()

    async def administer(self, work: Callable[[ServerOperations], Any]) -> Any:  # noqa: ANN401
        """Ask the server something, as an administrator."""
        server = self.server.part
        if server is None or not self.ready:
            raise GoneError("server")
        return await self.server.call(lambda: work(ServerOperations(server)))

    async def _change(self, work: Callable[[ServerOperations], Any]) -> None:
        try:
            chain: Chain | None = await self.administer(work)
        except GoneError:
            self.watch.note("admin", "has no answer")
        except (OperationError, AgentError) as exc:
            self.watch.note("admin", f"is told: {exc}")
        except Killed:
            self.watch.note("admin", "has no answer")
        else:
            if chain is not None:
                self.watch.note("admin", f"is told that it is done: entry {chain.last.n}")
                self.watch.promised(chain)

    async def _rotate(self, operations: ServerOperations) -> Chain:
        await operations.root_new(ADMINISTRATOR, confirmed=True)
        return operations._server.authority.chain

    async def _revoke(self, operations: ServerOperations) -> Chain | None:
        chain = operations._server.authority.chain
        for root in chain.trusted_roots[:-1]:
            await operations.root_revoke(
                ADMINISTRATOR, root.name, key_in_doubt=True, reason=REASON, confirmed=True
            )
        return operations._server.authority.chain

    @staticmethod
    async def _bundle(operations: ServerOperations) -> tuple[bytes, str, int]:
        return await operations.bundle(ADMINISTRATOR, {})

    # --- the thief's network

    def _bend(self, victim: Machine) -> None:
        trust: Trust | None = None if victim.part is None else victim.part.member.trust
        if not self.thief.loot.roots or self.server.part is None:
            return
        chain = self.server.part.authority.chain if trust is None else trust.chain(trust.slots[0])
        if trust is None:
            # Switched off: what it believes is on its disk, and the thief can guess it.
            chain = chain.cut(max(len(self.watch.on_disk(victim)), 1))
        if not self.thief.tell(chain, [root.key_id for root in chain.trusted_roots]):
            return
        for other in self.machines:
            self.network.bend(victim.address, other.address, THIEF)
        self._isolate(victim.address)
        self.network.sever(victim.address)

    def _isolate(self, address: str) -> None:
        for other in self.machines:
            if other.address != address:
                self.network.cut(address, other.address)

    def _bent(self) -> list[str]:
        return sorted(self.network.bent_from)


def _source() -> str:
    program = current.get()
    return THIEF if program is None else program.machine.address


def _describe(act: Act) -> str:
    fields = {name: getattr(act, name) for name in act.__slots__}
    return " ".join([type(act).__name__, *(f"{name}={value}" for name, value in fields.items())])


# --- simulated ground under the product's feet


class _NoStatus:
    """Writes no report."""

    def __init__(self, *_args: object, **_options: object) -> None:
        pass

    async def run(self) -> None:
        """Wait for ever."""
        await asyncio.get_running_loop().create_future()

    def write(self) -> None:
        """Write nothing."""


async def _no_control(*_args: object) -> None:
    await asyncio.get_running_loop().create_future()


@asynccontextmanager
async def _no_api(*_args: object) -> AsyncIterator[None]:
    yield


def _disk(name: str) -> Callable[..., Any]:
    """A method of the product's one disk that asks whose disk it is."""

    def call(_self: DiskFiles, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        program = current.get()
        if program is None:
            raise RuntimeError("somebody without a machine uses a disk")
        return getattr(program.disk, name)(*args, **options)

    return call


class _Lines(list[dict[str, object]]):
    """Takes every log line."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def append(self, record: dict[str, object]) -> None:
        self._watch.logged(record)


def _ground(watch: Watch) -> Iterator[contextlib.AbstractContextManager[object]]:
    for name in ("read_file", "write_atomic", "write_new", "exists", "remove"):
        yield patch.object(DiskFiles, name, _disk(name))
    # Locks are between processes, and reports and control sockets for people.
    yield patch.object(agents.member.starting, "lock_state", lambda *_: contextlib.nullcontext())
    yield patch.object(agents.client.app, "Status", _NoStatus)
    yield patch.object(agents.server.app, "Status", _NoStatus)
    yield patch.object(agents.server.app, "_private_folder", lambda _folder: None)
    yield patch.object(agents.client.app, "serve_control", _no_control)
    yield patch.object(agents.client.app, "version", lambda: "0")
    yield patch.object(agents.server.api.serve, "listening", _no_api)
    # Two places where somebody looks on.
    activate, take = Keyring.activate, Acknowledgements.take

    def watched_activate(self: Keyring, *args: Any) -> Credential:  # noqa: ANN401
        credential = activate(self, *args)
        watch.activated(credential)
        return credential

    async def watched_take(self: Acknowledgements, ack: AckRecord, trust: Trust) -> None:
        watch.acknowledged(ack)
        await take(self, ack, trust)

    yield patch.object(Keyring, "activate", watched_activate)
    yield patch.object(Acknowledgements, "take", watched_take)


@contextmanager
def world(plan: Plan) -> Iterator[World]:
    """A world for this plan; everything is swept away in the end."""

    def spawned(task: asyncio.Task[Any]) -> None:
        everybody[task] = None
        task.add_done_callback(lambda task: everybody.pop(task, None))
        program = current.get()
        if program is not None:
            program.tasks[task] = None
            task.add_done_callback(lambda task: program.tasks.pop(task, None))

    everybody: dict[asyncio.Task[Any], None] = {}
    loop = SimLoop(spawned)
    with seeded(plan.seed), ExitStack() as stack:
        made = World(plan, loop)
        loop.set_exception_handler(lambda _loop, context: _escaped(made.watch, context))
        for ground in _ground(made.watch):
            stack.enter_context(ground)
        logs.capture(_Lines(made.watch))
        logs.set_level("info")
        stack.callback(logs.silence)
        stack.callback(made.database.close)
        try:
            yield made
        finally:
            _sweep(loop, everybody)
            loop.close()


def _escaped(watch: Watch, context: dict[str, Any]) -> None:
    error = context.get("exception")
    program = current.get()
    if isinstance(error, Killed) or (program is not None and not program.alive):
        return
    watch.fail("somebody", f"let an exception escape: {context['message']}: {error!r}")


def _sweep(loop: SimLoop, tasks: dict[asyncio.Task[Any], None]) -> None:
    """End what still runs; some of it waits for connections of killed programs, for ever."""
    loop.set_exception_handler(lambda _loop, _context: None)
    for _ in range(5):
        for task in list(tasks):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.1))
        if not tasks:
            return
