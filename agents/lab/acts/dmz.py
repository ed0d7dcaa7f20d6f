"""Act three: the zone server, with its hub and without."""

import asyncio
from typing import Final

from agents.lab.layout import Place
from agents.lab.scene import Scene, Step, expect
from pki.certificates import Facts

__all__ = ["STEPS", "hub_back", "renew"]

MOST: Final = 4
"""Clients that are asked to renew; each costs a process of the command line."""


async def renew(scene: Scene, place: Place) -> Facts:
    """Ask a client for a new certificate now; returns the one that its port shows then."""
    lab = scene.deployment
    roots = [root.der for root in scene.bundles[-1].chains[0].trusted_roots]
    before = (await lab.shown(place, roots)).leaf
    await lab.operator.json("client", "renew", "--now", "--state", str(place.state))
    found = [before]

    async def shown() -> str:
        found[0] = (await lab.shown(place, roots)).leaf
        return "" if found[0].serial != before.serial else "the same certificate"

    await lab.until(f"{place.name} shows another certificate", shown)
    return found[0]


async def hub_back(scene: Scene) -> None:
    """Start the hub again, and wait until it has its server and its zone server."""
    lab = scene.deployment
    await lab.start(lab.layout.hub)

    async def connected() -> str:
        rows = (await lab.operator.get("status"))["components"]
        missing = [row["role"] for row in rows if not row["connected"]]
        return f"not connected: {', '.join(missing)}" if missing else ""

    await lab.until("hub and zone server are connected", connected)


async def without_hub(scene: Scene) -> str:
    """Stop the hub: outside clients still renew, and the zone server reaches for nobody."""
    lab = scene.deployment
    await lab.stop(lab.layout.hub)
    signed = lab.status(lab.layout.zone)["signed"]
    chosen = lab.layout.outside[:MOST]
    await asyncio.gather(*(renew(scene, place) for place in chosen))
    dialled = lab.tables().dialled(lab.pid(lab.layout.zone))
    expect(not dialled, f"the zone server has connected to {sorted(dialled)}")

    async def counted() -> str:
        now = lab.status(lab.layout.zone)["signed"]
        return "" if now >= signed + len(chosen) else f"the zone server has signed {now - signed}"

    await lab.until("the zone server has signed them", counted)
    await hub_back(scene)
    dialled = lab.tables().dialled(lab.pid(lab.layout.zone))
    expect(not dialled, f"the zone server has connected to {sorted(dialled)}")
    return (
        f"{len(chosen)} outside clients renewed at the zone server while the hub was down; "
        "the zone server itself opened no connection"
    )


STEPS: Final = (Step("no-hub", "Do outside clients live on when the hub is down?", without_hub),)
