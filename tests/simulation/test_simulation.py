"""Worlds in which everything goes wrong for a while, and nothing in the end."""

import re

import pytest

from tests.simulation.__main__ import main, many
from tests.simulation.plan import draw
from tests.simulation.run import Result, play

FEW, MANY = 10, 1000
HASH = re.compile(r"[0-9a-f]{16,}")
"""Entry ids differ: they hash the signature of a root, in which OpenSSL draws a number."""


def _way(result: Result) -> list[str]:
    # Sorted: what happens at one moment has no order that a program could rely on.
    return sorted(HASH.sub("#", line) for line in result.trace)


def told(result: Result) -> str:
    return "\n".join(
        [str(result), f"replay: make simulate SEED={result.plan.seed}", *result.trace[-40:]]
    )


@pytest.mark.parametrize("seed", range(FEW))
def test_everybody_follows_and_nothing_is_lost(seed: int) -> None:
    result = play(seed)
    assert not result.broken, told(result)


@pytest.mark.needs("simulation")
def test_a_thousand_worlds() -> None:
    misled = 0
    for result in many(range(MANY)):
        misled += result.fooled
        assert not result.broken, told(result)
    assert misled > MANY // 20, "the thief has had his chances"


def test_a_seed_is_one_plan() -> None:
    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_a_seed_takes_the_same_way_again() -> None:
    before, after = play(11), play(11)
    assert _way(before) == _way(after)


def test_a_seed_is_replayed_with_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "1"]) == 0
    shown = capsys.readouterr().out
    assert "deployment.founded" in shown
    assert shown.endswith("seed 1: 0 broken\n")
