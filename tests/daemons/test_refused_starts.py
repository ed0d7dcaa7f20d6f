"""What a start is refused for: what is wrong, what to do, its exit code, and nothing lost."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from agents.runtime.errors import Exit
from tests.support.daemons import Daemon, Site, taken_port

pytestmark = pytest.mark.sockets

NOBODY = 65534


@pytest.fixture(scope="module")
def running(make_site: Callable[[], Site]) -> Site:
    """A server that runs, and a bundle of it. No test here may end it."""
    site = make_site()
    site.start_server()
    return site


@pytest.fixture
def client(running: Site, request: pytest.FixtureRequest) -> Daemon:
    """A client that has not been started."""
    number = len(running.daemons)
    return running.add_client(f"client-{number}", 10 + number)


@dataclass(frozen=True)
class Refusal:
    """How a start was refused."""

    code: int
    error: str
    hint: str


def refused(daemon: Daemon) -> Refusal:
    """Start a daemon, and return what it says when it does not."""
    daemon.launch()
    assert daemon.process is not None
    code = daemon.process.wait()
    rows = daemon.output.all().splitlines()
    errors = [at for at, row in enumerate(rows) if row.startswith("anchorline: error: ")]
    hints = [at for at, row in enumerate(rows) if row.startswith("anchorline: hint: ")]
    assert len(errors) == 1, rows
    assert "Traceback" not in "\n".join(rows)
    end = hints[0] if hints else len(rows)
    error = "\n".join(rows[errors[0] : end]).removeprefix("anchorline: error: ")
    return Refusal(code, error, rows[end].removeprefix("anchorline: hint: ") if hints else "")


class TestConfiguration:
    @pytest.mark.parametrize("role", ["server", "client"])
    def test_five_mistakes_are_told_at_once(self, site: Site, role: str) -> None:
        daemon = site.server if role == "server" else site.add_client("client", 11)
        mistakes: dict[str, dict[str, object]] = {
            "server": {
                "listen": "nowhere:port",
                "registration_seconds": "often",
                "pending_seconds": 0,
                "sockett": "/run/x",
                "fqdn": 5,
            },
            "client": {
                "servers": "a",
                "listen": f"{site.address(11)}:70000",
                "registration_min": -1,
                "pings": 1,
                "ping": "fast",
            },
        }
        daemon.configure(**mistakes[role])
        said = refused(daemon)
        assert said.code == Exit.USAGE
        assert said.error.startswith(f"5 problems in {daemon.config}")
        for name in mistakes[role]:
            assert f"\n  {name}: " in said.error, said.error
        assert not daemon.state.exists()

    def test_the_nearest_name_is_offered(self, site: Site) -> None:
        site.server.configure(sockett="/run/x")
        said = refused(site.server)
        assert "sockett" in said.error
        assert "socket" in said.error.replace("sockett", "")

    def test_no_configuration(self, site: Site) -> None:
        said = refused(site.add_client("client", 11))
        assert said.code == Exit.REFUSED  # there is one, and no bundle
        site.server.config.unlink()
        said = refused(site.server)
        assert said.code == Exit.USAGE
        assert str(site.server.config) in said.error


class TestBundle:
    @pytest.mark.req("D4")
    def test_no_bundle(self, client: Daemon) -> None:
        missing = client.folder / "none.dat"
        client.configure(bundle=str(missing))
        said = refused(client)
        assert said.code == Exit.REFUSED
        assert said.error == f"no init bundle at {missing}"
        assert "anchorline bundle export" in said.hint
        assert left(client) == set()

    @pytest.mark.req("D4")
    @pytest.mark.parametrize("role", ["hub", "zone-server"])
    def test_no_bundle_at_others(self, site: Site, role: str) -> None:
        daemon = site.add_hub("x", "127.0.0.1:9") if role == "hub" else site.add_zone("x", 2)
        said = refused(daemon)
        assert said.code == Exit.REFUSED
        assert said.error == f"no init bundle at {site.bundle}"
        assert "anchorline bundle export" in said.hint

    @pytest.mark.req("D5")
    @pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.5, 0.9, 0.999])
    def test_a_bundle_that_was_cut(self, running: Site, client: Daemon, part: float) -> None:
        whole = running.bundle.read_bytes()
        given = give(client, whole[: int(len(whole) * part)])
        said = refused(client)
        assert said.code == Exit.REFUSED
        assert said.error.startswith(f"init bundle {given} is refused: ")
        assert "anchorline bundle export" in said.hint
        assert left(client) == set()

    @pytest.mark.req("D5")
    @pytest.mark.parametrize("part", [0.0, 0.02, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999])
    def test_a_bundle_with_one_flipped_bit(
        self, running: Site, client: Daemon, part: float
    ) -> None:
        damaged = bytearray(running.bundle.read_bytes())
        damaged[int(len(damaged) * part)] ^= 0x10
        give(client, bytes(damaged))
        said = refused(client)
        assert said.code == Exit.REFUSED
        assert "is refused" in said.error
        assert left(client) == set()

    @pytest.mark.req("D5")
    def test_a_bundle_with_something_behind_it(self, running: Site, client: Daemon) -> None:
        give(client, running.bundle.read_bytes() + b"\0")
        assert refused(client).code == Exit.REFUSED
        assert left(client) == set()

    @pytest.mark.req("D5")
    def test_another_deployment_than_demanded(
        self, running: Site, site: Site, client: Daemon
    ) -> None:
        site.start_server()
        ours, theirs = (fingerprint(one) for one in (running, site))
        client.configure(bundle=str(site.bundle), expect_fingerprint=ours)
        said = refused(client)
        assert said.code == Exit.REFUSED
        assert theirs in said.error
        assert f"expected {ours}" in said.error
        assert "fingerprint" in said.hint
        assert left(client) == set()
        # With the right one it starts: nothing of the wrong one is left.
        client.configure(bundle=str(running.bundle)).start()
        assert client.lines("bundle.imported")[0]["deployment_fingerprint"] == ours

    @pytest.mark.req("D5")
    def test_another_deployment_than_the_state_is_of(self, site: Site, client: Daemon) -> None:
        client.start()
        client.wait("key.activated")
        assert client.stop() == 0
        before = client.status()
        site.start_server()
        client.configure(bundle=str(site.bundle)).start()
        # Not needed any more, and so no end: it is refused, and said.
        line = client.wait("bundle.refused")
        assert "the state is not" in line["reason"]
        assert "remove the bundle" in line["hint"]
        assert client.lines("bundle.imported") == []
        assert client.stop() == 0
        after = client.status()
        assert after["pid"] != before["pid"]
        for name in ("id", "deployment", "roots"):
            assert after[name] == before[name]

    def test_once_imported_a_bundle_is_not_needed(self, running: Site, client: Daemon) -> None:
        client.start()
        client.wait("key.activated")
        client.configure(bundle=str(client.folder / "gone.dat"))
        client.restart()
        assert client.status()["id"] == client.lines("daemon.started")[0]["id"]


class TestSomebodyElse:
    def test_a_port_in_use(self, site: Site) -> None:
        site.server.start()
        before = site.api.get("roots")
        assert site.server.stop() == 0
        with taken_port(site.address(1), site.port):
            said = refused(site.server)
        assert said.code == Exit.REFUSED
        assert said.error == (f"cannot listen on {site.address(1)}:{site.port}: the port is in use")
        assert "another port" in said.hint
        site.server.start()
        assert site.api.get("roots") == before

    def test_a_clients_port_in_use(self, running: Site, client: Daemon) -> None:
        address, _, port = str(client.options["listen"]).partition(":")
        with taken_port(address, int(port)):
            said = refused(client)
        assert said.code == Exit.REFUSED
        assert "the port is in use" in said.error
        client.start()

    @pytest.mark.parametrize("role", ["server", "client"])
    def test_a_second_daemon_on_the_same_state(
        self, running: Site, client: Daemon, role: str
    ) -> None:
        first = running.server if role == "server" else client.start()
        second = running.add(role, f"second-{role}")
        second.options = {**first.options, "listen": f"{running.address(250)}:0"}
        second.configure()
        said = refused(second)
        assert said.code == Exit.REFUSED
        assert said.error == f"state directory {first.state} is in use by process {first.pid}"
        assert f"kill {first.pid}" in said.hint
        assert first.running
        assert running.api.get("status")["can_sign"]

    def test_a_state_directory_of_another_role(self, running: Site, client: Daemon) -> None:
        client.start()
        client.wait("key.activated")
        assert client.stop() == 0
        hub = running.add_hub("as-hub", "127.0.0.1:9").configure(state=str(client.state))
        said = refused(hub)
        assert said.code == Exit.REFUSED
        assert "client" in said.error
        client.start()

    def test_a_state_directory_of_another_user(self, running: Site, client: Daemon) -> None:
        folder = somebody_elses(client.state)
        owner = folder.stat().st_uid
        before = set(folder.iterdir())
        client.configure(state=str(folder))
        said = refused(client)
        assert said.code == Exit.REFUSED
        assert f"{folder} belongs to uid {owner}" in said.error
        assert f"uid {owner}" in said.hint
        assert set(folder.iterdir()) == before

    @pytest.mark.parametrize("mode", [0o750, 0o770, 0o701])
    def test_a_state_directory_that_others_may_enter(
        self, running: Site, client: Daemon, mode: int
    ) -> None:
        client.state.mkdir(mode=0o700)
        client.state.chmod(mode)
        said = refused(client)
        assert said.code == Exit.REFUSED
        assert f"has mode {mode:04o}" in said.error
        assert said.hint == f"chmod 700 {client.state}"
        assert left(client) == set()

    def test_a_standby_folder_that_others_may_enter(self, site: Site) -> None:
        standby = site.folder / "standby"
        standby.mkdir()
        standby.chmod(0o750)
        said = refused(site.server)
        assert said.code == Exit.REFUSED
        assert str(standby) in said.error
        assert said.hint


class TestWhatIsMissing:
    def test_keys_without_their_ledger_are_no_new_deployment(self, site: Site) -> None:
        site.server.start()
        assert site.server.stop() == 0
        keep = site.folder / "keep"
        shutil.copytree(site.server.state, keep)
        for path in site.server.state.glob("ledger*"):
            path.unlink()
        said = refused(site.server)
        assert said.code == Exit.REFUSED
        assert "ledger is missing" in said.error
        assert "restore" in said.hint
        for path in keep.glob("ledger*"):
            shutil.copy(path, site.server.state)
        site.server.start()

    @pytest.mark.req("C4")
    @pytest.mark.parametrize("name", ["pki.db", "pki.key"])
    def test_a_ledger_without_its_keys_gets_no_new_ones(self, site: Site, name: str) -> None:
        site.server.start()
        before = site.api.get("roots")
        assert site.server.stop() == 0
        (site.server.state / name).rename(site.folder / name)
        said = refused(site.server)
        assert said.code == Exit.REFUSED
        assert name in said.error
        assert "restore" in said.hint
        assert not (site.server.state / name).exists()
        (site.folder / name).rename(site.server.state / name)
        site.server.start()
        assert site.api.get("roots") == before

    @pytest.mark.req("C4")
    def test_the_wrong_key_file_is_told_from_damage(self, site: Site) -> None:
        site.server.start()
        assert site.server.stop() == 0
        path = site.server.state / "pki.key"
        right = path.read_bytes()
        path.write_bytes(bytes(32))
        wrong = refused(site.server)
        path.write_bytes(right)
        store = site.server.state / "pki.db"
        whole = store.read_bytes()
        store.write_bytes(whole[:-5])
        damaged = refused(site.server)
        store.write_bytes(whole)
        assert wrong.code == damaged.code == Exit.REFUSED
        assert "does not open" in wrong.error
        assert "damaged" in damaged.error
        site.server.start()

    def test_a_log_file_that_cannot_be_written(self, running: Site, client: Daemon) -> None:
        path = client.folder / "none" / "log"
        client.configure(log=str(path))
        said = refused(client)
        assert said.code == Exit.REFUSED
        assert str(path) in said.error
        assert said.hint

    def test_no_server_for_a_command(self, site: Site) -> None:
        ended = site.call("status", json_=False)
        assert ended.code == Exit.ERROR
        assert ended.out == ""
        assert ended.err.startswith(f"anchorline: error: no server answers at {site.socket}")
        assert "anchorline: hint: " in ended.err


def test_the_program_itself_refuses_the_same(site: Site) -> None:
    """Not forked from warm imports: the command as an operator starts it."""
    client = site.add_client("client", 11)
    program = Path(sys.executable).parent / "anchorline"
    ended = subprocess.run(
        [program, "client", "run", "--config", client.config],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == Exit.REFUSED
    assert f"anchorline: error: no init bundle at {site.bundle}" in ended.stderr


def give(client: Daemon, data: bytes) -> Path:
    """Give a client a bundle of its own."""
    path = client.folder / "given.dat"
    path.write_bytes(data)
    client.configure(bundle=str(path))
    return path


def left(daemon: Daemon) -> set[str]:
    """What a refused start has left in the state directory, beside the lock that it gave back."""
    found = {path.name for path in daemon.state.iterdir()} if daemon.state.exists() else set()
    return found - {"lock"}


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, which says who holds it."""
    files = (path for path in folder.iterdir() if path.is_file() and path.name != "lock")
    return {path.name: path.read_bytes() for path in files}


def fingerprint(site: Site) -> str:
    found = site.api.get("status")["fingerprint"]
    assert isinstance(found, str)
    return found


def somebody_elses(folder: Path) -> Path:
    """A folder of another user: given away by root, found by anybody else."""
    if os.geteuid() != 0:
        return Path("/usr")
    folder.mkdir(mode=0o700)
    shutil.chown(folder, NOBODY)
    return folder
