"""The rows: what each measures, side by side, and what it must reach.

A measure does one round after another; within a round the sides take turns, and every second
round begins with the other one. Servers are started once a row, warmed, and measured by the
processor time that the kernel has counted for them.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import frames
from bench.lab import SOURCES, Command, Lab, Side, until_registered
from bench.process import BenchError, Load, Process
from bench.report import Samples, Target

__all__ = ["ROWS", "Figure", "Spec"]

MICRO = 1e6
KIB = 1024.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One line that a spec gives: its unit, its target and whom it compares with."""

    name: str
    unit: str
    target: Target
    against: str | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """A row that can be asked for; it gives one or several figures, measured together."""

    name: str
    figures: tuple[Figure, ...]
    measure: Callable[[Lab], Mapping[str, Samples]]
    needs: tuple[str, ...] = ("gcc", "libssl-dev")


def in_turn(rounds: int, ours: Callable[[], float], theirs: Callable[[], float]) -> Samples:
    """Measure two sides round by round, each of them first in every second round."""
    a, b = [], []
    for number in range(rounds):
        if number % 2:
            b.append(theirs())
            a.append(ours())
        else:
            a.append(ours())
            b.append(theirs())
    return Samples(tuple(a), tuple(b))


# --- handshakes


def _handshakes(lab: Lab, ours: Side, theirs: Side) -> Samples:
    count = lab.sizes.handshakes
    for side in (ours, theirs):
        lab.handshakes(side, min(count, 100))
    return in_turn(
        lab.sizes.rounds,
        lambda: MICRO * lab.handshakes(ours, count),
        lambda: MICRO * lab.handshakes(theirs, count),
    )


def handshake_c(lab: Lab) -> Mapping[str, Samples]:
    """The installed server against C."""
    with lab.daemon() as ours, lab.c_server() as theirs:
        return {"handshake-c": _handshakes(lab, ours, theirs)}


def handshake_ssl(lab: Lab) -> Mapping[str, Samples]:
    """The installed server against the standard library."""
    with lab.daemon() as ours, lab.server("ssl") as theirs:
        return {"handshake-ssl": _handshakes(lab, ours, theirs)}


# --- issuance


def issuance(lab: Lab) -> Mapping[str, Samples]:
    """In one process, in turn by batches; certificates a second of processor."""
    ours, theirs = [], []
    for _ in range(lab.sizes.rounds):
        command = lab.python("bench.work", "issuance", str(lab.sizes.issues))
        with lab.run(command, core=lab.cores.server) as process:
            a, b = (float(word) for word in process.hear("done"))
        ours.append(lab.sizes.issues / a)
        theirs.append(lab.sizes.issues / b)
    return {"issuance": Samples(tuple(ours), tuple(theirs))}


def issuance_service(lab: Lab) -> Mapping[str, Samples]:
    """Certificates a second of processor, over the network."""
    links, count = 32, lab.sizes.issues

    def ask(side: Side, command: Sequence[str | Path]) -> float:
        with lab.run(command, core=lab.cores.load) as load:
            load.hear("ready")

            def go() -> None:
                load.say()
                Load.of(load)

            return count / lab.cost(side, go)

    with lab.daemon() as ours, lab.cfssl() as theirs:
        where = lab.deployment.folder

        def mine() -> float:
            words = (where, str(ours.port), str(links), str(count))
            return ask(ours, lab.python("bench.enrolling", *words))

        def other() -> float:
            words = (str(theirs.port), str(links), str(count))
            return ask(theirs, lab.python("bench.cfssl", *words))

        mine()
        other()
        return {"issuance-service": in_turn(lab.sizes.rounds, mine, other)}


# --- frames


def frames_200(lab: Lab) -> Mapping[str, Samples]:
    """The whole channel against an echo."""
    frame = lab.frame("small", frames.request_of(frames.SMALL))
    with lab.server("channel") as ours, lab.server("raw") as theirs:
        return {"frames-200": _exchanged(lab, frame, ours, theirs, tls=False)}


def frames_ssl(lab: Lab) -> Mapping[str, Samples]:
    """The whole channel against the standard library and the same codec."""
    frame = lab.frame("small", frames.request_of(frames.SMALL))
    with lab.server("channel") as ours, lab.server("ssl") as theirs:
        return {"frames-ssl": _exchanged(lab, frame, ours, theirs, tls=True)}


