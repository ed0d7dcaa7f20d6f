import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import missing

ROOT = Path(__file__).parents[1]


def test_a_component_that_nobody_knows_is_missing() -> None:
    assert missing(["sistemd"]) == ["sistemd"]


@pytest.mark.sockets
def test_a_missing_component_fails_the_test_and_names_the_remedy(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-m", "needs", "-p", "no:cacheprovider"]
    answer = subprocess.run(
        [*command, "tests/deploy"],
        cwd=ROOT,
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert answer.returncode == 1
    assert "needs systemd: run `make deep-setup`" in answer.stdout
    assert " passed" not in answer.stdout
    assert " skipped" not in answer.stdout


@pytest.mark.sockets
def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {line.split()[1] for line in makefile.splitlines() if line.startswith(".PHONY: ")}
    # What a make around this test says to its own children is not for this one.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    answer = subprocess.run(
        ["make", "help"], cwd=ROOT, env=plain, capture_output=True, text=True, check=True
    )
    assert {line.split()[0] for line in answer.stdout.splitlines()} == targets
