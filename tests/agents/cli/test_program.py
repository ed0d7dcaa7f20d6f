"""The program itself: where it comes from, what it loads, what its help says."""

import errno
import io
import os
import re
import socket
import subprocess
import sys
from importlib import util
from pathlib import Path

import click
import pytest

from agents.cli import tables
from agents.cli.clients import ROWS
from agents.cli.health import Health
from agents.cli.main import COMMANDS, cli, main
from agents.cli.origin import OriginError, check_origin
from agents.cli.terminal import Terminal
from agents.runtime.errors import Exit
from tests.agents.cli.programs import call

ROOT = Path(__file__).parents[3]


# --- where it comes from


def test_this_program_is_its_own() -> None:
    check_origin()


def dist(folder: Path, name: str, *files: str) -> None:
    info = folder / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def test_another_distribution_that_wrote_into_our_packages_is_named(tmp_path: Path) -> None:
    dist(tmp_path, "anchorline", "agents/__init__.py", "pki/__init__.py")
    dist(tmp_path, "harmless", "agentship/__init__.py", "harmless/agents/x.py")
    check_origin(path=[str(tmp_path)])
    dist(tmp_path, "openai-agents", "agents/__init__.py", "agents/run.py")
    with pytest.raises(OriginError, match=r"'agents' .* openai-agents 1\.2 has installed") as found:
        check_origin(path=[str(tmp_path)])
    assert "environment of its own" in found.value.hint


@pytest.mark.parametrize("package", ["agents", "protocol", "pki"])
def test_a_package_from_elsewhere_stops_the_program(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spec:
        origin = str(tmp_path / package / "__init__.py")

    real = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: Spec if name == package else real(name))
    ended = call("--version")
    assert (ended.code, ended.out) == (3, "")
    assert f"package '{package}' is not anchorline's alone: it is in {tmp_path}" in ended.err


# --- what it loads

LOADED = """
import sys
from agents.cli.main import main
main(["--help"])
print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.sockets
def test_help_loads_next_to_nothing() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, timeout=60
    )
    names = set(ended.stderr.split())
    assert "Commands:" in ended.stdout
    assert not names & {"sqlalchemy", "starlette", "uvicorn", "cryptography", "OpenSSL", "uvloop"}


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"lab-node"}))
def test_each_command_is_where_the_table_says_and_says_the_same(name: str) -> None:
    context = click.Context(cli)
    command = cli.get_command(context, name)
    assert command is not None
    assert command.get_short_help_str(limit=200) == COMMANDS[name].help


def test_the_installed_program_is_this_one() -> None:
    (entry,) = [
        line
        for line in (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
        if line.startswith("anchorline = ")
    ]
    assert entry == 'anchorline = "agents.cli.main:main"'
    assert main(["--version"], terminal=Terminal(out=io.StringIO())) == 0


# --- what its help says

BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")))


def quoted(text: str) -> list[tuple[list[str], str]]:
    """Return the words and the output of each fenced block that quotes a help text."""
    found = []
    for block in BLOCK.findall(text):
        first, _, rest = block.partition("\n")
        match = re.fullmatch(r"\$ anchorline (.*--help)", first)
        if match:
            found.append((match[1].split(), rest))
    return found


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES)
def test_help_that_is_quoted_is_what_the_program_says(
    page: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = ROOT / page
    for words, text in quoted(path.read_text(encoding="utf-8")):
        assert text == help_of(words, capsys)


def test_a_quoted_help_that_is_out_of_date_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    page = (
        "Text\n\n```console\n$ anchorline root --help\nUsage: anchorline root\n```\n\n```\nx\n```\n"
    )
    ((words, text),) = quoted(page)
    assert words == ["root", "--help"]
    assert text != help_of(words, capsys)


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"lab-node"}))
def test_every_command_has_help_and_every_option_explains_itself(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def walk(command: click.Command, words: list[str]) -> None:
        assert help_of([*words, "--help"], capsys).startswith(f"Usage: anchorline {words[0]}")
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, f"{words}: {option.name}"
        if isinstance(command, click.Group):
            for below in command.commands.values():
                assert below.name is not None
                walk(below, [*words, below.name])

    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    walk(command, [name])


# --- tables


def test_a_table_is_aligned_and_shows_what_is_missing() -> None:
    columns = (tables.Column("A", "a"), tables.Column("LONG", "b", tables.mark))
    rows: list[dict[str, object]] = [
        {"a": "one", "b": True},
        {"a": "", "b": False},
        {"b": None},
        {"a": "x\ny\x1b[2J"},
    ]
    assert list(tables.lines(rows, columns)) == [
        "A            LONG",
        "one          yes",
        "-            no",
        "-            -",
        "x\\ny\\x1b[2J  -",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("2026-03-01T12:00:00+01:00", "2026-03-01 11:00:00Z"),
        (1772366400, "2026-03-01 12:00:00Z"),
        ("9999-12-31T23:59:59+00:00", "never"),
        ("soon", "soon"),
        (1e300, "1e+300"),
    ],
)
def test_dates(value: object, shown: str) -> None:
    assert tables.date(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (14400, "4 h"), (604800, "7 d"), (90061, "90061 s")],
)
def test_spans(seconds: int, shown: str) -> None:
    assert tables.span(seconds) == shown


# --- what it says of how it is called


@pytest.mark.parametrize("words", [(), ("root",), ("server",)])
def test_a_group_alone_shows_its_help_and_is_a_wrong_command(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    ended = call(*words)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == shown(capsys, *words)


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The help of a command; click writes it to the streams of the process."""
    assert call(*words, "--help").code == 0
    return capsys.readouterr().out


def test_help_names_the_exit_codes_and_the_variable(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(shown(capsys).split())
    assert "ANCHORLINE_SOCKET" in text
    for code in Exit:
        assert f"{code.value} " in text[text.index("Exit codes:") :]
    text = " ".join(shown(capsys, "server", "healthcheck").split())
    for health in Health:
        assert f"{health.value} {health.code}" in text


def test_help_says_of_when_the_key_of_a_client_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(shown(capsys, "clients", "list").split())
    assert "the key that a client has proven at its LAST REGISTRATION" in text
    for column in ("VALID KEY", "KEY UNTIL", "LAST REGISTRATION"):
        assert column in text
        assert column in [one.head for one in ROWS]


def test_a_socket_that_may_not_be_used_says_who_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "server.sock"
    path.touch(mode=0o000)
    monkeypatch.setattr(os, "access", lambda *_args, **_more: False)  # as for another user
    monkeypatch.setattr(socket.socket, "connect", refused)
    ended = call("status", socket=path)
    assert ended.code == 3
    assert "as root or as the user of the server" in ended.err


def refused(_socket: socket.socket, _address: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")
