import fcntl
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agents.cli.health import Health, judge
from agents.cli.state import Report, running
from agents.runtime.lock import lock_state
from tests.agents.cli.programs import call
from tests.support.clock import START

ROLE = "hub"
PID = os.getpid()


def written(**changes: object) -> dict[str, Any]:
    key = {
        "kind": "hub-tls",
        "root": "01" * 32,
        "not_after": (START + timedelta(days=1)).isoformat(),
    }
    report = {
        "role": ROLE,
        "pid": PID,
        "time": START.isoformat(),
        "newest_root": "01" * 32,
        "keys": [key],
    }
    return {**report, **changes}


def key(**changes: object) -> dict[str, object]:
    return {**written()["keys"][0], **changes}


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (Report(None, None), Health.DOWN),
        (Report(None, written()), Health.DOWN),
        (Report(PID, None), Health.STARTING),
        (Report(PID + 1, written()), Health.STARTING),
        (Report(PID, written(keys=[])), Health.STARTING),
        (Report(PID, written()), Health.OK),
        (Report(PID, written(keys=[key(), key(root="00" * 32)])), Health.BEHIND),
        (Report(PID, written(keys=[key(not_after=START.isoformat())])), Health.EXPIRED),
        (
            Report(PID, written(keys=[key(root="00" * 32, not_after=START.isoformat())])),
            Health.EXPIRED,
        ),
        (Report(PID, written(time=(START + timedelta(days=2)).isoformat())), Health.EXPIRED),
    ],
    ids=[
        "never ran",
        "stopped",
        "no report yet",
        "report of an earlier process",
        "waits for approval",
        "ok",
        "one key under an older root",
        "expired this very second",
        "expired and behind",
        "expired by the component's own clock, which is ahead",
    ],
)
def test_the_first_word_that_is_true_counts(report: Report, expected: Health) -> None:
    assert judge(report, START)[0] is expected


def test_each_word_has_an_exit_code_of_its_own() -> None:
    codes = {health.value: health.code for health in Health}
    assert codes == {"ok": 0, "down": 1, "starting": 4, "behind": 5, "expired": 6}


def health(folder: Path, *words: str) -> tuple[int, str, str]:
    ended = call(ROLE, "healthcheck", "--state", str(folder), *words)
    return ended.code, ended.out, ended.err


def test_a_component_from_its_first_start_to_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    assert health(folder)[:2] == (1, "down\n")
    lock = lock_state(folder, ROLE)
    assert health(folder)[:2] == (4, "starting\n")
    (folder / "status.json").write_text(json.dumps(written()))
    assert health(folder) == (0, "ok\n", "")
    assert json.loads(health(folder, "--json")[1]) == {"health": "ok", "why": ""}
    lock.release()
    code, out, err = health(folder)
    assert (code, out, err) == (1, "down\n", "no process uses its state directory\n")


def test_looking_takes_no_lock(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    lock_state(folder, ROLE).release()
    with (folder / "lock").open() as file:
        assert running(folder) is None
        # Had looking taken the lock and kept it, this would fail.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert running(folder) == PID


def test_who_waits_for_a_lock_or_holds_another_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    inode = (tmp_path / "lock").stat().st_ino
    locks = tmp_path / "locks"
    locks.write_text(
        f"1: FLOCK  ADVISORY  WRITE 10 fe:00:{inode + 1} 0 EOF\n"
        f"2: POSIX  ADVISORY  WRITE 11 fe:00:{inode} 0 EOF\n"
        f"3: -> FLOCK  ADVISORY  WRITE 12 fe:00:{inode} 0 EOF\n"
        f"4: FLOCK  ADVISORY  READ  13 fe:00:{inode} 0 EOF\n"
    )
    assert running(tmp_path, locks) is None
    with locks.open("a") as file:
        file.write(f"5: FLOCK  ADVISORY  WRITE 14 00:2f:{inode} 0 EOF\n")
    assert running(tmp_path, locks) == 14


def test_the_state_of_another_role_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(json.dumps(written(role="client")))
    code, out, err = health(tmp_path)
    assert (code, out) == (1, "")
    assert "is the state of a client, not of a hub" in err


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_torn_report_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_text(text, encoding="latin-1")
    code, out, err = health(tmp_path)
    assert (code, out) == (1, "")
    assert "is no report" in err


def test_a_report_of_another_version_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    with lock_state(folder, ROLE):
        (folder / "status.json").write_text(json.dumps({"role": ROLE, "pid": PID}))
        code, out, err = health(folder)
    assert (code, out) == (1, "")
    assert "of another version" in err


def test_dates_compare_across_zones() -> None:
    zone = "2026-01-01T02:00:00+02:00"  # is START
    assert judge(Report(PID, written(keys=[key(not_after=zone)])), START)[0] is Health.EXPIRED
    assert datetime.fromisoformat(zone) == START.astimezone(UTC)
