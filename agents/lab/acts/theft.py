"""Act six: somebody has stolen keys that were real, and tries everything he can with them.

First, while they are still good, he opens doors with them: else their refusal would prove
nothing. Then the roots are revoked.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from agents.lab.acts.founding import registered
from agents.lab.acts.line import line_formed, middle_of
from agents.lab.layout import Place, client_place
from agents.lab.observer import Logs
from agents.lab.scene import Scene, Step, expect
from agents.lab.thief import Impostor, Loot, Minted, Thief, knock, mint, own_successor, tail
from pki.keys import PrivateKey
from pki.names import Name, Role

__all__ = ["OPEN_DOORS", "STEPS"]

SOURCE: Final = "127.0.6.66"
"""Where the thief comes from."""
ROLES: Final = (Role.SERVER, Role.HUB, Role.ZONE_SERVER, Role.CLIENT)


def _thief(scene: Scene) -> Thief:
    assert scene.thief is not None  # he came with the new root
    return scene.thief


def _id(scene: Scene, place: Place) -> bytes:
    return bytes.fromhex(scene.deployment.status(place)["id"])


def _roots(scene: Scene) -> list[bytes]:
    """The roots that are public and good; the thief knows them as everybody does."""
    return [root.der for root in scene.bundles[-1].chains[0].trusted_roots]


def _impersonated(scene: Scene, role: Role) -> Place:
    """Whose name a certificate of a role carries: a real one's."""
    layout = scene.deployment.layout
    return {
        Role.SERVER: layout.server,
        Role.HUB: layout.hub,
        Role.ZONE_SERVER: layout.zone,
    }.get(role, layout.inside[0])


def _mint(scene: Scene, loot: Loot, role: Role, *, root: int, zone: bool = False) -> Minted:
    id = _id(scene, _impersonated(scene, role))
    return loot.mint(role, id, root=root, now=scene.deployment.now, zone=zone)


async def open_doors(scene: Scene) -> str:
    """Steal, mint, and get in: the keys are real, and nobody knows yet."""
    lab = scene.deployment
    loot = _thief(scene).loot[0]
    attempts = (
        (lab.layout.server, _mint(scene, loot, Role.HUB, root=0)),
        (lab.layout.zone, _mint(scene, loot, Role.CLIENT, root=0, zone=True)),
        (lab.layout.inside[0], _mint(scene, loot, Role.CLIENT, root=0)),
    )
    for place, minted in attempts:
        result = await knock(place.address, place.port, minted, _roots(scene), source=SOURCE)
        expect(result.admitted, f"{place.name} did not admit a {minted.role}: {result.said}")
    return "copies of pki.db and keys.db mint a hub and two clients that are let in: real keys"


async def knocking(scene: Scene) -> str:
    """Knock at server, zone server and client with a fresh certificate of each role."""
    lab = scene.deployment
    thief = _thief(scene)
    logs = lab.logs()
    tried: list[tuple[Place, Minted]] = []
    for index, loot in enumerate(thief.loot):
        for place in (lab.layout.server, lab.layout.zone, lab.layout.inside[0]):
            for role in ROLES:
                minted = _mint(scene, loot, role, root=index, zone=place is lab.layout.zone)
                result = await knock(
                    place.address, place.port, minted, _roots(scene), source=SOURCE
                )
                expect(not result.admitted, f"{place.name} admitted a stolen {role}")
                tried.append((place, minted))
    await _logged(scene, logs, tried)
    roots = ", ".join(scene.root_name(index) for index in range(len(thief.loot)))
    return f"{len(tried)} certificates of 4 roles at 3 ports ({roots}): each refused and logged"


async def _logged(scene: Scene, logs: Logs, refused: Sequence[tuple[Place, Minted]]) -> None:
    """Wait for a line of each victim that names the key it refused."""
    lab = scene.deployment

    async def written() -> str:
        missing = [
            f"{place.name}: {minted.role} {minted.fingerprint[:16]}"
            for place, minted in refused
            if not logs.lines(place, "link.refused", fingerprint=minted.fingerprint)
        ]
        return f"no line of {'; '.join(missing[:4])} ({len(missing)} missing)" if missing else ""

    await lab.until("each refusal is a line in the victim's log", written)


async def impostors(scene: Scene) -> str:
    """Wait where the hub, a client and a neighbour dial, with stolen keys to show."""
    lab = scene.deployment
    loot = _thief(scene).loot[1]
    before, victim, _ = middle_of(scene)
    as_zone = _mint(scene, loot, Role.ZONE_SERVER, root=1)
    as_peer = loot.mint(Role.CLIENT, _id(scene, victim), root=1, now=lab.now)
    roots = _roots(scene)
    logs = lab.logs()
    await lab.stop(lab.layout.zone)
    await lab.kill(victim)
    scene.absent.add(victim.name)
    at_hub_port = Impostor(as_zone, roots, "hub", lab.clock, tls_client=True)
    at_zone_port = Impostor(as_zone, roots, "client", lab.clock)
    as_neighbour = Impostor(as_peer, roots, "client", lab.clock)
    zone = lab.layout.zone
    try:
        await at_hub_port.listen(zone.address, lab.layout.hub_port)
        await at_zone_port.listen(zone.address, zone.port)
        await as_neighbour.listen(victim.address, victim.port)
        refused = [(lab.layout.hub, as_zone), (before, as_peer)]
        refused += [(place, as_zone) for place in lab.layout.outside]
        await _logged(scene, logs, refused)
    finally:
        for impostor in (at_hub_port, at_zone_port, as_neighbour):
            await impostor.close()
    for impostor in (at_hub_port, at_zone_port, as_neighbour):
        heard = impostor.member_messages
        expect(not heard, f"an impostor was taken for one of us, and heard {heard}")
    scene.absent.discard(victim.name)
    await lab.start(zone, victim)
    await lab.until("everybody is present again", lambda: registered(scene))
    await line_formed(scene)
    return (
        f"false zone server: refused by the hub and {len(lab.layout.outside)} clients; "
        f"false neighbour: by {before.name}; each with its line"
    )


