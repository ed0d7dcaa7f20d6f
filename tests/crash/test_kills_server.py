"""kill -9 of a real server at each step to its files: create, rotate, revoke; and in the recovery.

Its database is SQLite's business, and is killed at any moment in `test_processes`. Here it dies
between each two of the files whose order is the commitment: standby keys, keys, ledger.
"""

from collections.abc import Callable
from functools import partial

import pytest

from tests.crash.frail import doom
from tests.crash.test_kills import blows, counted, has, killed, places, starts_and_dies
from tests.crash.test_processes import Asking, until
from tests.crash.whole import ledger_of
from tests.support.daemons import Site

pytestmark = [pytest.mark.sockets, pytest.mark.req("C8")]


def rotate(site: Site) -> object:
    return site.api.post("roots", confirmed=True)


def revoke(site: Site) -> object:
    rows = [row for row in site.api.get("roots") if not row["revoked"] and not row["current"]]
    return site.api.post(
        "roots", rows[0]["name"], "revoke", key_in_doubt=True, reason="test", confirmed=True
    )


@places
@pytest.mark.req("A1")
def test_a_first_start(frail_site: Site, every: bool) -> None:
    server = frail_site.server
    count = counted(server, server.start)
    server.kill()
    for first, second in blows(count, every=every):
        for folder in (server.state, frail_site.folder / "standby"):
            for path in folder.iterdir():
                path.unlink()
        doom(server, first)
        server.launch()
        killed(server)
        starts_and_dies(server, second)
        server.start()
        (root,) = frail_site.api.get("roots")
        assert root["name"] == "server.test Root 0"
        assert frail_site.api.get("status")["can_sign"]
        rotate(frail_site)
        server.kill()


@places
@pytest.mark.req("B10")
@pytest.mark.parametrize("operation", [rotate, revoke])
def test_a_root_is_made_or_revoked(
    frail_site: Site, operation: Callable[[Site], object], every: bool
) -> None:
    server = frail_site.start_server()
    client = frail_site.add_client("client", 11).launch()
    client.wait("key.activated")
    rotate(frail_site)
    rotate(frail_site)
    for first, second in blows(counted(server, partial(operation, frail_site)), every=every):
        if operation is revoke:
            rotate(frail_site)
        before = ledger_of(server)
        doom(server, first)
        asking = Asking(partial(operation, frail_site))
        killed(server)
        answer = asking.wait()
        starts_and_dies(server, second)
        server.start()
        after = ledger_of(server)
        assert after.begins_with(before)
        assert after.last.n - before.last.n in (0, 1)
        if answer is not None:  # what was answered has happened
            assert after.last.n == before.last.n + 1
        assert frail_site.api.get("status")["can_sign"]
        if after.last == before.last:
            operation(frail_site)  # it can be done again
        newest = ledger_of(server).current_root.key_id.hex()
        until(partial(has, client, newest))
    assert server.lines("root.key_missing") == []
