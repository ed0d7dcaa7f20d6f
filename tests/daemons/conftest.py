"""Whole daemons as processes: one nursery a session, one folder a site."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.daemons.siege import Siege, besiege
from tests.daemons.trap import Lures
from tests.support.daemons import Site
from tests.support.nursery import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope="module")
def make_site(nursery: Nursery) -> Iterator[Callable[[], Site]]:
    """Makes sites that end with the module. Their paths are short: a Unix socket's must be."""
    with ExitStack() as stack:

        def make() -> Site:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="anchorline-")))
            return stack.enter_context(Site(nursery, folder))

        yield make


@pytest.fixture
def site(nursery: Nursery) -> Iterator[Site]:
    """A site of one test; nothing of it runs yet."""
    with (
        tempfile.TemporaryDirectory(prefix="anchorline-") as folder,
        Site(nursery, Path(folder)) as made,
    ):
        yield made


@pytest.fixture(scope="package")
def siege(nursery: Nursery) -> Iterator[Siege]:
    """A deployment that has rotated, revoked and denied; whoever attacks it leaves it whole."""
    with (
        tempfile.TemporaryDirectory(prefix="anchorline-") as folder,
        Site(nursery, Path(folder)) as site,
    ):
        yield besiege(site)


@pytest.fixture(scope="package")
def lures(siege: Siege) -> Lures:
    """Components of it that can be made to dial whatever is wanted."""
    return Lures(siege)
