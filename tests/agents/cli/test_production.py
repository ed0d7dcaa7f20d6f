"""What an operator does first, with real processes: server, bundle, client, another root.

Nothing is waited for by looking again and again: a daemon says when it is ready, and what it
does then is read from its log with `anchorline logs -f`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agents.runtime.clock import SystemClock
from tests.agents.cli.programs import Ended, call

PROGRAM = (sys.executable, "-m", "agents.cli.main")
PATIENCE = 60


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="anchorline-") as name:  # short: it holds sockets
        yield Path(name)


def configure(folder: Path, role: str, **options: object) -> Path:
    """Write a configuration with `config new`."""
    path = folder / f"{role}.toml"
    options = {"state": str(folder / role), "log": str(folder / f"{role}.log"), **options}
    given = [f"--set={name}={json.dumps(value)}" for name, value in options.items()]
    assert call(role, "config", "new", str(path), *given).code == 0
    return path


@dataclass(frozen=True)
class Running:
    """A daemon, and what it tells its supervisor."""

    process: subprocess.Popen[bytes]
    told: socket.socket

    def until(self, word: bytes) -> None:
        """Return when it has said this."""
        while word not in self.told.recv(4096):
            pass


@contextmanager
def daemon(folder: Path, role: str, config: Path) -> Iterator[Running]:
    """Run a daemon as systemd would; entered when it is ready, left when it has ended well."""
    notify = folder / f"{role}.notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.settimeout(PATIENCE)
        told.bind(str(notify))
        process = subprocess.Popen(
            [*PROGRAM, role, "run", "--config", str(config)],
            env={**os.environ, "NOTIFY_SOCKET": str(notify)},
        )
        running = Running(process, told)
        try:
            running.until(b"READY=1")
            yield running
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()


def read_log(path: Path, event: str, count: int) -> list[dict[str, Any]]:
    """Return the first so many lines of an event, once they are there."""
    words = [*PROGRAM, "logs", "-f", "--json", "--event", event, str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        try:
            return [json.loads(reader.stdout.readline()) for _ in range(count)]
        finally:
            reader.kill()


@pytest.mark.sockets
@pytest.mark.req("J6", "A1", "B1", "D3")
def test_from_nothing_to_a_rotated_root(folder: Path) -> None:
    api = folder / "api.sock"
    clock = SystemClock()

    def ask(*words: str, code: int = 0) -> Ended:
        ended = call(*words, socket=api, clock=clock)
        assert ended.code == code, ended.err
        return ended

    def rows(*words: str) -> Any:  # noqa: ANN401 - JSON
        return json.loads(ask(*words, "--json").out)

    server = configure(
        folder,
        "server",
        fqdn="srv.example",
        standby=str(folder / "standby"),
        socket=str(api),
        listen="127.0.0.1:0",
    )
    with ExitStack() as running:
        running.enter_context(daemon(folder, "server", server))
        assert ask("server", "healthcheck", "--config", str(server)).out == "ok\n"
        (root,) = rows("root", "list")
        assert root["name"] == "srv.example Root 0"

        bundle = folder / "anchorline-init.dat"
        exported = rows("bundle", "export", str(bundle))
        client = configure(
            folder,
            "client",
            listen="127.0.0.1:0",
            bundle=str(bundle),
            expect_fingerprint=exported["fingerprint"],
        )
        nowhere = run("client", "run", "--config", str(client))
        assert nowhere.returncode == 3
        assert "no server to report to" in nowhere.stderr
        # Neither told by hand: the next bundle says where to connect, and how much to log.
        bundle.unlink()
        names = f"ServerNameList={rows('status')['server']['listen']}"
        ask("bundle", "export", str(bundle), "--set", names, "--set", "log_level=debug")
        running.enter_context(daemon(folder, "client", client))
        read_log(folder / "server.log", "client.registered", 1)
        (known,) = rows("clients", "list")
        (shown,) = rows("pki", "show", "--state", str(folder / "client"))
        assert known["id"] == shown["report"]["id"]
        assert known["valid_key"] is True
        assert '"level":"debug"' in (folder / "client.log").read_text()

        # Asked for, not yet due: the second certificate is another one.
        ask("client", "renew", "--now", "--config", str(client))
        first, second = read_log(folder / "client.log", "key.activated", 2)
        assert first["fingerprint"] != second["fingerprint"]

        ask("root", "new", code=2)
        assert rows("root", "new", "--yes")["root"]["name"] == "srv.example Root 1"
        *_, third = read_log(folder / "client.log", "key.activated", 3)
        assert third["root"] == rows("root", "list")[1]["fingerprint"]
        refused = ask("root", "revoke", "srv.example Root 0", "--reason", "test", "--yes", code=1)
        assert "--key-in-doubt" in refused.err

    for role, config in (("server", server), ("client", client)):
        ended = call(role, "healthcheck", "--config", str(config), clock=clock)
        assert (ended.code, ended.out) == (1, "down\n")
    assert not api.exists()
    # What was is still there to be read.
    (down,) = json.loads(
        call("pki", "show", "--json", "--state", str(folder / "client"), clock=clock).out
    )
    assert down["running"] is None
    assert [slot["n"] for slot in down["ledger"]] == [1]


@pytest.mark.sockets
def test_a_second_daemon_on_the_same_state_is_refused(folder: Path) -> None:
    options = {"standby": str(folder / "standby"), "listen": "127.0.0.1:0"}
    server = configure(folder, "server", socket=str(folder / "api.sock"), **options)
    with daemon(folder, "server", server) as first:
        second = run("server", "run", "--config", str(server))
        assert second.returncode == 3
        assert f"in use by process {first.process.pid}" in second.stderr
        assert call("status", socket=folder / "api.sock").code == 0


@pytest.mark.sockets
@pytest.mark.req("K1")
def test_a_log_file_that_was_moved_away_is_opened_again(folder: Path) -> None:
    options = {"standby": str(folder / "standby"), "listen": "127.0.0.1:0"}
    server = configure(folder, "server", socket=str(folder / "api.sock"), **options)
    log, moved = folder / "server.log", folder / "server.log.1"
    with daemon(folder, "server", server) as running:
        log.rename(moved)
        running.process.send_signal(signal.SIGHUP)
        running.until(b"RELOADING=1")
        running.until(b"READY=1")
        (line,) = map(json.loads, log.read_text().splitlines())
        assert line["event"] == "daemon.reloaded"
        assert log.stat().st_mode & 0o777 == 0o600
        # In a folder that takes no file, the old one stays in use.
        log.rename(folder / "server.log.2")
        log.mkdir()
        running.process.send_signal(signal.SIGHUP)
        running.until(b"READY=1")
        last = json.loads((folder / "server.log.2").read_text().splitlines()[-1])
        assert last["event"] == "daemon.reload_refused"
        log.rmdir()


@pytest.mark.sockets
@pytest.mark.req("D4")
@pytest.mark.parametrize("role", ["client", "hub", "zone-server"])
def test_without_a_bundle_a_daemon_says_how_to_get_one(folder: Path, role: str) -> None:
    config = configure(folder, role, bundle=str(folder / "none.dat"))
    ended = run(role, "run", "--config", str(config))
    assert ended.returncode == 3
    assert "anchorline: hint: " in ended.stderr
    assert "bundle export" in ended.stderr


def run(*words: str) -> subprocess.CompletedProcess[str]:
    whole: Sequence[str] = [*PROGRAM, *words]
    return subprocess.run(whole, capture_output=True, text=True, check=False, timeout=PATIENCE)
