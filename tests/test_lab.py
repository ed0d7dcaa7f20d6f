"""A whole deployment of processes and sockets, in stepped time: `anchorline lab` with 4 clients.

The lab runs once. Each test reads what it observed from outside; what each step does and looks
at is in `agents/lab/acts`.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from agents.lab.story import STEPS
from agents.runtime.errors import Exit

pytestmark = pytest.mark.sockets


@dataclass(frozen=True)
class Told:
    """What the lab has said, and what it has left behind."""

    code: int
    steps: dict[str, dict[str, object]]
    summary: dict[str, object]
    err: str
    folder: Path


def run_lab(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "agents.cli.main", "lab", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("lab") / "whole"
    words = ["lab", "--clients", "4", "--json", "--folder", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "agents.cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    *steps, last = map(json.loads, done.stdout.splitlines())
    told = {str(step["step"]): step for step in steps}
    return Told(done.returncode, told, last["summary"], done.stderr, folder)


OBSERVED = [
    pytest.param("founded", marks=pytest.mark.req("A1")),
    pytest.param("bundle", marks=pytest.mark.req("D1")),
    pytest.param("approved", marks=pytest.mark.req("I2", "I5")),
    pytest.param("enrolled", marks=pytest.mark.req("A6", "A8")),
    pytest.param("line", marks=pytest.mark.req("G1", "G2")),
    pytest.param("broken", marks=pytest.mark.req("G1")),
    pytest.param("no-hub", marks=pytest.mark.req("E2")),
    "power-cut",
    pytest.param("settings", marks=pytest.mark.req("B8")),
    "asleep",
    pytest.param("new-root", marks=pytest.mark.req("A2", "B1", "B16")),
    pytest.param("coverage", marks=pytest.mark.req("B12")),
    pytest.param("trace", marks=pytest.mark.req("K3")),
    pytest.param("rotated", marks=pytest.mark.req("B7", "B8")),
    pytest.param("week", marks=pytest.mark.req("B7", "K5")),
    pytest.param("cut-off", marks=pytest.mark.req("B12")),
    "stolen",
    pytest.param("revoke", marks=pytest.mark.req("B2", "B3")),
    pytest.param("reconnected", marks=pytest.mark.req("B4")),
    pytest.param("sleeper", marks=pytest.mark.req("B6", "B15", "F1")),
    pytest.param("newcomer", marks=pytest.mark.req("B6")),
    pytest.param("beyond-hub", marks=pytest.mark.req("E2")),
    pytest.param("in-doubt", marks=pytest.mark.req("B2")),
    pytest.param("at-once", marks=pytest.mark.req("B5")),
    pytest.param("knocking", marks=pytest.mark.req("B4", "E5")),
    pytest.param("impostors", marks=pytest.mark.req("B4", "E5")),
    pytest.param("own-root", marks=pytest.mark.req("B10", "B11")),
    pytest.param("forged-tail", marks=pytest.mark.req("B10")),
    pytest.param("pings", marks=pytest.mark.req("B9")),
    pytest.param("signatures", marks=pytest.mark.req("A6")),
    pytest.param("secrets", marks=pytest.mark.req("A4")),
    "faults",
]


@pytest.mark.parametrize("step", OBSERVED)
def test_observed(lab: Told, step: str) -> None:
    assert step in lab.steps, lab.err
    assert lab.steps[step]["observed"], lab.steps[step]["detail"]


def test_every_step_of_the_story_was_told(lab: Told) -> None:
    assert list(lab.steps) == [step.name for step in STEPS]
    assert len(OBSERVED) == len(STEPS)
    assert lab.summary["observed"] == lab.summary["steps"] == len(STEPS)
    assert lab.code == Exit.OK


@pytest.mark.req("K5")
def test_more_than_a_week_of_policy_time_has_passed(lab: Told) -> None:
    dates = [str(step["policy_time"])[:10] for step in lab.steps.values()]
    assert dates == sorted(dates)
    assert float(str(lab.summary["seconds"])) < 7 * 86_400 / 100


def test_logs_stay_and_keys_do_not(lab: Told) -> None:
    assert [path.name for path in lab.folder.iterdir()] == ["logs"]
    assert len(list((lab.folder / "logs").iterdir())) >= 7


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter").touch()
    words = ["lab", "--clients", "4", "--folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "agents.cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Exit.REFUSED
    assert "is not empty" in done.stderr
    assert "hint: name a new folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]
