"""kill -9 of real processes at any moment of rotate, revoke and enrol, again and again."""

import secrets
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from agents.runtime.errors import AgentError
from tests.crash.whole import ledger_of
from tests.support.daemons import Daemon, Site
from tests.support.nursery import PATIENCE
from tests.support.thief import keyring_of

pytestmark = pytest.mark.sockets

rounds = pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=pytest.mark.needs("fuzz"))])
LONGEST = 0.25
"""Seconds after which the latest blow falls: rotate and revoke take less."""


def any_moment() -> float:
    """A number of seconds that nobody can foresee."""
    return secrets.randbelow(1000) / 1000 * LONGEST


def until(claim: Callable[[], bool]) -> None:
    """Ask until a claim is true: nothing tells when."""
    pause = threading.Event()
    for _ in range(1500):
        if claim():
            return
        pause.wait(0.02)
    raise AssertionError("it never became true")


class Asking:
    """An operation that is asked for while the server may die."""

    def __init__(self, ask: Callable[[], object]) -> None:
        self.answer: object = None
        self._ask = ask
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(AgentError, OSError):
            self.answer = self._ask()

    def wait(self) -> object:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.answer


def struck(server: Daemon, ask: Callable[[], object]) -> object:
    """Ask, kill -9 at any moment, and return the answer if there was one before that."""
    asking = Asking(ask)
    threading.Event().wait(any_moment())
    server.kill()
    answer = asking.wait()
    server.start()
    return answer


def names(site: Site) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in site.api.get("roots")}


def _is_under(site: Site, root: str) -> bool:
    """Whether all keys of the server have been renewed."""
    return {key["root"] for key in site.api.get("status")["keys"]} == {root}


def _rotate(site: Site) -> object:
    return site.api.post("roots", confirmed=True)


def _revoke(site: Site) -> object:
    rows = site.api.get("roots")
    oldest = next(row["name"] for row in rows if not row["revoked"] and not row["current"])
    return site.api.post(
        "roots", oldest, "revoke", key_in_doubt=True, reason="test", confirmed=True
    )


@rounds
@pytest.mark.req("C8", "B10")
def test_rotate_and_revoke(site: Site, rounds: int) -> None:
    server = site.start_server()
    client = site.add_client("client", 11).start()
    client.wait("key.activated")
    before = ledger_of(server)
    for number in range(rounds):
        known = set(names(site))
        ask = partial(_revoke, site) if number % 2 else partial(_rotate, site)
        answer = struck(server, ask)
        after = ledger_of(server)
        assert after.begins_with(before)
        assert after.last.n - before.last.n in (0, 1)
        if answer is not None:  # what was answered has happened
            assert after.last.n == before.last.n + 1
        status = site.api.get("status")
        assert status["can_sign"]
        assert status["ledger"]["n"] == after.last.n
        rows = names(site)
        assert known <= set(rows)
        until(partial(_is_under, site, after.current_root.key_id.hex()))
        if after.last.n == before.last.n:
            ask()  # it can be repeated
            after = ledger_of(server)
            assert after.last.n == before.last.n + 1
        before = after
    newest = before.current_root.key_id.hex()
    if not client.lines("key.activated", root=newest):
        client.wait("key.activated", root=newest)
    assert client.running


@rounds
@pytest.mark.req("C8")
def test_enrol(site: Site, rounds: int) -> None:
    """Either side dies while a client enrols; who was registered stays who it was."""
    server = site.start_server()
    clients = []
    for number in range(rounds):
        client = site.add_client(f"client-{number}", 20 + number).launch()
        threading.Event().wait(any_moment() * 2)
        victim = server if number % 2 else client
        victim.kill()
        ids = {row["id"] for row in site.api.get("clients")} if victim is client else set()
        victim.start()
        if not _is_certified(client):
            client.wait("key.activated")
        if client.name not in _hosts(site):
            server.wait("client.registered", host=client.name)
        rows = {row["host"]: row["id"] for row in site.api.get("clients")}
        assert ids <= set(rows.values())
        clients.append((client, rows[client.name]))
    rows = {row["host"]: row["id"] for row in site.api.get("clients")}
    for client, id in clients:
        assert rows[client.name] == id
        assert client.stop(signal.SIGTERM) == 0


def _is_certified(client: Daemon) -> bool:
    with suppress(AgentError):
        return bool(keyring_of(client).credentials)
    return False


def _hosts(site: Site) -> set[str]:
    return {row["host"] for row in site.api.get("clients")}
