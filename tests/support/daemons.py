"""A real deployment of real processes, and what can be seen of it from outside.

    with Site(nursery, tmp_path) as site:
        site.start_server()
        client = site.start_client("client-1")
        client.wait("client.registered" ...)

A daemon logs to a pipe that a thread reads, so a test waits for the line that it needs and for
nothing else: no file is polled and nobody sleeps. Each site has a /24 of loopback of its own, so
ports never clash.
"""

import itertools
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agents.cli.api import Client
from tests.support.nursery import PATIENCE, Nursery, Process

__all__ = ["Daemon", "Ended", "Line", "Site"]

Line = Mapping[str, Any]
PORT: Final = 14172
_networks = itertools.count()


@dataclass(frozen=True)
class Ended:
    """A program that has come to its end."""

    code: int
    out: str
    err: str


class Output:
    """What comes out of a pipe, line by line, as it comes."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.text: list[str] = []
        """Lines that are no log lines: what is told to people."""
        self._news = threading.Condition()
        self._ended = False
        reading, self.handle = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._read, args=(reading,), daemon=True)
        self._thread.start()

    def started(self) -> None:
        """The program has its end of the pipe: ours is not needed."""
        os.close(self.handle)

    def wait(self, claim: Callable[[Line], bool], start: int, what: str) -> Line:
        """The first line from `start` on for which the claim is true, as soon as there is one."""
        found: list[Line] = []

        def look() -> bool:
            nonlocal start
            for line in self.lines[start:]:
                start += 1
                if claim(line):
                    found.append(line)
                    return True
            return self._ended

        with self._news:
            self._news.wait_for(look, PATIENCE)
            assert found, f"no line {what}; the last: {self.lines[-12:]} {self.text[-12:]}"
            return found[0]

    def all(self) -> str:
        """Everything, after the end of the program."""
        self._thread.join(PATIENCE)
        return "\n".join(self.text)

    def _read(self, handle: int) -> None:
        with os.fdopen(handle, encoding="utf-8", errors="replace") as stream:
            for row in stream:
                with self._news:
                    if row.startswith('{"ts"'):
                        self.lines.append(json.loads(row))
                    else:
                        self.text.append(row.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


class Daemon:
    """One component, over all of its runs."""

    def __init__(self, nursery: Nursery, role: str, name: str, folder: Path) -> None:
        self._nursery = nursery
        self.role = role
        self.name = name
        self.folder = folder
        self.state = folder / "state"
        self.config = folder / "config.toml"
        self.options: dict[str, object] = {"state": str(self.state)}
        self.output = Output.__new__(Output)
        self.process: Process | None = None
        self.past: list[Output] = []
        """What earlier runs have said."""
        folder.mkdir(mode=0o700)

    def configure(self, **options: object) -> "Daemon":
        """Write its configuration."""
        self.options.update(options)
        # What JSON writes for a text, a number or a list of texts is TOML as well.
        rows = [f"{name} = {json.dumps(value)}" for name, value in self.options.items()]
        self.config.write_text("\n".join(rows) + "\n")
        return self

    def launch(self) -> "Daemon":
        """Start it, and wait for nothing."""
        if self.process is not None:
            assert not self.process.running
            self.past.append(self.output)
        self.output = Output()
        self.process = self._nursery.start(
            [self.role, "run", "--config", str(self.config)],
            out=self.output.handle,
            err=self.output.handle,
        )
        self.output.started()
        return self

    def start(self) -> "Daemon":
        """Start it, and wait until it says that it is ready."""
        self.launch()
        self.wait("daemon.started")
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it, and return its exit code."""
        assert self.process is not None
        self.process.signal(number)
        return self.process.wait()

    def kill(self) -> None:
        """End it without a word."""
        assert self.stop(signal.SIGKILL) == -signal.SIGKILL

    def restart(self) -> "Daemon":
        """Stop it in order, and start it again."""
        assert self.stop() == 0, self.output.text
        return self.start()

    @property
    def pid(self) -> int:
        """Process id of the present run."""
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process is not None and self.process.running

    @property
    def mark(self) -> int:
        """How many lines there are: `wait(..., after=mark)` looks at later ones."""
        return len(self.output.lines)

    def lines(self, event: str, **fields: object) -> list[Line]:
        """The lines of the present run so far."""
        return [line for line in list(self.output.lines) if _fits(line, event, fields)]

    def wait(self, event: str, *, after: int = 0, **fields: object) -> Line:
        """The first line with this event and these fields."""
        return self.output.wait(
            lambda line: _fits(line, event, fields), after, f"{event} {fields} of {self.name}"
        )

    def status(self) -> dict[str, Any]:
        """What its status.json says."""
        found = json.loads((self.state / "status.json").read_text())
        assert isinstance(found, dict)
        return found

    def everything_said(self) -> str:
        """All log lines and texts of all runs."""
        outputs = [*self.past, *([self.output] if self.process is not None else [])]
        return "\n".join(
            row
            for output in outputs
            for row in [*(json.dumps(line) for line in output.lines), *output.text]
        )


