"""A registry without clients, and what is said meanwhile."""

from collections.abc import Iterator

import pytest

from tests.agents.responder.line import Line
from tests.support.logs import logged


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def lines() -> Iterator[list[dict[str, object]]]:
    with logged() as found:
        yield found
