"""Act one: from nothing to a deployment in which everybody is known."""

from typing import Any, Final

from agents.lab.deployment import Deployment
from agents.lab.layout import Place
from agents.lab.scene import Scene, Step, expect
from pki.bundle import open_bundle
from pki.certificates import Kind

__all__ = ["STEPS"]


async def server_founds(scene: Scene) -> str:
    """Start the server, and look at the root that nobody had to ask for."""
    lab = scene.deployment
    await lab.start(lab.layout.server)

    async def answers() -> str:
        await lab.operator.get("status")
        return ""

    await lab.until("the server answers", answers)
    roots = await lab.operator.json("root", "list")
    expect(len(roots) == 1, f"{len(roots)} roots")
    expect(roots[0]["name"] == "server.lab Root 0", f"root is named {roots[0]['name']}")
    return (
        f"{roots[0]['name']}, fingerprint {roots[0]['fingerprint'][:16]}…, made by the first start"
    )


async def bundle_exported(scene: Scene) -> str:
    """Export the init bundle; what it says of itself is what the server says."""
    lab = scene.deployment
    path = str(lab.layout.bundle)
    exported = await lab.operator.json("bundle", "export", path)
    inspected = await lab.operator.json("bundle", "inspect", path)
    status = await lab.operator.get("status")
    found = {exported["fingerprint"], inspected["fingerprint"], status["fingerprint"]}
    expect(len(found) == 1, f"three fingerprints: {found}")
    scene.bundles.append(open_bundle(lab.layout.bundle.read_bytes()))
    shown = await lab.shown(lab.layout.server, [scene.root(0)])
    expect(shown.leaf.kind is Kind.SERVER_TLS, f"the server shows a {shown.leaf.kind}")
    return (
        f"deployment {exported['fingerprint'][:16]}…: export, inspect and server agree; "
        "the server's port shows a certificate under that root"
    )


async def approved(scene: Scene) -> str:
    """Start hub and zone server: pending, compared, approved, and only then connected."""
    lab = scene.deployment
    await lab.start(lab.layout.hub, lab.layout.zone)
    for place in (lab.layout.hub, lab.layout.zone):
        fingerprint = await _pending(lab, place)
        await lab.operator.json("approvals", "approve", fingerprint, "--reason", "compared")

    async def connected() -> str:
        rows = (await lab.operator.get("status"))["components"]
        up = {row["role"] for row in rows if row["connected"] and row["state"] == "approved"}
        missing = {"hub", "zone-server"} - up
        return f"not connected: {', '.join(sorted(missing))}" if missing else ""

    await lab.until("hub and zone server are connected", connected)

    async def certified() -> str:
        kinds = {row["kind"] for row in lab.status(lab.layout.zone).get("keys", ())}
        return "" if "client-ca" in kinds else f"zone server holds {sorted(kinds)}"

    await lab.until("the zone server has its client CA", certified)
    tables = lab.tables()
    ports = {address for pid, address in tables.listening if pid == lab.pid(lab.layout.hub)}
    expect(not ports, f"the hub listens on {ports}")
    shown = await lab.shown(lab.layout.zone, [scene.root(0)])
    expect(shown.leaf.kind is Kind.ZONE_SERVER_TLS, f"its port shows a {shown.leaf.kind}")
    log = await lab.operator.json("approvals", "log")
    states = [row["state"] for row in log]
    expect(states.count("pending") == states.count("approved") == 2, f"the log says {states}")
    return "both were pending until their fingerprints were compared; two decisions in the log"


async def _pending(lab: Deployment, place: Place) -> str:
    """Wait for a request, and compare it with what the component says of itself."""
    found: list[str] = []

    async def pending() -> str:
        rows = [r for r in await lab.operator.get("approvals") if r["role"] == place.role]
        found[:] = [row["fingerprint"] for row in rows if row["state"] == "pending"]
        return "" if found else "no request"

    await lab.until(f"the {place.role} is pending", pending)
    shown = await lab.operator.json("pki", "show", "--state", str(place.state))
    own = shown[0]["report"]["identity"]
    expect(found[0] == own, f"pending is {found[0]}, the {place.role} itself shows {own}")
    kinds = [row["kind"] for row in lab.status(place).get("keys", ())]
    expect(not kinds, f"the {place.role} has keys before approval: {kinds}")
    return found[0]


async def enrolled(scene: Scene) -> str:
    """Start the clients; each gets a certificate from its responder's CA, and none from a root."""
    lab = scene.deployment
    before = (await lab.operator.get("status"))["signatures"]
    await lab.start(*lab.layout.clients)
    await lab.until("every client is registered", lambda: registered(scene))
    await lab.conductor.settled()
    for place in lab.layout.clients:
        shown = await lab.shown(place, [scene.root(0)])
        expect(shown.leaf.kind is Kind.CLIENT_TLS, f"{place.name} shows a {shown.leaf.kind}")
        own = lab.status(place)["id"]
        named = shown.leaf.name
        expect(named is not None and named.id.hex() == own, f"{place.name} shows another's name")

    async def counted() -> str:
        after = (await lab.operator.get("status"))["signatures"]
        signed = after["client_ca"] + after["zone_client_ca"]
        signed -= before["client_ca"] + before["zone_client_ca"]
        wanted = len(lab.layout.clients)
        return "" if signed >= wanted else f"{signed} signed by client CAs, expected {wanted}"

    await lab.until("client CAs have signed", counted)
    after = (await lab.operator.get("status"))["signatures"]
    expect(
        after["root"] == before["root"],
        f"a root signed {after['root'] - before['root']} certificates meanwhile",
    )
    return (
        f"{len(lab.layout.clients)} clients show certificates under Root 0; "
        f"root signatures {before['root']} before and {after['root']} after"
    )


async def registered(scene: Scene) -> str:
    """Who of the clients that run is not yet present with a valid key, as the server says."""
    lab = scene.deployment
    rows: list[dict[str, Any]] = await lab.operator.get("clients")
    good = {row["host"] for row in rows if row["status"] == "present" and row["valid_key"]}
    missing = [place.name for place in lab.clients if place.name not in good]
    dead = [
        place.name
        for place in lab.layout.clients
        if not lab.runs(place) and place.name not in scene.absent
    ]
    if dead:
        return f"not running: {', '.join(dead)}"
    return f"missing: {', '.join(missing[:6])}" if missing else ""


STEPS: Final = (
    Step("founded", "Does a first start make its root by itself?", server_founds, vital=True),
    Step(
        "bundle", "Is the bundle that I hand out of this deployment?", bundle_exported, vital=True
    ),
    Step("approved", "Who asks to be a hub or a zone server?", approved, vital=True),
    Step("enrolled", "Is everyone enrolled, and did a root sign for it?", enrolled, vital=True),
)