async def own_root(scene: Scene) -> str:
    """Tell one that comes back a ROTATE from Root 0 to a root of the thief's own."""
    lab = scene.deployment
    chain = scene.bundles[0].chains[0]
    key = _key(_thief(scene).loot[0], 0)
    entry, issuer = own_successor(chain, key, lab.now)
    name = Name(chain.deployment, Role.SERVER, _id(scene, lab.layout.server))
    minted = mint(issuer, Role.SERVER, name, lab.now)
    victim = _straggler(scene, "straggler-1")
    impostor = Impostor(minted, _roots(scene), "client", lab.clock, entries=[entry])
    logs = Logs([victim])
    await impostor.listen(SOURCE, lab.layout.port)
    try:
        await lab.start(victim)

        async def refused() -> str:
            return "" if logs.lines(victim, "ledger.refused") else "no line that refuses it"

        await lab.until("the straggler refuses it", refused)
        expect(impostor.ledgers_told > 0, "the thief was never asked")
        last = lab.status(victim)["ledger"][0]
        expect(last["n"] == 0, f"its ledger ends at {last['n']}")
        expect(not impostor.member_messages, "it spoke to the thief as to its server")
    finally:
        await impostor.close()
        await lab.stop(victim)
    line = logs.lines(victim, "ledger.refused")[0]
    return f"refused: {line['reason']}"


async def forged_tail(scene: Scene) -> str:
    """Mislead a straggler with two revoked roots; then let it hear the honest chain."""
    lab = scene.deployment
    chain = scene.bundles[-1].chains[0]
    loot = _thief(scene).loot[1]
    entry, forged = tail(chain, chain.roots[1], [_key(loot, 0, scene), _key(loot, 1)], lab.now)
    minted = _mint(scene, loot, Role.SERVER, root=1)
    victim = _straggler(scene, "straggler-2")
    impostor = Impostor(minted, _roots(scene), "client", lab.clock, entries=[entry])
    await impostor.listen(SOURCE, lab.layout.port)
    try:
        await lab.start(victim)

        async def misled() -> str:
            last = lab.status(victim)["ledger"][0]["entry_id"]
            return "" if last == forged.hex() else f"its ledger ends at {last[:16]}"

        await lab.until("the straggler believes the forged entry", misled)
    finally:
        await impostor.close()
        await lab.stop(victim)
    logs = Logs([victim])
    honest = client_place(lab.layout, victim.name, victim.address, lab.layout.server)
    honest.config.write_text(honest.toml())
    await lab.start(honest)

    async def healed() -> str:
        own, server = lab.status(honest)["ledger"], lab.status(lab.layout.server)["ledger"]
        return "" if own == server else f"its ledger ends at {own}"

    await lab.until("it has the honest ledger", healed)

    async def shown() -> str:
        await lab.shown(honest, [scene.root(-1)])
        return ""

    await lab.until("it shows a certificate under the newest root", shown)
    reported = logs.lines(honest, "ledger.forked")
    expect(bool(reported), "the fork is not in its log")
    await lab.stop(honest)
    return (
        f"misled while it heard nobody else; then healed, a fork at entry {reported[0]['n']} logged"
    )


def _key(loot: Loot, index: int, scene: Scene | None = None) -> PrivateKey:
    """The private half of a root from this theft, or from the first."""
    key = loot.root_key(index)
    if key is None and scene is not None:
        key = _thief(scene).loot[0].root_key(index)
    if key is None:
        raise LookupError(f"root {index} was not among what was stolen")
    return key


def _straggler(scene: Scene, name: str) -> Place:
    """A client with the first bundle and nothing else, whose server's name leads to the thief."""
    layout = scene.deployment.layout
    thief = replace(layout.server, address=SOURCE)
    number = int(name.rpartition("-")[2])
    place = client_place(layout, name, f"127.0.3.{10 + number}", thief)
    shutil.rmtree(place.folder, ignore_errors=True)
    place.prepare()
    return place


OPEN_DOORS: Final = (Step("stolen", "Are stolen keys dangerous before the revoke?", open_doors),)
STEPS: Final = (
    Step("knocking", "And after it, do they open any door?", knocking),
    Step("impostors", "Can he wait where we dial?", impostors),
    Step("own-root", "Can he tell a straggler a root of his own?", own_root),
    Step("forged-tail", "Can he mislead a straggler for good?", forged_tail),
)
