"""The settings in force: the twelve act at once, and what a rule raises is said."""

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from agents.server.app import Server
from agents.server.errors import OperationError
from agents.server.settings import Settings
from agents.server.store import approvals
from pki import certificates, rotation
from pki.certificates import Kind
from protocol.messages import Issued
from tests.support.clock import FakeClock
from tests.support.components import Component
from tests.support.servers import enrolled, prepared

KINDS = {
    Kind.SERVER_TLS: "pki_server_tls_key",
    Kind.MESSAGE_SIGNING: "pki_message_signing_key",
    Kind.HUB_TLS: "pki_hub_tls_key",
    Kind.ZONE_SERVER_TLS: "pki_zoneserver_tls_key",
    Kind.CLIENT_CA: "pki_client_tls_ca_key",
    Kind.CLIENT_TLS: "pki_client_tls_key",
}


def window_of(kind: Kind) -> str:
    if kind is Kind.CLIENT_TLS:
        return "PKIClientTLSKeyRenewalWindowHours"
    return f"{KINDS[kind]}_renewal_window_hours"


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with prepared(tmp_path) as made:
        yield made


async def put(server: Server, name: str, value: object) -> list[rotation.Raise]:
    return await server.settings.set(name, str(value), actor="unix:root", at=server.clock.now())


async def next_certificate(server: Server, kind: Kind) -> tuple[certificates.Facts, timedelta]:
    """The next certificate of a kind, by the same way as in life, and its window."""
    if kind in (Kind.SERVER_TLS, Kind.MESSAGE_SIGNING):
        await server.certify(kind, "test")
        held = server.keyring.credential(kind)
        assert held is not None
        return held.leaf, held.window
    component = Component()
    answer = await enrolled(server, component, kind)
    if not isinstance(answer, Issued):
        await server.store.write(
            partial(
                approvals.decide,
                identity=component.key_id,
                state=approvals.State.APPROVED,
                actor="unix:root",
                at=server.clock.now(),
            )
        )
        answer = await enrolled(server, component, kind)
    assert isinstance(answer, Issued), answer
    return certificates.read(answer.chain[0]), timedelta(seconds=answer.window)


def test_the_twelve_are_the_source_documents() -> None:
    names = {f"{name}_duration_days" for name in KINDS.values()}
    assert set(rotation.SETTINGS) == names | {window_of(kind) for kind in KINDS}


@pytest.mark.req("B8")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_changed_setting_is_in_the_next_certificate_of_its_kind(
    server: Server, kind: Kind
) -> None:
    await next_certificate(server, kind)
    await put(server, f"{KINDS[kind]}_duration_days", 23)
    await put(server, window_of(kind), 5)
    leaf, window = await next_certificate(server, kind)
    assert leaf.not_after - server.clock.now() == timedelta(days=23)
    # A client CA's window is never below the client validity.
    assert window == (timedelta(days=7) if kind is Kind.CLIENT_CA else timedelta(hours=5))
    policy = server.settings.policies()[kind]
    assert (policy.validity, policy.window) == (timedelta(days=23), window)


@pytest.mark.req("B8")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not Kind.CLIENT_CA])
async def test_a_validity_within_its_window_is_raised_and_said(server: Server, kind: Kind) -> None:
    assert await put(server, window_of(kind), 48) == []
    name = f"{KINDS[kind]}_duration_days"
    raised = await put(server, name, 1)
    assert [(one.setting, one.asked, one.effective) for one in raised] == [
        (name, "1 day", "2 days 1 hour")
    ]
    leaf, _ = await next_certificate(server, kind)
    assert leaf.not_after - server.clock.now() == timedelta(hours=49)
    row = next(row for row in server.settings.rows() if row["name"] == name)
    assert (row["value"], row["effective"]) == (1, "2 days 1 hour")
    assert "hour" in str(row["note"])
    # A second change of something else does not say it again.
    assert await put(server, "root_age_warning_days", 300) == []
    # And when it is put right, the note goes.
    assert await put(server, name, 7) == []
    assert all(row["note"] == "" for row in server.settings.rows())


