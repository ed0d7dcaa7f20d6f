"""Commands that need no server: bundles, keys, certificates, a word to a client."""

import asyncio
import json
import os
import re
import shlex
import socket
import stat
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from agents.cli.control import ask
from agents.client.control import serve_control
from agents.runtime.errors import AgentError, UnavailableError
from agents.runtime.files import DISK, TwoGenerations
from agents.runtime.lock import lock_state
from pki import trust
from pki.bundle import make_bundle, open_bundle
from pki.state import encode_state
from protocol.tls import server_context
from tests.agents.cli.programs import call
from tests.pki.lineage import DEPLOYMENT, head, honest, key, kid
from tests.support.certs import Authority
from tests.support.clock import START

CHAIN = honest(3, revoked=[0])
BUNDLE = make_bundle(
    key(2), [CHAIN], [head(CHAIN, 2)], {"ServerNameList": "a.example, b.example:9"}
)


# --- bundle inspect


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "anchorline-init.dat"
    path.write_bytes(BUNDLE)
    return path


def fingerprint(file: Path) -> str:
    found: str = json.loads(call("bundle", "inspect", "--json", str(file)).out)["fingerprint"]
    return found


@pytest.mark.req("D5")
def test_a_bundle_shows_its_fingerprint_its_roots_and_what_to_type_next(file: Path) -> None:
    ended = call("bundle", "inspect", str(file))
    assert ended.code == 0
    assert f"deployment fingerprint {fingerprint(file)}" in ended.out
    assert f"deployment {DEPLOYMENT.hex()}" in ended.out
    states = re.findall(r"^s\.example Root \d +([0-9a-f]{64}) .* (\w+)$", ended.out, re.MULTILINE)
    expected = zip(range(3), ("revoked", "active", "newest"), strict=True)
    assert states == [(kid(n).hex(), state) for n, state in expected]
    assert "setting ServerNameList = a.example, b.example:9" in ended.out
    assert re.search(
        r"^slot [0-9a-f]{64}, 4 entries, the last of \S+ \S+Z$", ended.out, re.MULTILINE
    )


def test_the_command_for_the_next_machine_works(file: Path, tmp_path: Path) -> None:
    found = json.loads(call("bundle", "inspect", "--json", str(file)).out)
    program, *words = shlex.split(found["next"][0])
    assert program == "anchorline"
    target = tmp_path / "client.toml"
    place = words.index("/etc/anchorline/client.toml")
    words[place] = str(target)
    assert call(*words).code == 0
    read = tomllib.loads(target.read_text())
    assert read["servers"] == ["a.example:14172", "b.example:9"]
    assert read["expect_fingerprint"] == fingerprint(file)


NOBODY = "no server is named in the bundle: this one made s.example Root 2"
BARE = "no port is named for {}: the default applies, 14172"


@pytest.mark.parametrize(
    ("settings", "servers", "assumed"),
    [
        ({}, ["s.example:14172"], [NOBODY, BARE.format("s.example")]),
        ({"port": "9"}, ["s.example:9"], [NOBODY]),
        ({"ServerNameList": "a:14172, b:1"}, ["a:14172", "b:1"], []),
        (
            {"ServerNameList": "a, b:1, [::1]"},
            ["a:14172", "b:1", "[::1]:14172"],
            [BARE.format("a, ::1")],
        ),
        ({"ServerNameList": "a, b:1", "port": "14172"}, ["a:14172", "b:1"], []),
    ],
    ids=["nothing", "a port", "every port", "one port", "servers and a port"],
)
def test_what_a_bundle_does_not_say_is_said_to_be_assumed(
    tmp_path: Path, settings: dict[str, str], servers: list[str], assumed: list[str]
) -> None:
    file = tmp_path / "init.dat"
    file.write_bytes(make_bundle(key(2), [CHAIN], [head(CHAIN, 2)], settings))
    found = json.loads(call("bundle", "inspect", "--json", str(file)).out)
    assert (found["settings"], found["assumed"]) == (settings, assumed)
    assert f"--set=servers={json.dumps(servers)}" in shlex.split(found["next"][0])
    nothing = [] if settings else ["it carries no settings"]
    ended = call("bundle", "inspect", str(file))
    shown = [f"setting {name} = {value}" for name, value in sorted(settings.items())]
    assert [one for one in ended.out.splitlines() if one.startswith("setting")] == shown
    place = ended.err.index("on the next machine")
    assert ended.err[:place].splitlines() == [*nothing, *assumed]