def _exchanged(lab: Lab, frame: Path, ours: Side, theirs: Side, *, tls: bool) -> Samples:
    def measure(side: Side, count: int, *, tls: bool = True) -> float:
        return MICRO * lab.exchanges(side, frame, links=64, count=count, window=1, tls=tls)

    count = lab.sizes.exchanges
    measure(ours, count // 4)
    measure(theirs, count // 4, tls=tls)
    return in_turn(
        lab.sizes.rounds, lambda: measure(ours, count), lambda: measure(theirs, count, tls=tls)
    )


def pipelined(lab: Lab) -> Mapping[str, Samples]:
    """Frames as bytes: wire, TLS, link; frames a second of processor."""
    frame = lab.frame("small", frames.request_of(frames.SMALL))
    return {"pipelined": _flow(lab, frame, lab.sizes.pipelined, window=32, hub=False)}


def bulk_64k(lab: Lab) -> Mapping[str, Samples]:
    """Large frames as bytes; frames a second of processor."""
    frame = lab.frame("bulk", frames.bulk())
    return {"bulk-64k": _flow(lab, frame, lab.sizes.bulk, window=1, hub=True)}


def _flow(lab: Lab, frame: Path, count: int, *, window: int, hub: bool) -> Samples:
    def measure(side: Side, *, tls: bool) -> float:
        return 1 / lab.exchanges(side, frame, links=8, count=count, window=window, tls=tls, hub=hub)

    with lab.server("wire") as ours, lab.server("raw") as theirs:
        measure(ours, tls=True)
        measure(theirs, tls=False)
        return in_turn(
            lab.sizes.rounds, lambda: measure(ours, tls=True), lambda: measure(theirs, tls=False)
        )


# --- memory


def resident_link(lab: Lab) -> Mapping[str, Samples]:
    """What idle links have added to the installed server."""
    return {"resident-link": Samples(_resident(lab, []))}


def resident_client(lab: Lab) -> Mapping[str, Samples]:
    """What clients that have registered and keep their link have added."""
    full = frames.register(full=True)
    path = lab.frame("register", full)
    options: Command = ["-f", path, "-r", "1", "-t", str(frames.token_place(full))]
    return {"resident-client": Samples(_resident(lab, options))}


def _resident(lab: Lab, options: Sequence[str | Path]) -> tuple[float, ...]:
    found = []
    count = lab.sizes.resident
    for _ in range(lab.sizes.rounds):
        with lab.daemon() as side:
            lab.handshakes(side, 50)
            time.sleep(1.2)  # the report of its state is written
            before = side.process.memory()
            links = ["-n", str(count), "-c", "16", "-s", str(SOURCES), "-k"]
            with lab.load(side, *links, *options) as load:
                Load.of(load)
                load.hear("kept")
                time.sleep(1.2)
                found.append((side.process.memory() - before) / count)
    return tuple(found)


def idle_client(lab: Lab) -> Mapping[str, Samples]:
    """The resident set of an installed client that has registered."""
    found = []
    for number in range(lab.sizes.rounds):
        folder = lab.folder / f"client-{number}"
        folder.mkdir(mode=0o700)
        with lab.daemon() as side:
            config = folder / "client.toml"
            config.write_text(
                f'servers = ["127.0.0.1:{side.port}"]\nlisten = "127.0.0.1:0"\n'
                f'state = "{folder / "state"}"\nbundle = "{lab.deployment.bundle}"\n'
                f'log = "{folder / "client.log"}"\n'
            )
            (folder / "state").mkdir(mode=0o700)
            program = Path(lab.python("")[0]).with_name("anchorline")
            command: Command = [program, "client", "run", "--config", config]
            with lab.run(command, core=lab.cores.load) as client:
                until_registered(folder / "state", client)
                time.sleep(2.0)
                found.append(client.memory() / KIB)
                foreign = client.mapped("sqlalchemy", "uvicorn", "starlette")
                if foreign:
                    raise BenchError(f"a client has loaded {foreign}")
    return {"idle-client": Samples(tuple(found))}


# --- the ledger


def catch_up(lab: Lab) -> Mapping[str, Samples]:
    """Seconds of processor to follow; a new process each time."""
    found = []
    for _ in range(lab.sizes.rounds):
        command = lab.python("bench.work", "catch-up", str(lab.sizes.catch_up))
        with lab.run(command, core=lab.cores.server) as process:
            found.append(float(process.hear("done")[0]))
    return {"catch-up": Samples(tuple(found))}


# --- responders


def registrations(lab: Lab) -> Mapping[str, Samples]:
    """Visits of clients that have nothing new to say; visits a second of processor."""
    count = lab.sizes.registrations
    tokens = lab.folder / "tokens"
    tokens.unlink(missing_ok=True)

    def visits(side: Side, *, full: bool) -> float:
        frame = frames.register(full=full)
        path = lab.frame(f"register-{full}", frame)
        options: Command = ["-n", str(count), "-c", "16", "-s", str(SOURCES), "-f", path]
        place: Command = ["-r", "1", "-t", str(frames.token_place(frame)), "-T", tokens]

        def go() -> None:
            with lab.load(side, *options, *place) as load:
                Load.of(load)
            time.sleep(0.05)

        return count / lab.cost(side, go)

    with lab.daemon() as ours, lab.server("bare") as theirs:
        visits(ours, full=True)
        lab.handshakes(theirs, min(count, 100))
        samples = in_turn(
            lab.sizes.rounds,
            lambda: visits(ours, full=False),
            lambda: 1 / lab.handshakes(theirs, count),
        )
    return {"registrations": samples}


def storm(lab: Lab) -> Mapping[str, Samples]:
    """Clients that enrol at once, and somebody else who only has a question."""
    enrolled, memory, busy, idle = [], [], [], []
    # Three storms tell as much as five: the latencies in each are hundreds.
    for _ in range(min(lab.sizes.rounds, 3)):
        with lab.daemon() as side, ExitStack() as stack:
            words = (lab.deployment.folder, str(side.port), str(lab.sizes.storm))
            load = stack.enter_context(
                lab.run(lab.python("bench.storm", *words), core=lab.cores.load, nice=10)
            )
            load.hear("ready")
            idle.append(_p99(lab, side, lambda: time.sleep(lab.sizes.probing)))
            before = side.process.memory()

            def rage(load: Process = load) -> None:
                load.say()
                enrolled.append(float(Load.of(load).requests) / lab.sizes.storm)

            busy.append(_p99(lab, side, rage))
            memory.append((side.process.memory("VmHWM") - before) / KIB)
    return {
        "storm": Samples(tuple(busy), tuple(idle)),
        "storm-enrolled": Samples(tuple(enrolled)),
        "storm-memory": Samples(tuple(memory)),
    }


def _p99(lab: Lab, side: Side, meanwhile: Callable[[], None]) -> float:
    """The 99th percentile of a ping's latency in milliseconds, while something is done."""
    path = lab.frame("ping", frames.ping(lab.first_client()))
    with lab.load(side, "-f", path, "-u", "10000") as probe:
        probe.hear("ready")
        meanwhile()
        latencies = [float(word) / 1000 for word in probe.hear_all()]
    if len(latencies) < 10:
        raise BenchError(f"only {len(latencies)} probes were answered")
    return statistics.quantiles(latencies, n=100, method="inclusive")[98]


ROWS: tuple[Spec, ...] = (
    Spec(
        "handshake-c",
        (Figure("handshake-c", "us", Target(0.80, True, 0.65), "C on the system's OpenSSL"),),
        handshake_c,
    ),
    Spec(
        "handshake-ssl",
        (Figure("handshake-ssl", "us", Target(0.70, True, 0.58), "ssl, Protocol, uvloop"),),
        handshake_ssl,
    ),
    Spec(
        "issuance",
        (Figure("issuance", "/s", Target(0.45, False, 0.55), "bare verify + sign"),),
        issuance,
        needs=(),
    ),
    Spec(
        "issuance-service",
        (Figure("issuance-service", "/s", Target(0.9, False, 1.2), "cfssl serve authsign"),),
        issuance_service,
        needs=("cfssl",),
    ),
    Spec(
        "frames-200",
        (Figure("frames-200", "us", Target(4.5, True, 3.5), "raw TCP, uvloop"),),
        frames_200,
    ),
    Spec(
        "frames-ssl",
        (Figure("frames-ssl", "us", Target(1.2, True, 0.95), "ssl, Protocol, uvloop"),),
        frames_ssl,
    ),
    Spec(
        "pipelined",
        (Figure("pipelined", "/s", Target(0.45, False, 0.6), "raw TCP, uvloop"),),
        pipelined,
    ),
    Spec(
        "bulk-64k",
        (Figure("bulk-64k", "/s", Target(0.55, False, 0.75), "raw TCP, uvloop"),),
        bulk_64k,
    ),
    Spec(
        "resident-link",
        (Figure("resident-link", "KiB", Target(40, True, 34)),),
        resident_link,
    ),
    Spec(
        "resident-client",
        (Figure("resident-client", "KiB", Target(56, True, 44)),),
        resident_client,
    ),
    Spec("idle-client", (Figure("idle-client", "MiB", Target(52, True, 44)),), idle_client, ()),
    Spec("catch-up", (Figure("catch-up", "s", Target(0.3, True, 0.1)),), catch_up, ()),
    Spec(
        "registrations",
        (Figure("registrations", "/s", Target(0.6, False, 0.8), "bare handshakes"),),
        registrations,
    ),
    Spec(
        "storm",
        (
            Figure("storm", "ms p99", Target(5, True, 3), "idle"),
            Figure("storm-enrolled", "of all", Target(1, False)),
            Figure("storm-memory", "MiB more", Target(128, True)),
        ),
        storm,
    ),
)
"""Every row, in the order of the report."""
