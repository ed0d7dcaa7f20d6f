"""Each rule that is taken away is missed by somebody who looks on."""

from collections.abc import Callable

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.plan import Plan
from tests.simulation.run import play

PATIENCE = 300.0


@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_that_is_taken_away_is_missed(name: str) -> None:
    mutant, plan, seeds, words = MUTANTS[name]
    seen: list[str] = []
    for seed in seeds:
        with mutant():
            result = play(plan(seed), patience=PATIENCE)
        seen += result.broken
        if any(words in one for one in seen):
            return
    pytest.fail(f"nobody missed it in {len(seeds)} worlds: {seen}")


@pytest.mark.parametrize(
    ("plan", "seed"), sorted({(plan, seeds[0]) for _, plan, seeds, _ in MUTANTS.values()}, key=str)
)
def test_with_all_rules_nothing_is_missed(plan: Callable[[int], Plan], seed: int) -> None:
    assert not play(plan(seed), patience=PATIENCE).broken