@pytest.mark.req("D5")
def test_a_bundle_of_another_deployment_is_refused(file: Path, tmp_path: Path) -> None:
    own = fingerprint(file)
    assert call("bundle", "inspect", str(file), "--expect-fingerprint", own.upper()).code == 0
    ended = call("bundle", "inspect", str(file), "--expect-fingerprint", "00" * 32)
    assert (ended.code, ended.out) == (3, "")
    assert own in ended.err
    assert "do not install it" in ended.err


@pytest.mark.req("D5")
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data + b"\0",
        lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
        lambda data: b"\xff" * len(data),
    ],
    ids=["last byte", "half", "empty", "one more", "one bit", "noise"],
)
def test_a_damaged_bundle_is_refused(file: Path, damage: Callable[[bytes], bytes]) -> None:
    file.write_bytes(damage(BUNDLE))
    ended = call("bundle", "inspect", str(file))
    assert (ended.code, ended.out) == (1, "")
    assert "is refused" in ended.err
    assert "hint" in ended.err


# --- pki show


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A component that was stopped: its ledger and its last report."""
    folder = tmp_path / "hub"
    lock_state(folder, "hub").release()
    own = trust.from_bundle(open_bundle(BUNDLE))
    TwoGenerations(folder / "ledger", DISK).write(encode_state(own))
    report = {
        "role": "hub",
        "id": "ab" * 16,
        "pid": 1,
        "time": START.isoformat(),
        "deployment": DEPLOYMENT.hex(),
        "newest_root": kid(2).hex(),
        "keys": [
            {
                "kind": "hub-tls",
                "fingerprint": "12" * 32,
                "root": kid(2).hex(),
                "serial": "1",
                "not_before": START.isoformat(),
                "not_after": "2026-03-02T00:00:00+00:00",
                "window": 14400,
                "next_renewal": "2026-03-01T20:00:00+00:00",
            }
        ],
        "links": [],
    }
    (folder / "status.json").write_text(json.dumps(report))
    return folder


def test_keys_and_ledger_of_a_component_that_is_down(state: Path) -> None:
    ended = call("pki", "show", "--state", str(state))
    assert (ended.code, ended.err) == (0, "")
    assert f"hub {'ab' * 16}, not running" in ended.out
    for number, word in enumerate(("revoked", "active", "newest")):
        assert re.search(rf"Root {number} +{kid(number).hex()} .*{word}$", ended.out, re.MULTILINE)
    assert f"entry {CHAIN.last.n}, id {CHAIN.last.id.hex()}" in ended.out
    assert "2026-03-02 00:00:00Z" in ended.out
    assert "2026-03-01 20:00:00Z" in ended.out


def test_keys_of_a_component_that_runs(state: Path) -> None:
    with lock_state(state, "hub"):
        found = json.loads(call("pki", "show", "--json", "--state", str(state)).out)
    assert found[0]["running"] == os.getpid()
    assert found[0]["ledger"][0]["n"] == CHAIN.last.n


@pytest.mark.req("A4")
def test_no_private_key_is_shown(state: Path, file: Path) -> None:
    (state / "pki.db").write_bytes(b"PRIVATE")
    for words in (
        ("pki", "show", "--json", "--state", str(state)),
        ("bundle", "inspect", str(file)),
    ):
        text = call(*words).out
        assert "PRIVATE" not in text
        for number in range(3):
            assert format(key(number).private_numbers().private_value, "064x") not in text


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        ended = call("pki", "show", "--state", str(folder))
        assert (ended.code, ended.out) == (1, "")
        assert "no component has its state" in ended.err


def test_a_damaged_ledger_is_named(state: Path) -> None:
    for path in state.glob("ledger*"):
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
    ended = call("pki", "show", "--state", str(state))
    assert (ended.code, ended.out) == (3, "")
    assert "ledger" in ended.err


# --- cert inspect

AUTHORITY = Authority()


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_certificates_in_a_file(tmp_path: Path, encoding: Encoding) -> None:
    path = tmp_path / "root.crt"
    root = CHAIN.roots[0].der
    path.write_bytes(x509.load_der_x509_certificate(root).public_bytes(encoding))
    (row,) = json.loads(call("cert", "inspect", "--json", str(path)).out)
    assert row["fingerprint"] == kid(0).hex()
    assert (row["kind"], row["subject"]) == ("root", "CN=s.example Root 0")
    ended = call("cert", "inspect", str(path))
    assert kid(0).hex() in ended.out
    assert "never" in ended.out
    assert "nothing of this was verified" in ended.err


def test_a_chain_in_a_file_and_a_stranger(tmp_path: Path) -> None:
    path = tmp_path / "chain.pem"
    chain = AUTHORITY.issue("hub").chain
    path.write_bytes(
        b"".join(x509.load_der_x509_certificate(c).public_bytes(Encoding.PEM) for c in chain)
    )
    rows = json.loads(call("cert", "inspect", "--json", str(path)).out)
    assert [row["subject"] for row in rows] == ["CN=hub", "CN=server.test Root 0"]


@pytest.mark.parametrize("data", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_what_is_no_certificate(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    ended = call("cert", "inspect", str(path))
    assert (ended.code, ended.out) == (1, "")
    assert "holds no certificate" in ended.err


@pytest.mark.parametrize("what", ["missing.pem", "host:port", "host:99999", "[::1"])
def test_neither_a_file_nor_an_address(what: str) -> None:
    ended = call("cert", "inspect", what)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("anchorline: error: ")


@contextmanager
def one_connection(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A port at which one connection is served in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(30)

        def live() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(30)
                serve(connection)

        thread = threading.Thread(target=live)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            thread.join()


@pytest.mark.sockets
def test_what_a_port_shows() -> None:
    credentials = AUTHORITY.issue("server")

    def serve(connection: socket.socket) -> None:
        tls = SSL.Connection(server_context(credentials, [AUTHORITY.der]), None)
        tls.set_accept_state()
        done = False
        while not done:
            data = connection.recv(65536)
            if not data:
                return
            tls.bio_write(data)
            try:
                tls.do_handshake()
                done = True
            except SSL.WantReadError:
                pass
            try:
                connection.sendall(tls.bio_read(65536))
            except SSL.WantReadError:
                continue

    with one_connection(serve) as address:
        rows = json.loads(call("cert", "inspect", "--json", address).out)
    assert rows[0]["subject"] == "CN=server"
    assert len(rows) == 1  # the root is not sent


@pytest.mark.sockets
def test_a_port_that_does_not_speak_tls() -> None:
    with one_connection(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH\r\n")) as address:
        ended = call("cert", "inspect", address)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.replace("\n", "").isprintable()


@pytest.mark.sockets
def test_a_port_where_nobody_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    ended = call("cert", "inspect", address)
    assert (ended.code, ended.out) == (1, "")
    assert "connection refused" in ended.err


# --- client renew --now


@pytest.mark.sockets
async def test_a_running_client_is_asked_to_renew(tmp_path: Path) -> None:
    renewed = asyncio.Event()

    async def renew() -> None:
        renewed.set()

    task = asyncio.create_task(serve_control(tmp_path, {"renew": renew}))
    await asyncio.sleep(0)
    assert stat.S_IMODE((tmp_path / "control.sock").stat().st_mode) == 0o600
    ended = await asyncio.to_thread(call, "client", "renew", "--now", "--state", str(tmp_path))
    assert (ended.code, ended.out, ended.err) == (0, "ok\n", "")
    assert renewed.is_set()
    with pytest.raises(AgentError, match="no command 'revoke'"):
        await asyncio.to_thread(ask, tmp_path, b"revoke")
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.sockets
async def test_what_keeps_a_client_from_renewing_is_told(tmp_path: Path) -> None:
    async def renew() -> None:
        raise UnavailableError("no responder is connected")

    task = asyncio.create_task(serve_control(tmp_path, {"renew": renew}))
    await asyncio.sleep(0)
    ended = await asyncio.to_thread(call, "client", "renew", "--now", "--state", str(tmp_path))
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "anchorline: error: no responder is connected\n"
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.sockets
def test_no_client_runs(tmp_path: Path) -> None:
    ended = call("client", "renew", "--now", "--state", str(tmp_path))
    assert (ended.code, ended.out) == (1, "")
    assert "no daemon answers" in ended.err


def test_a_state_directory_too_long_for_a_socket_is_named_as_that() -> None:
    folder = "x" * 95
    ended = call("client", "renew", "--now", "--state", folder)
    assert (ended.code, ended.out) == (2, "")
    assert f"socket {folder}/control.sock: its path has 108 bytes" in ended.err
    assert "at most 107 are possible: name a shorter one with --state" in ended.err


def test_now_has_to_be_said(tmp_path: Path) -> None:
    assert call("client", "renew", "--state", str(tmp_path)).code == 2
