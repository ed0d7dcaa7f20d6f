"""What rows are measured with: built programs, a deployment, and sides at their cores."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import cfssl, frames
from bench.deployment import ENROLLERS, Deployment
from bench.process import BenchError, Cores, Load, Process
from pki import certificates

__all__ = [
    "FULL",
    "QUICK",
    "Command",
    "Lab",
    "Side",
    "Sizes",
    "build",
    "missing",
    "until_registered",
]

Command = list[str | Path]
"""A program and its arguments."""

HERE = Path(__file__).parent
SOURCES = 32
"""Addresses that a load comes from: a listener bounds the connections of each."""
PYTHON = sys.executable


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything a run does."""

    rounds: int
    handshakes: int
    """A round, for each side."""
    exchanges: int
    """Small frames a round, over 64 connections."""
    pipelined: int
    """Frames a round, each 32 in flight, over 8 connections."""
    bulk: int
    """64 KiB frames a round, over 8 connections."""
    resident: int
    """Connections whose memory is counted."""
    issues: int
    catch_up: int
    """Rotations, and as many revocations."""
    registrations: int
    storm: int
    """Clients that enrol at once."""
    probing: float
    """Seconds in which the idle latency is measured."""

    @property
    def clients(self) -> int:
        """Identities that have to be there."""
        return max(self.handshakes, self.resident, self.registrations, ENROLLERS)


FULL = Sizes(
    rounds=5,
    handshakes=1200,  # each with a certificate of its own; the first hundred warm up
    exchanges=64 * 150,
    pipelined=8 * 4000,
    bulk=8 * 250,
    resident=2000,
    issues=ENROLLERS * 40,
    catch_up=100,
    registrations=1200,
    storm=2000,
    probing=8.0,
)
QUICK = Sizes(
    rounds=1,
    handshakes=100,
    exchanges=64 * 20,
    pipelined=8 * 400,
    bulk=8 * 20,
    resident=100,
    issues=ENROLLERS * 4,
    catch_up=5,
    registrations=100,
    storm=100,
    probing=1.0,
)


def missing(components: Sequence[str]) -> list[str]:
    """Those of these components that this machine has not."""
    return [one for one in components if not _has(one)]


def _has(component: str) -> bool:
    if component == "libssl-dev":
        source = "#include <openssl/ssl.h>\n"
        command = ["gcc", "-E", "-x", "c", "-", "-o", "/dev/null"]
        found = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
        return found.returncode == 0
    return shutil.which(component) is not None


