import re
import subprocess
import sys
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "systemd"
ROLES = ("client", "hub", "server", "zone-server")
PROGRAM = "/usr/bin/anchorline"
INSTALLED = Path(sys.executable).with_name("anchorline")
"""The same program where this environment has it."""


def unit(role: str) -> str:
    return (SYSTEMD / f"anchorline-{role}.service").read_text(encoding="utf-8")


def values(role: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit(role), re.MULTILINE)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_there_is_a_unit_for_each_role_and_no_other() -> None:
    assert sorted(path.name for path in SYSTEMD.glob("*.service")) == [
        f"anchorline-{role}.service" for role in ROLES
    ]


@pytest.mark.parametrize("role", ROLES)
def test_a_configuration_is_checked_before_the_daemon_starts(role: str) -> None:
    config = f"--config /etc/anchorline/{role}.toml"
    assert values(role, "ExecStartPre") == [f"{PROGRAM} {role} config check {config}"]
    assert values(role, "ExecStart") == [f"{PROGRAM} {role} run {config}"]


@pytest.mark.parametrize("role", ROLES)
def test_each_role_has_a_state_directory_of_its_own(role: str) -> None:
    # The standby keys' key file lies in a folder of its own, apart from pki.db.
    standby = " anchorline/standby" if role == "server" else ""
    assert values(role, "StateDirectory") == [f"anchorline/{role}{standby}"]
    assert values(role, "StateDirectoryMode") == ["0700"]
    assert values(role, "User") == ["anchorline"]


@pytest.mark.parametrize("role", ROLES)
def test_the_log_files_of_the_samples_can_be_written(role: str) -> None:
    # ProtectSystem=strict leaves nothing else of /var.
    assert values(role, "ProtectSystem") == ["strict"]
    assert values(role, "LogsDirectory") == ["anchorline"]
    assert values(role, "LogsDirectoryMode") == ["0750"]
    sample = (SYSTEMD.parent / "deploy/config" / f"{role}.toml").read_text(encoding="utf-8")
    assert f"/var/log/anchorline/{role}.log" in sample


@pytest.mark.parametrize("role", ROLES)
def test_a_reload_is_the_signal_that_the_daemon_knows(role: str) -> None:
    assert values(role, "ExecReload") == ["/bin/kill -HUP $MAINPID"]


@pytest.mark.sockets
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("key", ["ExecStart", "ExecStartPre"])
def test_a_unit_starts_a_command_that_exists(role: str, key: str) -> None:
    (line,) = values(role, key)
    words = line.removeprefix(PROGRAM).split(" --config ")[0].split()
    answer = run(str(INSTALLED), *words, "--help")
    assert answer.returncode == 0, answer.stderr
    assert "--config" in answer.stdout


@pytest.mark.needs("systemd")
@pytest.mark.parametrize("role", ROLES)
def test_systemd_accepts_the_unit(role: str, tmp_path: Path) -> None:
    copy = tmp_path / f"anchorline-{role}.service"
    copy.write_text(unit(role).replace(PROGRAM, str(INSTALLED)), encoding="utf-8")
    answer = run("systemd-analyze", "verify", "--man=no", str(copy))
    # An unknown key or a bad value is a warning and leaves the exit code 0. Warnings about the
    # machine's own units are not ours.
    ours = [line for line in answer.stderr.splitlines() if copy.name in line]
    assert ours == []
    assert answer.returncode == 0, answer.stderr


@pytest.mark.needs("systemd")
def test_systemd_rejects_a_unit_with_a_mistake(tmp_path: Path) -> None:
    copy = tmp_path / "anchorline-client.service"
    text = unit("client").replace(PROGRAM, str(INSTALLED))
    copy.write_text(text.replace("ProtectSystem=strict", "ProtectSystems=strict"), encoding="utf-8")
    answer = run("systemd-analyze", "verify", "--man=no", str(copy))
    assert any(
        copy.name in line and "ProtectSystems" in line for line in answer.stderr.splitlines()
    )


@pytest.mark.needs("systemd")
@pytest.mark.parametrize("tool", ["sysusers", "tmpfiles"])
def test_systemd_accepts_user_and_directories(tool: str, tmp_path: Path) -> None:
    # In a root of its own: the user is made there first, then the directories that it owns.
    (tmp_path / "etc").mkdir()
    users = run(
        "systemd-sysusers", f"--root={tmp_path}", str(SYSTEMD / "sysusers.d/anchorline.conf")
    )
    assert users.returncode == 0, users.stderr
    assert "anchorline" in (tmp_path / "etc/passwd").read_text(encoding="utf-8")
    if tool == "tmpfiles":
        made = run(
            "systemd-tmpfiles",
            "--create",
            f"--root={tmp_path}",
            str(SYSTEMD / "tmpfiles.d/anchorline.conf"),
        )
        assert made.returncode == 0, made.stderr
        assert (tmp_path / "var/lib/anchorline").is_dir()
        assert (tmp_path / "run/anchorline").is_dir()
