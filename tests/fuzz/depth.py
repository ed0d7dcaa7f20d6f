"""How often a property is tried: a little with the pure tests, much in a deep run.

@deeper
@given(...)
def test_something(depth: str, ...) -> None: ...
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import settings

__all__ = ["deeper"]

FEW = 8
MANY = 300
"""For one decoder; there are thirty, and several properties of each."""

T = TypeVar("T", bound=Callable[..., Any])

_examples = settings(max_examples=MANY if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else FEW)
_depths = pytest.mark.parametrize(
    "depth", ["short", pytest.param("deep", marks=pytest.mark.needs("fuzz"))]
)


def deeper(test: T) -> T:
    """Run a property shortly in `make test-pure` and deeply in `make test-deep`."""
    decorated: T = _depths(_examples(test))
    return decorated
