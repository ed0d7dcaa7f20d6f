"""A prepared server, and its clock."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agents.server.app import Server
from tests.support.clock import FakeClock
from tests.support.servers import prepared


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest_asyncio.fixture
async def server(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Server]:
    async with prepared(tmp_path, clock=clock) as made:
        yield made
