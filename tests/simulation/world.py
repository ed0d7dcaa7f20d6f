"""A deployment, put together from the product's parts on simulated ground, and what befalls it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from agents.member.trust import Trust
from agents.runtime import logs
from agents.runtime.errors import AgentError
from agents.server.errors import OperationError
from agents.server.operations import ServerOperations
from pki import certificates
from pki.ledger import Chain
from tests.simulation import acts
from tests.simulation.acts import Act
from tests.simulation.chance import drawn, seeded
from tests.simulation.clock import Era, SimClock
from tests.simulation.disk import Killed, Platter
from tests.simulation.ground import Lines, ground
from tests.simulation.loop import SimLoop
from tests.simulation.machine import GoneError, Machine, current
from tests.simulation.network import Network, Weather
from tests.simulation.plan import Plan
from tests.simulation.programs import BUNDLE, FQDN, Programs
from tests.simulation.store import Database
from tests.simulation.thief import ADDRESS as THIEF
from tests.simulation.thief import Thief
from tests.simulation.watch import Watch

__all__ = ["World", "world"]

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
        loop.threads = drawn(plan.seed, "threads")
        self.database = Database(drawn(plan.seed, "store"))
        self.thief = Thief(SimClock(self.era), FQDN)
        self.watch = Watch(self.network, self.thief, self.database)
        self.admits = False
        """Whether the administrator lets those in again whom he had dismissed."""
        programs, cast = Programs(self.database, self.watch), plan.cast
        self.server = self._machine("server", "10.0.0.1", programs.server)
        self.watch.server = self.server
        self.clients = [
            self._client(n, f"10.0.{1 + (n == 5)}.{10 + n}", self.server, programs)
            for n in range(1, cast.clients + 1)
        ]
        self.zones = [
            self._machine(f"zone-{n}", f"10.1.{n}.1", programs.zone_server)
            for n in range(1, cast.zones + 1)
        ]
        self.watch.zones = self.zones
        run_hub = partial(programs.hub, server=self.server, zones=self.zones)
        self.hubs = [self._machine("hub", "10.0.0.2", run_hub)] if self.zones else []
        self.behind = [
            [
                self._client(place, f"10.1.{n}.{10 + place}", zone, programs)
                for place in cast.behind(number)
            ]
            for n, (number, zone) in enumerate(
                zip(cast.zone_servers, self.zones, strict=True), start=1
            )
        ]

    @property
    def machines(self) -> list[Machine]:
        """Everything that runs, in the order in which a plan numbers it."""
        outside = [client for group in self.behind for client in group]
        return [self.server, *self.clients, *self.hubs, *self.zones, *outside]

    def _client(self, n: int, address: str, responder: Machine, programs: Programs) -> Machine:
        run = partial(programs.client, responder=responder)
        return self._machine(f"client-{n}", address, run)

    def _machine(self, name: str, address: str, main: Any) -> Machine:  # noqa: ANN401 - a program
        machine = Machine(
            name,
            address,
            folder=Path("/") / name,
            main=main,
            platter=Platter(
                lambda path: self.watch.disk_changed(name, path),
                drawn(self.plan.seed, f"platter {name}"),
            ),
            clock=SimClock(self.era),
            loop=self.loop,
            network=self.network,
            note=self.watch.note,
            broken=self.watch.fail,
        )
        self.watch.machines.append(machine)
        return machine

    # --- the course of things

    async def begin(self) -> None:
        """Install a server, export its bundle, and give it to everybody else."""
        await self.thief.listen()
        self.server.start()
        await self.until(lambda: self.ready, 30.0)
        content = (await self.administer(self._bundle))[0]
        for machine in self.machines[1:]:
            machine.platter.content[machine.folder / BUNDLE] = content
            machine.start()
        if self.hubs:
            self.loop.create_task(self._let_in())
        await asyncio.sleep(self.plan.settling)

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
        await self.apply(acts.Admit())
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
            case acts.Hold(machine, seconds):
                network.hold(machines[machine].address, seconds)
            case acts.Move(machine):
                machines[machine].port += 1
                machines[machine].kill("to listen elsewhere")
            case acts.Storm(slow, loss):
                network.weather = Weather(slow, loss, 0.3, network.weather.noise)
            case acts.Noise(share):
                network.weather.noise = share
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
            case acts.Dismiss(machine):
                self.admits = False
                await self._decide_on(machines[machine], "revoke")
            case acts.Admit():
                self.admits = True
            case acts.Release():
                self.thief.hang_up()
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

    async def _let_in(self) -> None:
        """Approve who asks, for as long as the world lasts."""
        while True:
            for row in await self._administer_or_none(ServerOperations.approvals) or ():
                if row["state"] == "pending" or (self.admits and row["state"] == "revoked"):
                    await self._decide(row["fingerprint"], "approve")
            await asyncio.sleep(2.0)

    async def _decide_on(self, machine: Machine, verb: str) -> None:
        if machine.part is not None:
            # A fingerprint begins with the id that is made of it.
            await self._decide(machine.part.member.id.hex(), verb)

    async def _decide(self, fingerprint: str, verb: str) -> None:
        def work(operations: ServerOperations) -> Any:  # noqa: ANN401
            return operations.approvals_decide(ADMINISTRATOR, fingerprint, verb, REASON)

        if await self._administer_or_none(work) is not None:
            self.watch.note("admin", f"is told that it is done: {verb} {fingerprint[:16]}")

    async def _administer_or_none(self, work: Callable[[ServerOperations], Any]) -> Any:  # noqa: ANN401
        """What the server answers, or None: he will ask again."""
        try:
            return await self.administer(work)
        except (GoneError, OperationError, AgentError, Killed) as exc:
            self.watch.note("admin", f"has no answer: {exc}")
            return None

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
        if victim in self.zones:
            # It dials nobody: he comes to it, and its own hub does not.
            self.network.cut(self.hubs[0].address, victim.address)
            self.thief.call(victim.address, [root.der for root in self._roots()])
            return
        for other in self.machines:
            self.network.bend(victim.address, other.address, THIEF)
        self._isolate(victim.address)
        self.network.sever(victim.address)

    def _roots(self) -> list[Any]:
        return list(self.server.part.authority.chain.roots)

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
        for change in ground(made.watch):
            stack.enter_context(change)
        logs.capture(Lines(made.watch))
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
