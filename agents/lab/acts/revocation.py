"""Act five: the old root goes, and those who were not there come back."""

from typing import Final

from agents.lab import observer
from agents.lab.acts.dmz import hub_back
from agents.lab.acts.founding import registered
from agents.lab.acts.line import line_formed
from agents.lab.acts.rotation import all_under, behind, moved_but, ports_under
from agents.lab.layout import Place
from agents.lab.scene import NotObservedError, Scene, Step, expect
from agents.runtime.errors import UnavailableError

__all__ = ["STEPS"]


async def revoked(scene: Scene) -> str:
    """Revoke the old root: refused for the newest, asked about otherwise, then done."""
    lab = scene.deployment
    old, newest = scene.root_name(0), scene.root_name(1)
    first = await lab.operator.run("root", "revoke", newest, "--reason", "a slip", "--yes")
    expect(first.code != 0, "the newest root was revoked")
    asked = await lab.operator.run("root", "revoke", old, "--reason", "its time is over")
    expect(asked.code != 0 and "--yes" in asked.err, f"it did not ask: {asked.problem}")
    done = await lab.operator.json("root", "revoke", old, "--reason", "its time is over", "--yes")
    expect(done["revoked"] == [old], f"revoked: {done['revoked']}")
    scene.bundles.append(await lab.bundle())
    held = {row["name"]: row["private_key_held"] for row in await lab.operator.json("root", "list")}
    expect(not held[old], "its private key is still there")
    acts = [row["action"] for row in await lab.operator.json("root", "log")]
    return f"{first.problem}; {old}: revoked, its key destroyed, {len(acts)} acts on record"


async def reconnected(scene: Scene) -> str:
    """Everybody stands under the new root, and the old one opens nothing."""
    lab = scene.deployment
    await lab.until("everybody who runs is present", lambda: registered(scene))
    detail = await all_under(scene, 1)
    for place in lab.running:
        if place.role == "hub":
            continue
        try:
            await lab.shown(place, [scene.root(0)])
        except UnavailableError:
            continue
        raise NotObservedError(f"{place.name} shows a certificate under the revoked root")

    async def forgotten() -> str:
        trusting = [
            place.name
            for place in lab.running
            if scene.root_id(0) in {row["fingerprint"] for row in lab.status(place)["roots"]}
        ]
        return f"still trust it: {', '.join(trusting[:6])}" if trusting else ""

    await lab.until("nobody trusts it", forgotten)
    return f"{detail}; nobody shows or trusts {scene.root_name(0)}"


async def sleeper_back(scene: Scene) -> str:
    """Start the sleeper with its old state: an expired key under a root that is revoked."""
    lab = scene.deployment
    sleeper = scene.sleeper
    before = lab.status(sleeper)
    row = observer.key_row(before, "client-tls")
    expect(observer.read_date(row["not_after"]) < lab.now, "its certificate has not expired")
    expect(row["root"] == scene.root_id(0), "its certificate is not under the revoked root")
    scene.absent.discard(sleeper.name)
    await lab.start(sleeper)
    await _follows(scene, sleeper, 1)
    own = lab.status(sleeper)["id"]
    expect(own == before["id"], f"it came back as {own}, it was {before['id']}")
    return f"{sleeper.name} came back with its own id, under {scene.root_name(1)}, to its place"


async def newcomer(scene: Scene) -> str:
    """Start a client with the bundle of the first day, which knows the revoked root only."""
    lab = scene.deployment
    scene.newcomer.prepare()
    lab.layout = lab.layout.with_client(scene.newcomer)
    await lab.start(scene.newcomer)
    await _follows(scene, scene.newcomer, 1)
    rows = await behind(scene)
    expect(not rows, f"still behind: {[row['host'] for row in rows]}")
    return f"{scene.newcomer.name} followed from the first bundle; nobody is behind"


async def _follows(scene: Scene, place: Place, index: int) -> None:
    """Wait until a client is present, shows a key under this root, and has acknowledged it."""
    lab = scene.deployment
    await lab.until(f"{place.name} is present", lambda: registered(scene))

    async def shown() -> str:
        await lab.shown(place, [scene.root(index)])
        return ""

    await lab.until(f"{place.name} shows a certificate under the new root", shown)
    await moved_but(scene)
    await line_formed(scene)
    server = lab.status(lab.layout.server)["ledger"]

    async def same() -> str:
        own = lab.status(place)["ledger"]
        return "" if own == server else f"its ledger ends at {own}"

    await lab.until(f"{place.name} has the server's ledger", same)


