"""Settings, and what is raised because of one."""

import pytest

from agents.server.operations import ServerOperations
from tests.agents.server.operations.machines import ME


@pytest.mark.req("B8")
async def test_what_was_raised_stands_beside_the_kind_that_it_is_about(
    operations: ServerOperations,
) -> None:
    await operations.setting_set(ME, "pki_zoneserver_tls_key_renewal_window_hours", "48")
    row = await operations.setting_set(ME, "pki_zoneserver_tls_key_duration_days", "1")
    (text,) = row["raises"]
    assert text.startswith(f"{row['name']} to ")
    row = await operations.setting_set(ME, "pki_client_tls_key_duration_days", "30")
    assert len(row["raises"]) == 1
    kinds = {one["kind"]: one for one in (await operations.rotation(behind=False))["settings"]}
    raised = {kind for kind, one in kinds.items() if one["raised"]}
    assert raised == {"zone-server-tls", "client-ca"}
    assert kinds["zone-server-tls"]["validity"] == 49 * 3600
    assert kinds["client-ca"]["window"] == 30 * 86400