@pytest.mark.req("A13", "B8")
async def test_the_window_of_the_client_ca_follows_the_client_validity(server: Server) -> None:
    raised = await put(server, "pki_client_tls_key_duration_days", 30)
    assert [one.setting for one in raised] == ["pki_client_tls_ca_key_renewal_window_hours"]
    assert server.settings.policies()[Kind.CLIENT_CA].window == timedelta(days=30)


@pytest.mark.req("B8")
@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ("0", "from 1 to 3650"),
        ("-1", "from 1 to 3650"),
        ("3651", "from 1 to 3650"),
        ("1.5", "whole number"),
        ("seven", "whole number"),
        ("", "whole number"),
        (" 7", "whole number"),
        ("\u0667", "whole number"),
        ("9" * 400, "from 1 to 3650"),
    ],
)
async def test_a_bad_value_is_refused_and_says_what_is_allowed(
    server: Server, value: str, allowed: str
) -> None:
    before = server.settings.policies()
    with pytest.raises(OperationError, match=allowed) as refusal:
        await put(server, "pki_client_tls_key_duration_days", value)
    assert refusal.value.code == "bad-input"
    assert len(str(refusal.value)) < 200
    assert server.settings.policies() == before
    assert server.settings.revision == 0


@pytest.mark.parametrize("value", ["0", "36501", "-3", "x", "", "1" * 50])
async def test_our_own_settings_have_bounds_too(server: Server, value: str) -> None:
    with pytest.raises(OperationError, match="from 1 to 36500") as refusal:
        await put(server, "root_age_warning_days", value)
    assert refusal.value.code == "bad-input"
    assert server.settings.days("root_age_warning_days") == 365


@pytest.mark.parametrize("name", ["", "PKI", "pki_server_tls_key_duration_day", "x" * 500])
async def test_an_unknown_setting_is_not_found(server: Server, name: str) -> None:
    with pytest.raises(OperationError, match="no setting") as refusal:
        await put(server, name, 5)
    assert refusal.value.code == "not-found"
    assert len(str(refusal.value)) < 200


@pytest.mark.req("B8")
async def test_what_was_set_is_in_force_after_a_restart(tmp_path: Path) -> None:
    clock = FakeClock()
    async with prepared(tmp_path, clock=clock) as server:
        await put(server, "pki_hub_tls_key_duration_days", 9)
        await put(server, "root_rotation_interval_days", 10)
        revision = server.settings.revision
    async with prepared(tmp_path, clock=clock) as server:
        assert server.settings.policies()[Kind.HUB_TLS].validity == timedelta(days=9)
        assert server.settings.days("root_rotation_interval_days") == 10
        assert server.settings.revision == revision


async def test_whoever_must_act_is_called_once_it_is_in_force(server: Server) -> None:
    seen: list[int] = []
    server.settings.changed.append(
        lambda: seen.append(server.settings.values()["pki_hub_tls_key_duration_days"])
    )
    await put(server, "pki_hub_tls_key_duration_days", 9)
    assert seen == [9]


async def test_a_setting_says_who_changed_it_and_when(server: Server) -> None:
    types = {row["name"]: row["type"] for row in server.settings.rows()}
    assert types.pop("PKIClientTLSKeyRenewalWindowHours") == "Client"  # also before it is set
    assert set(types.values()) == {"Server"}
    await put(server, "PKIClientTLSKeyRenewalWindowHours", 6)
    rows = {row["name"]: row for row in server.settings.rows()}
    changed = rows["PKIClientTLSKeyRenewalWindowHours"]
    assert (changed["value"], changed["default"]) == (6, 4)
    assert changed["changed_by"] == "unix:root"
    assert changed["changed_at"] == server.clock.now().isoformat()
    assert rows["pki_hub_tls_key_duration_days"]["changed_by"] is None
    assert len(rows) == 14
    assert server.settings.for_clients() == {"PKIClientTLSKeyRenewalWindowHours": "6"}
    assert server.settings.shared() == {
        name: str(value) for name, value in server.settings.values().items()
    }


async def test_defaults_hold_where_nothing_was_set(server: Server) -> None:
    fresh = Settings(server.store)
    assert fresh.values() == dict(rotation.SETTINGS)
    assert fresh.raises == ()
