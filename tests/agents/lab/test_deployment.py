from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agents.lab.deployment import Deployment, NotObservedError
from agents.lab.layout import make_layout
from agents.lab.operator import Result
from agents.runtime.errors import UnavailableError


class Network:
    """Network time that passes by sleeping only."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


def make(tmp_path: Path, *standing: str) -> Deployment:
    nothing: Any = None
    conductor: Any = SimpleNamespace(standing=lambda: standing)
    clock: Any = Network()
    return Deployment(make_layout(tmp_path, 4, port=15000), conductor, nothing, nothing, clock)


async def test_it_looks_until_nothing_is_missing(tmp_path: Path) -> None:
    answers: list[str | Exception] = ["a", UnavailableError("b"), KeyError("c"), ""]

    async def look() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    await make(tmp_path).until("it is there", look)
    assert answers == []


async def test_it_gives_up_and_says_what_is_missing_and_who_stands(tmp_path: Path) -> None:
    async def look() -> str:
        return "client-03"

    with pytest.raises(NotObservedError, match=r"all moved: not in 5 s: client-03; .*stands: hub"):
        await make(tmp_path, "hub").until("all moved", look, within=5)


@pytest.mark.parametrize(
    ("err", "problem"),
    [
        ("a table\nanchorline: error: not now\nanchorline: hint: later\n", "not now"),
        ("Traceback\n", "Traceback"),
        ("", ""),
    ],
)
def test_the_problem_of_a_command(err: str, problem: str) -> None:
    assert Result(("root", "new"), 1, "", err).problem == problem
