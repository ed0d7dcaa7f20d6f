"""Commands against a server, as transcripts: command, both streams, exit code.

A transcript is a text in `transcripts/`: `$ anchorline WORDS`, then what standard output says,
then standard error with `! ` before each line, then `= ` and the exit code where it is not 0.
"""

import asyncio
import contextlib
import json
import shlex
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.runtime import logs
from tests.agents.cli.fake_server import FINGERPRINT, NEWEST, OLD, FakeOperations, serving
from tests.agents.cli.programs import Ended, call

TRANSCRIPTS = Path(__file__).parent / "transcripts"


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture
def api(operations: FakeOperations) -> Iterator[Path]:
    logs.capture([])
    with serving(operations) as path:
        yield path
    logs.silence()


def parts(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a transcript, and what it is expected to do."""
    for part in text.split("$ anchorline ")[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected.strip("\n")


def written(ended: Ended) -> str:
    lines = ended.out.splitlines() + [f"! {line}".rstrip() for line in ended.err.splitlines()]
    if ended.code:
        lines.append(f"= {ended.code}")
    return "\n".join(lines).strip("\n")


@pytest.mark.sockets
@pytest.mark.req("J6")
@pytest.mark.parametrize("name", sorted(path.stem for path in TRANSCRIPTS.glob("*.txt")))
def test_transcript(api: Path, name: str, tmp_path: Path) -> None:
    text = (TRANSCRIPTS / f"{name}.txt").read_text(encoding="utf-8")
    with contextlib.chdir(tmp_path):
        for command, expected in parts(text):
            ended = call(*shlex.split(command), socket=api)
            assert f"$ anchorline {command}\n{written(ended)}" == (
                f"$ anchorline {command}\n{expected}"
            )


def test_there_are_transcripts() -> None:
    assert len(list(TRANSCRIPTS.glob("*.txt"))) >= 6


# --- asking


@pytest.mark.sockets
@pytest.mark.parametrize("typed", ["", "n\n", "\n", "yes please\n", "Nope\n"])
def test_anything_but_yes_changes_nothing(
    api: Path, operations: FakeOperations, typed: str
) -> None:
    ended = call("root", "revoke", OLD, "--reason", "old", socket=api, typed=typed)
    assert ended.code == 1
    assert f"Revoke {OLD}? This cannot be undone. [y/N]" in ended.err
    assert "anchorline: error: nothing was changed" in ended.err
    assert ended.out == ""
    assert operations.revoked == []


@pytest.mark.sockets
@pytest.mark.parametrize("typed", ["y\n", "YES\n"])
def test_yes_revokes_and_coverage_was_shown_first(
    api: Path, operations: FakeOperations, typed: str
) -> None:
    ended = call("root", "revoke", OLD, "--reason", "old", socket=api, typed=typed)
    assert ended.code == 0
    assert ended.err.index("client-07") < ended.err.index("[y/N]")
    assert "offline, will follow" in ended.err
    assert ended.out == f"revoked {OLD}\ntrace 5f2c0a91\n"
    # A yes is for those who were shown.
    assert operations.calls[-1][2:] == (OLD, False, "old", True, [b"\7" * 16])


@pytest.mark.sockets
@pytest.mark.parametrize(
    "words",
    [
        ("root", "revoke", OLD, "--reason", "old"),
        ("root", "new"),
        ("approvals", "revoke", FINGERPRINT),
    ],
    ids=["root revoke", "root new", "approvals revoke"],
)
def test_without_a_terminal_it_refuses_and_names_the_option(
    api: Path, operations: FakeOperations, words: tuple[str, ...]
) -> None:
    operations.young = True
    ended = call(*words, socket=api)
    assert ended.code == 2
    assert ended.out == ""
    assert "--yes" in ended.err
    assert not [c for c in operations.calls if c[0] in ("root_revoke", "approvals_decide")]
    assert ("root_new", True) not in [(c[0], c[-1]) for c in operations.calls]
    assert call(*words, "--yes", socket=api).code == 0


@pytest.mark.sockets
def test_a_root_is_made_at_once_unless_the_server_asks(
    api: Path, operations: FakeOperations
) -> None:
    assert call("root", "new", socket=api).code == 0
    operations.young = True
    ended = call("root", "new", socket=api, typed="y\n")
    assert "younger than 182 days" in ended.err
    assert (ended.code, ended.out.splitlines()[0]) == (0, "created srv.example Root 2")


@pytest.mark.sockets
def test_a_root_that_cannot_be_revoked_is_refused_before_anybody_is_asked(
    api: Path, operations: FakeOperations
) -> None:
    operations.settled = False
    young = call("root", "revoke", OLD, "--reason", "x", "--yes", socket=api)
    assert (young.code, "24 hours old" in young.err) == (1, True)
    assert "--key-in-doubt" in young.err
    newest = call("root", "revoke", NEWEST, "--reason", "x", "--key-in-doubt", "--yes", socket=api)
    assert (newest.code, "create a new one first" in newest.err) == (1, True)
    assert operations.revoked == []
    doubt = call("root", "revoke", OLD, "--reason", "x", "--key-in-doubt", "--yes", socket=api)
    assert doubt.code == 0
    assert operations.calls[-1][2:] == (OLD, True, "x", True, None)


@pytest.mark.sockets
@pytest.mark.parametrize("name", ["Root\0", "x" * 5000, "../../etc/passwd", "\x1b[2J", ""])
def test_a_hostile_name_is_an_error_that_prints(
    api: Path, operations: FakeOperations, name: str
) -> None:
    for words in (
        ("root", "revoke", name, "--reason", "x", "--yes"),
        ("settings", "get", name),
        ("settings", "set", name, "1"),
        ("approvals", "approve", name),
    ):
        ended = call(*words, socket=api)
        assert ended.code == 1
        assert ended.err.replace("\n", "").isprintable()
        assert len(ended.err) < 1000
    assert operations.revoked == []
    assert operations.approval_state == "pending"


@pytest.mark.sockets
def test_what_a_client_says_of_itself_moves_no_cursor(api: Path) -> None:
    for words in (("clients", "list"), ("clients", "list", "--json")):
        ended = call(*words, socket=api)
        assert "client-01" in ended.out
        assert "\x1b" not in ended.out


@pytest.mark.sockets
def test_json_is_what_the_api_says(api: Path, operations: FakeOperations) -> None:
    rows = asyncio.run(operations.roots())
    for words in (("--json", "root", "list"), ("root", "list", "--json")):
        assert json.loads(call(*words, socket=api).out) == rows


@pytest.mark.sockets
def test_a_bundle_is_written_for_its_owner_and_over_nothing(
    api: Path, operations: FakeOperations, tmp_path: Path
) -> None:
    file = tmp_path / "init.dat"
    first = call("bundle", "export", str(file), "--set", "ServerNameList=b.example", socket=api)
    assert first.code == 0
    assert file.read_bytes() == b"\x00bundle\xff"
    assert file.stat().st_mode & 0o777 == 0o600
    assert operations.calls[0][2] == {"ServerNameList": "b.example"}
    file.write_bytes(b"precious")
    again = call("bundle", "export", str(file), socket=api)
    assert (again.code, file.read_bytes()) == (1, b"precious")
    assert len([call for call in operations.calls if call[0] == "bundle"]) == 1


@pytest.mark.sockets
def test_a_fault_of_the_server_is_told_without_its_inside(
    api: Path, operations: FakeOperations
) -> None:
    operations.broken = True
    ended = call("status", socket=api)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == (
        "anchorline: error: the server failed at this\nanchorline: hint: its log says why\n"
    )


# --- without a server


def test_a_socket_of_somebody_else_is_refused_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def deny(_connection: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("agents.cli.api._Connection.connect", deny)
    ended = call("status", socket=tmp_path / "server.sock")
    assert (ended.code, ended.out) == (3, "")
    assert "permission denied" in ended.err
    assert "run this as root or as the user of the server" in ended.err


@pytest.mark.sockets
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{",
        b"HTTP/1.1 409 Conflict\r\ncontent-length: 2\r\n\r\n[]",
        b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy",
    ],
    ids=["nothing", "ssh", "no json", "cut", "no error", "busy"],
)
def test_something_else_at_the_socket_is_an_error(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "server.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.settimeout(30)
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        ended = call("root", "list", socket=path)
        thread.join()
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("anchorline: error: ")
    assert "internal error" not in ended.err


def test_no_server_is_an_error_with_a_hint(tmp_path: Path) -> None:
    ended = call("status", socket=tmp_path / "none.sock")
    assert ended.code == 1
    assert ended.err.startswith("anchorline: error: no server answers at ")
    assert "--socket" in ended.err


def test_a_socket_has_a_path_as_long_as_the_server_can_make_it() -> None:
    ended = call("status", socket=Path("x" * 107))
    assert "no server answers" in ended.err
    path = "/" + "ü" * 53 + "x"
    ended = call("status", socket=Path(path))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        f"anchorline: error: cannot connect to the API socket {path}: its path has 108 bytes\n"
        "anchorline: hint: at most 107 are possible: name a shorter one with --socket\n"
    )


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("frobnicate",), "no such command 'frobnicate'"),
        (("root", "revoke", "X"), "missing option '--reason'"),
        (("root", "revoke"), "missing argument 'NAME'"),
        (("clients", "list", "--all"), "no such option '--all'"),
        (("bundle", "export", "f", "--set", "A"), "invalid value for --set"),
    ],
)
def test_a_wrong_command_line_says_what_and_where_to_read_on(
    words: tuple[str, ...], error: str
) -> None:
    ended = call(*words)
    assert ended.code == 2
    assert ended.out == ""
    first, second = ended.err.splitlines()
    assert first.lower().startswith(f"anchorline: error: {error}".lower())
    assert second.startswith("anchorline: hint: see anchorline ")