def _fits(line: Line, event: str, fields: Mapping[str, object]) -> bool:
    return line["event"] == event and all(
        value(line.get(name)) if callable(value) else line.get(name) == value
        for name, value in fields.items()
    )


@dataclass
class Site:
    """The components of one deployment."""

    nursery: Nursery
    folder: Path
    daemons: dict[str, Daemon] = field(default_factory=dict)
    network: str = ""

    def __post_init__(self) -> None:
        number = next(_networks)
        assert number < 250
        self.network = f"127.{1 + os.getpid() % 250}.{1 + number}"
        self.port = PORT + os.getpid() // 250 % 1000 * 2
        self.server = self._daemon("server", "server").configure(
            fqdn="server.test",
            standby=str(self.folder / "standby"),
            listen=f"{self.address(1)}:{self.port}",
            socket=str(self.socket),
            registration_seconds=2,
            pending_seconds=1,
        )
        self.bundle = self.folder / "init.dat"
        self.api = Client(self.socket)

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, *_exc: object) -> None:
        for daemon in self.daemons.values():
            if daemon.running:
                daemon.kill()

    @property
    def socket(self) -> Path:
        """Where the administration API listens."""
        return self.folder / "server.sock"

    def address(self, host: int) -> str:
        """A loopback address of this site."""
        return f"{self.network}.{host}"

    def start_server(self) -> Daemon:
        """First start of the server; exports the bundle that the others start from."""
        self.server.start()
        self.export()
        return self.server

    def export(self, **settings: str) -> bytes:
        """Download an init bundle as an administrator does."""
        data, _ = self.api.download("bundle", settings=settings)
        self.bundle.write_bytes(data)
        return data

    def add(self, role: str, name: str, **options: object) -> Daemon:
        """A component that has a configuration and was not started."""
        daemon = self._daemon(role, name)
        return daemon.configure(bundle=str(self.bundle), **options)

    def add_client(self, name: str, host: int, **options: object) -> Daemon:
        """A client of the server at an address of its own, not started."""
        given: dict[str, object] = {
            "servers": [f"{self.address(1)}:{self.port}"],
            "listen": f"{self.address(host)}:{self.port}",
            "source": self.address(host),
            "host": name,
            "registration_min": 1,
            "registration_max": 2,
            "ping": 1,
        }
        return self.add("client", name, **(given | options))

    def add_zone(self, name: str, host: int) -> Daemon:
        """A zone server, not started."""
        return self.add(
            "zone-server",
            name,
            listen=f"{self.address(host)}:{self.port}",
            hub_listen=f"{self.address(host)}:{self.port + 1}",
            registration_seconds=2,
        )

    def add_hub(self, name: str, *zones: str) -> Daemon:
        """A hub of the server, not started."""
        return self.add(
            "hub",
            name,
            server=f"{self.address(1)}:{self.port}",
            zone_servers=list(zones),
        )

    def approve(self, role: str, count: int = 1) -> None:
        """Approve components of a role as soon as so many of them wait for it."""
        for _ in range(count):
            self.server.wait(
                "approval.pending",
                peer_role=role,
                fingerprint=lambda fp: self._decide(str(fp)),
            )

    def _decide(self, fingerprint: str) -> bool:
        state = {row["fingerprint"]: row["state"] for row in self.api.get("approvals")}
        if state.get(fingerprint) != "pending":
            return False
        self.api.post("approvals", fingerprint, "approve", reason="test")
        return True

    def call(self, *words: str, json_: bool = True) -> Ended:
        """Run a command as a process, and wait for its end."""
        out, err = Output(), Output()
        options = ["--socket", str(self.socket), *(["--json"] if json_ else [])]
        process = self.nursery.start([*options, *words], out=out.handle, err=err.handle)
        out.started()
        err.started()
        code = process.wait()
        return Ended(code, out.all(), err.all())

    def _daemon(self, role: str, name: str) -> Daemon:
        daemon = Daemon(self.nursery, role, name, self.folder / name)
        self.daemons[name] = daemon
        return daemon


@contextmanager
def taken_port(address: str, port: int) -> Iterator[socket.socket]:
    """A port that somebody else listens on."""
    with socket.create_server((address, port)) as other:
        yield other
