"""What every test runs under: Hypothesis profiles, and components that must be there.

A test marked `needs("x")` fails, and is not skipped, where component x is missing: a
deep run that skips proves nothing.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci",
    derandomize=True,
    max_examples=50,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "deep",
    max_examples=2000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@functools.cache
def _answers(*command: str) -> bool:
    """Whether the command is installed and exits with 0."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


COMPONENTS: Final[dict[str, Callable[[], bool]]] = {
    "fuzz": lambda: True,  # nothing but time
    "simulation": lambda: True,  # nothing but time
    "mount": lambda: _answers("unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"),
    "strace": lambda: _answers("strace", "-o", "/dev/null", "true"),
    "systemd": lambda: _answers("systemd-analyze", "--version"),
}
"""For each component that a test may need: whether it is installed and running."""


def missing(names: list[str]) -> list[str]:
    """Those of the named components that cannot be used here, or that nobody knows."""
    return [name for name in names if name not in COMPONENTS or not COMPONENTS[name]()]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    names = [name for mark in item.iter_markers("needs") for name in mark.args]
    absent = missing(names)
    if absent:
        pytest.fail(f"needs {', '.join(absent)}: run `make deep-setup`", pytrace=False)
