import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from agents.cli.roles import ROLES, config_class
from agents.runtime.config import load
from tests.agents.cli.programs import call

SAMPLES = Path(__file__).parents[3] / "deploy" / "config"


@pytest.mark.parametrize("role", ROLES)
def test_the_sample_in_deploy_is_what_config_new_writes(role: str) -> None:
    ended = call(role, "config", "new")
    assert (ended.code, ended.err) == (0, "")
    assert (SAMPLES / f"{role}.toml").read_text(encoding="utf-8") == ended.out


def test_there_is_a_sample_for_each_role_and_no_other() -> None:
    assert {path.name for path in SAMPLES.iterdir()} == {f"{role}.toml" for role in ROLES}


@pytest.mark.parametrize("role", ROLES)
def test_the_sample_works_as_it_is(role: str) -> None:
    ended = call(role, "config", "check", "--config", str(SAMPLES / f"{role}.toml"))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.endswith(": ok\n")


@pytest.mark.parametrize("role", ROLES)
def test_a_new_configuration_is_written_once(role: str, tmp_path: Path) -> None:
    file = tmp_path / "new.toml"
    first = call(role, "config", "new", str(file))
    assert (first.code, first.out) == (0, "")
    assert f"anchorline {role} config check --config {file}" in first.err
    file.write_text("precious")
    again = call(role, "config", "new", str(file))
    assert (again.code, file.read_text()) == (1, "precious")
    assert "exists" in again.err


def test_options_can_be_set_in_a_new_configuration() -> None:
    ended = call(
        *("client", "config", "new", '--set=servers=["a.example:1"]', "--set=host=plain text"),
        "--set=registration_max=60",
    )
    read = tomllib.loads(ended.out)
    assert read == {"servers": ["a.example:1"], "host": "plain text", "registration_max": 60}
    load(ended.out, config_class("client"))


@pytest.mark.parametrize("given", ["nothing=1", "servers", "=1", "registration_max=soon"])
def test_a_wrong_option_makes_no_configuration(given: str, tmp_path: Path) -> None:
    file = tmp_path / "new.toml"
    ended = call("client", "config", "new", str(file), "--set", given)
    assert ended.code == 2
    assert not file.exists()


@pytest.mark.parametrize("role", ["client", "hub", "zone-server"])
@pytest.mark.parametrize("text", ["0011", "g" * 64, "a" * 65])
def test_a_fingerprint_that_is_none_is_found_before_a_start(
    tmp_path: Path, role: str, text: str
) -> None:
    file = tmp_path / "new.toml"
    sample = (SAMPLES / f"{role}.toml").read_text()
    file.write_text(f'expect_fingerprint = "{text}"\n{sample}')
    ended = call(role, "config", "check", "--config", str(file))
    assert (ended.code, ended.out) == (2, "")
    assert "64 hexadecimal digits" in ended.err
    file.write_text(f'expect_fingerprint = "{"aB" * 32}"\n{sample}')
    assert call(role, "config", "check", "--config", str(file)).code == 0


@pytest.mark.parametrize("text", ["nope", "10.0.0.1:1", "10.0.0"])
def test_a_source_that_is_no_address_is_found_before_a_start(tmp_path: Path, text: str) -> None:
    file = tmp_path / "client.toml"
    file.write_text(f'source = "{text}"\n' + (SAMPLES / "client.toml").read_text())
    ended = call("client", "config", "check", "--config", str(file))
    assert (ended.code, ended.out) == (2, "")
    assert f"source: got '{text}', expected an IP address of this machine" in ended.err


def test_a_log_without_its_folder_is_found_before_a_start(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(f'log = "{tmp_path}/none/hub.log"\n' + (SAMPLES / "hub.toml").read_text())
    ended = call("hub", "config", "check", "--config", str(file))
    assert (ended.code, ended.out) == (2, "")
    assert f"log: there is no folder {tmp_path}/none" in ended.err
    (tmp_path / "none").mkdir()
    assert call("hub", "config", "check", "--config", str(file)).code == 0


def test_five_mistakes_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "client.toml"
    file.write_text(
        'servers = "one"\nlisten = 5\nregistration_min = -1\nprot = 3\nlog_levle = "info"\n'
        'log_level = "loud"\n'
    )
    ended = call("client", "config", "check", "--config", str(file))
    assert (ended.code, ended.out) == (2, "")
    for word in (
        "6 problems",
        "log_level: got 'loud'",
        "servers",
        "listen",
        "registration_min",
        "prot",
        "log_level?",
    ):
        assert word in ended.err


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("command", [("run",), ("config", "check"), ("healthcheck",)])
def test_no_configuration_is_a_clear_error(
    role: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    ended = call(role, *command, "--config", str(tmp_path / "none.toml"))
    assert (ended.code, ended.out) == (2, "")
    assert "the file does not exist" in ended.err
    assert "config new" in ended.err


@pytest.mark.parametrize("role", ROLES)
def test_a_level_that_is_none_is_refused(role: str, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    text = call(role, "config", "new").out
    file.write_text(f'log_level = "loud"\n{text}')
    ended = call(role, "config", "check", "--config", str(file))
    assert (ended.code, ended.out) == (2, "")
    assert 'log_level: got \'loud\', expected one of "debug", "info"' in ended.err


SHOWN = [
    (role, line)
    for role in ROLES
    for line in (SAMPLES / f"{role}.toml").read_text(encoding="utf-8").splitlines()
    if re.match(r"#[a-z_]+ = ", line)
]


@pytest.mark.parametrize(("role", "line"), SHOWN, ids=[f"{r} {x[1:30]}" for r, x in SHOWN])
def test_each_default_that_a_sample_shows_is_the_default(role: str, line: str) -> None:
    text = (SAMPLES / f"{role}.toml").read_text(encoding="utf-8")
    shown = "\n".join(each[1:] if each == line else each for each in text.splitlines())
    assert shown != text
    assert load(shown, config_class(role)) == load(text, config_class(role))


def test_what_two_options_say_together_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "client.toml"
    file.write_text('servers = ["a"]\nregistration_min = 60\nregistration_max = 30.5\n')
    ended = call("client", "config", "check", "--config", str(file))
    assert (ended.code, ended.out) == (2, "")
    assert "registration_min is 60, above registration_max, which is 30.5" in ended.err


LOADED = """
import sys
from agents.cli.main import main
code = main([sys.argv[1], "run", "--config", sys.argv[2]])
print(code, *sorted(sys.modules))
"""
SERVERS_ONLY = {"sqlalchemy", "alembic", "starlette", "uvicorn", "h11"}
ONLY_AT_A_START = {"importlib.metadata", "email.message", "zipfile"}
"""What a daemon had use for once at the most, and would keep for as long as it lives."""


@pytest.mark.sockets
@pytest.mark.parametrize("role", ["client", "hub", "zone-server"])
def test_a_daemon_loads_nothing_of_the_servers(role: str, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    state, bundle = tmp_path / "state", tmp_path / "none.dat"
    given = [f"--set=state={state}", f"--set=bundle={bundle}"]
    assert call(role, "config", "new", str(file), *given).code == 0
    ended = subprocess.run(
        [sys.executable, "-c", LOADED, role, str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    code, *names = ended.stdout.split()
    assert code == "3", ended.stderr  # no bundle, and it says how to get one
    assert "anchorline: hint: " in ended.stderr
    assert f"agents.{role.replace('-', '_')}.app" in names
    assert not (SERVERS_ONLY | ONLY_AT_A_START) & set(names)
    assert not [name for name in names if name.startswith("agents.server")]