async def beyond_hub(scene: Scene) -> str:
    """A root made while the hub is down reaches the outside when it is back, and not before."""
    lab = scene.deployment
    outside = [lab.layout.zone, *lab.layout.outside]
    before = {place.name: lab.status(place)["ledger"] for place in outside}
    # Now, while the client CAs are under the root that is about to be replaced.
    assert scene.thief is not None  # he came with the first new root
    scene.thief.steal(scene.bundles[-1].chains[0])
    await lab.stop(lab.layout.hub)
    await lab.operator.json("root", "new", "--yes")
    scene.bundles.append(await lab.bundle())
    await moved_but(scene, "hub", "zone-server", *(place.name for place in lab.layout.outside))
    # Long enough for each of them to have heard of it, if there were a way.
    done = {place.name: lab.status(place)["registrations"] for place in lab.layout.outside}

    async def registered_again() -> str:
        few = [
            place.name
            for place in lab.layout.outside
            if lab.status(place)["registrations"] <= done[place.name]
        ]
        return f"not yet: {', '.join(few[:5])}" if few else ""

    await lab.until("outside clients have registered again", registered_again)
    heard = [p.name for p in outside if lab.status(p)["ledger"] != before[p.name]]
    expect(not heard, f"heard of it without the hub: {', '.join(heard)}")
    await hub_back(scene)
    await moved_but(scene)
    detail = await ports_under(scene, 2)
    return (
        f"the zone server and {len(outside) - 1} clients knew nothing until the hub came; {detail}"
    )


async def in_doubt(scene: Scene) -> str:
    """Revoke the root before, hours after its successor: only if the key is in doubt."""
    lab = scene.deployment
    name = scene.root_name(1)
    words = ("root", "revoke", name, "--reason", "a copy was seen", "--yes")
    first = await lab.operator.run(*words)
    expect(first.code != 0, f"{name} was revoked within 7 days without a word")
    expect("--key-in-doubt" in first.err, f"the way on is not named: {first.problem}")
    await lab.operator.json(*words, "--key-in-doubt")
    scene.bundles.append(await lab.bundle())
    await lab.until("everybody is present", lambda: registered(scene))
    detail = await all_under(scene, 2)
    return f"without --key-in-doubt: {first.problem}; with it: done, {detail}"


async def at_once(scene: Scene) -> str:
    """Make a root and revoke the one before in the same breath, before anybody has moved."""
    lab = scene.deployment
    old, frozen = scene.root_name(-1), lab.layout.inside[-1]
    # So that somebody is certainly not there yet, however fast this machine is.
    lab.freeze(frozen)
    try:
        await lab.operator.json("root", "new", "--yes")
        still = (await lab.operator.get("rotation"))["behind"]
        expect(frozen.name in {row["host"] for row in still}, f"{frozen.name} had moved already")
        words = ("root", "revoke", old, "--key-in-doubt", "--reason", "seen elsewhere", "--yes")
        await lab.operator.json(*words)
    finally:
        lab.thaw(frozen)
    scene.bundles.append(await lab.bundle())
    await moved_but(scene)
    await lab.until("everybody is present", lambda: registered(scene))
    detail = await all_under(scene, -1)
    return f"{len(still)} were not there yet when {old} was revoked; none is locked out: {detail}"


STEPS: Final = (
    Step("revoke", "Can I revoke the old root?", revoked, vital=True),
    Step("reconnected", "Is everybody still connected?", reconnected),
    Step("sleeper", "Does the one that slept find its way?", sleeper_back),
    Step("newcomer", "Is the bundle of the first day still good?", newcomer),
    Step("beyond-hub", "Does a new root reach the outside only through the hub?", beyond_hub),
    Step("in-doubt", "And if a key may be stolen, must I wait?", in_doubt),
    Step("at-once", "Not even until everybody has moved?", at_once),
)
