"""docs/hostile-input.md names tests, events and reasons: those that there are, and all attacks."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeGuard

import pytest

from agents.runtime.events import EVENTS
from agents.runtime.remedies import REMEDIES

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs/hostile-input.md").read_text(encoding="utf-8")
ROWS: Final = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and line.count("|") == 5
]
NAMED: Final = re.findall(r"`([\w/]+\.py)((?:::\w+)+)`", PAGE)
ATTACKS: Final = (
    "test_attacks",
    "test_dialled",
    "test_false_histories",
    "test_hostile_answers",
    "test_hostile_bytes",
    "test_hostile_requests",
    "test_impostors",
    "test_slow_peers",
    "test_wrong_clocks",
)
"""The files of which the page leaves nothing out."""
CONTROLS: Final = {"TestAfterwards", "TestTheResumerItself"}
"""Classes that show what the others' refusals are worth."""


def names_in(path: Path) -> Iterator[str]:
    """Each test function and each class of tests in a file, as pytest names them."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield f"::{node.name}"
            for inner in node.body:
                if is_test(inner):
                    yield f"::{node.name}::{inner.name}"
        elif is_test(node):
            yield f"::{node.name}"


def is_test(node: ast.stmt) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")


def test_the_page_has_rows_and_names_tests() -> None:
    assert len(ROWS) > 30
    assert len(NAMED) > 40


@pytest.mark.parametrize("path", sorted({path for path, _ in NAMED}))
def test_each_test_that_the_page_names_exists(path: str) -> None:
    there = set(names_in(ROOT / "tests" / path))
    named = {name for named_path, name in NAMED if named_path == path}
    assert named <= there, named - there


@pytest.mark.parametrize("name", ATTACKS)
def test_each_test_of_an_attack_is_named_or_its_class_is(name: str) -> None:
    path = f"daemons/{name}.py"
    named = {found for named_path, found in NAMED if named_path == path}
    missing = [
        test
        for test in names_in(ROOT / "tests" / path)
        if test.count("::") == 2
        and test.split("::")[1] not in CONTROLS
        and not {test, "::" + test.split("::")[1]} & named
    ]
    assert missing == []


def test_events_and_reasons_are_those_of_the_logs() -> None:
    for _, _, said, _ in ROWS[2:]:
        for event in re.findall(r"`([\w.]+)`", said):
            assert event in EVENTS, event
        for reason in re.findall(r"(?<=[ ,])([a-z]+_[a-z_]+)", said):
            assert reason in REMEDIES, reason


def test_each_input_has_a_cost_an_answer_and_a_test() -> None:
    for row in ROWS[2:]:
        what, costs, said, tests = row
        assert what
        if not what.startswith("**"):
            assert all((costs, said, tests)), row
            assert "::" in tests or tests.startswith("the same"), row
