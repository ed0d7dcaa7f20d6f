"""Whole daemons as processes, as in `tests.daemons`."""

from tests.daemons.conftest import make_site, nursery, site

__all__ = ["make_site", "nursery", "site"]
