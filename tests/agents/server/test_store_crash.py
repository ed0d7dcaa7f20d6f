"""A process that records issues is killed: what it was told is recorded is there.

Run as a module with a path, this file is that process.
"""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agents.responder.records import IssuedRecord
from agents.server.store import Store
from agents.server.store.issued import IssuedTable

ROOM = Path(__file__).parents[3]
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def issue(serial: int) -> IssuedRecord:
    return IssuedRecord(
        serial=serial,
        kind="client-tls",
        holder=b"h" * 16,
        key_id=b"k" * 32,
        issuer=b"i" * 32,
        root=b"r" * 32,
        not_before=NOW,
        not_after=NOW + timedelta(days=7),
        at=NOW,
    )


async def recorded(path: Path) -> set[int]:
    store = Store.open(path)
    try:
        return {row.serial for row in await IssuedTable(store).unexpired(NOW)}
    finally:
        store.close()


@pytest.mark.sockets
@pytest.mark.parametrize("answers", [1, 7, 300])
def test_kill_9_loses_no_issue_that_was_answered(tmp_path: Path, answers: int) -> None:
    path = tmp_path / "server.db"
    command = [sys.executable, "-m", "tests.agents.server.test_store_crash", str(path)]
    with subprocess.Popen(command, cwd=ROOM, stdout=subprocess.PIPE, text=True) as process:
        stdout = process.stdout
        assert stdout is not None
        heard = {int(stdout.readline()) for _ in range(answers)}
        process.kill()
        # What it said before it died was said too.
        heard |= {int(line) for line in stdout.read().split("\n")[:-1]}
    assert process.returncode == -9
    assert asyncio.run(recorded(path)) >= heard


async def issue_until_killed(path: Path) -> None:
    """Eight requesters at a time, so that commits are groups."""
    table = IssuedTable(Store.open(path))

    async def requester(first: int) -> None:
        for serial in range(first, 1 << 30, 8):
            await table.record(issue(serial))
            sys.stdout.write(f"{serial}\n")
            sys.stdout.flush()

    await asyncio.gather(*(requester(first) for first in range(8)))


if __name__ == "__main__":
    asyncio.run(issue_until_killed(Path(sys.argv[1])))
