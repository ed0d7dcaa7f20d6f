"""Whole daemons as processes, as in `tests.daemons`; and those on machines that fail."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import frail
from tests.daemons.conftest import make_site, nursery, site
from tests.support.daemons import Site
from tests.support.nursery import Nursery

__all__ = ["frail_nursery", "frail_site", "make_site", "nursery", "site"]


@pytest.fixture(scope="session")
def frail_nursery() -> Iterator[Nursery]:
    made = frail.nursery()
    yield made
    made.close()


@pytest.fixture
def frail_site(frail_nursery: Nursery) -> Iterator[Site]:
    """A site of one test whose machines fail when they are told to."""
    with (
        tempfile.TemporaryDirectory(prefix="anchorline-") as folder,
        Site(frail_nursery, Path(folder)) as made,
    ):
        yield made
