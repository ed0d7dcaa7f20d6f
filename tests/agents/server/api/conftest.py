"""The API over a real Unix socket, in front of operations that keep what they are called with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.runtime import logs
from tests.agents.cli.fake_server import FakeOperations, serving


@pytest.fixture
def records() -> Iterator[list[dict[str, object]]]:
    found: list[dict[str, object]] = []
    logs.capture(found)
    yield found
    logs.silence()


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture
def api(operations: FakeOperations, records: list[dict[str, object]]) -> Iterator[Path]:
    with serving(operations) as path:
        yield path