def build(folder: Path) -> None:
    """Compile the C programs.

    Raises:
        BenchError: They do not compile.
    """
    for name in ("load", "server"):
        source, target = HERE / "c" / f"{name}.c", folder / f"c-{name}"
        options = ["-O2", "-Wall", "-Wextra", "-Werror", "-o", str(target)]
        command = ["gcc", *options, str(source), "-lssl", "-lcrypto"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchError(f"{source.name} does not compile:\n{done.stderr}")


@dataclass(frozen=True, slots=True)
class Side:
    """A server that is up, at its core."""

    process: Process
    port: int


class Lab:
    """Starts what rows compare.

    Args:
        folder: Everything of this run lies here.
        sizes: How much is done.
        cores: Where servers and loads run.
    """

    def __init__(self, folder: Path, sizes: Sizes, cores: Cores) -> None:
        self.folder = folder
        self.sizes = sizes
        self.cores = cores
        self.deployment = Deployment(folder / "deployment")
        self._copies = 0

    def prepare(self) -> None:
        """Make the deployment and the frames."""
        make = self.python("bench.deployment", self.deployment.folder, str(self.sizes.clients))
        with self.run(make, core=self.cores.load) as process:
            process.hear("made")
        cfssl.prepare(self.folder)

    def python(self, module: str, *arguments: str | Path) -> Command:
        """The command of a module of the benchmark."""
        return [PYTHON, "-m", module, *arguments]

    def run(self, command: Sequence[str | Path], *, core: int, nice: int = 0) -> Process:
        """Start a program."""
        return Process(command, core=core, log=self.folder / "errors.log", nice=nice)

    def first_client(self) -> bytes:
        """Id of the client that a load with one connection is."""
        first = json.loads(self.deployment.enrollers.read_text())[0]
        name = certificates.read(bytes.fromhex(first["chain"][0])).name
        assert name is not None  # we have issued it
        return name.id

    def frame(self, name: str, content: bytes) -> Path:
        """Keep a frame in a file."""
        return frames.write(self.folder, name, content)

    # --- sides

    @contextmanager
    def server(self, kind: str) -> Iterator[Side]:
        """One of `bench.servers`."""
        command = self.python("bench.servers", kind, self.deployment.folder)
        with self.copied() as deployment:
            command[-1] = deployment.folder
            with self.run(command, core=self.cores.server) as process:
                yield Side(process, int(process.hear("port")[0]))

    @contextmanager
    def c_server(self) -> Iterator[Side]:
        """The server on the system's OpenSSL."""
        command: Command = [self.folder / "c-server", *self.deployment.pems]
        with self.run(command, core=self.cores.server) as process:
            yield Side(process, int(process.hear("port")[0]))

    @contextmanager
    def daemon(self) -> Iterator[Side]:
        """The product as it is installed: `anchorline server run`, with a store of its own."""
        port = _free_port()
        with self.copied() as deployment:
            deployment.write_config(port)
            program = Path(PYTHON).with_name("anchorline")
            command: Command = [program, "server", "run", "--config", deployment.config]
            with self.run(command, core=self.cores.server) as process:
                _until_listening(process, port)
                yield Side(process, port)

    @contextmanager
    def cfssl(self) -> Iterator[Side]:
        """`cfssl serve`."""
        port = _free_port()
        command = cfssl.command(self.folder, port)
        with self.run(command, core=self.cores.server) as process:
            _until_listening(process, port)
            yield Side(process, port)

    @contextmanager
    def copied(self) -> Iterator[Deployment]:
        """The deployment as it was made, for one server: what it changes is thrown away."""
        self._copies += 1
        copy = Deployment(self.folder / f"copy-{self._copies}")
        shutil.copytree(self.deployment.folder, copy.folder)
        yield copy
        shutil.rmtree(copy.folder)

    # --- loads

    def load(
        self, side: Side, *options: str | Path, tls: bool = True, hub: bool = False
    ) -> Process:
        """`c/load.c` at this side, at the core of loads."""
        identities = self.deployment.hub if hub else self.deployment.clients
        shown: list[str | Path] = ["-i", identities] if tls else []
        command: Command = [self.folder / "c-load", "-p", str(side.port), *shown, *options]
        return self.run(command, core=self.cores.load)

    def handshakes(self, side: Side, count: int) -> float:
        """Seconds of the server's processor for each of so many connections, made and ended."""
        before = side.process.cpu()
        options = ["-n", str(count), "-c", "16", "-s", str(SOURCES)]
        with self.load(side, *options) as load:
            Load.of(load)
        time.sleep(0.05)  # the last one is still being ended
        return (side.process.cpu() - before) / count

    def exchanges(
        self,
        side: Side,
        frame: Path,
        *,
        links: int,
        count: int,
        window: int,
        tls: bool = True,
        hub: bool = False,
    ) -> float:
        """Seconds of the server's processor for each of `count` frames that were answered."""
        options: Command = ["-n", str(links), "-c", "16", "-s", str(SOURCES), "-f", frame, "-g"]
        more = ["-r", str(count // links), "-w", str(window)]
        with self.load(side, *options, *more, tls=tls, hub=hub) as load:
            load.hear("ready")
            time.sleep(0.05)
            return self.cost(side, lambda: self._go(load)) / (count // links * links)

    def cost(self, side: Side, work: Callable[[], object]) -> float:
        """Seconds of the server's processor while something is done."""
        before = side.process.cpu()
        work()
        return side.process.cpu() - before

    def _go(self, load: Process) -> Load:
        load.say()
        return Load.of(load)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until_listening(process: Process, port: int) -> None:
    until = time.perf_counter() + 30
    while time.perf_counter() < until and process.alive:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise BenchError(f"{process.name} does not listen: see {process.log}")


def until_registered(state: Path, process: Process) -> None:
    """Wait until a real client says in its report that it has registered.

    Raises:
        BenchError: It does not.
    """
    until = time.perf_counter() + 60
    while time.perf_counter() < until and process.alive:
        try:
            if json.loads((state / "status.json").read_text())["registrations"] > 0:
                return
        except (FileNotFoundError, ValueError, KeyError):
            pass
        time.sleep(0.1)
    raise BenchError(f"a client does not register: see {process.log}")
