"""Act two: the line of clients, as the kernel sees it."""

from itertools import pairwise
from typing import Final

from agents.lab.acts.dmz import renew
from agents.lab.acts.founding import registered
from agents.lab.layout import Place
from agents.lab.scene import NotObservedError, Scene, Step, expect

__all__ = ["POWER", "STEPS", "line_as_planned", "line_formed"]


def planned(scene: Scene) -> tuple[set[frozenset[str]], set[str]]:
    """The pairs that should be linked, and the ends, among those that run: by address (G1)."""
    lab = scene.deployment
    pairs: set[frozenset[str]] = set()
    ends: set[str] = set()
    for chain in lab.layout.chains():
        names = [place.name for place in chain if lab.runs(place)]
        pairs |= {frozenset(pair) for pair in pairwise(names)}
        ends |= set(names[:1] + names[-1:])
    return pairs, ends


async def line_as_planned(scene: Scene) -> str:
    """What differs between the plan and the connections of the kernel's tables."""
    lab = scene.deployment
    tables = lab.tables()
    names = {lab.pid(place): place.name for place in lab.clients}
    found = {frozenset(names[pid] for pid in pair) for pair in tables.pairs(names)}
    pairs, ends = planned(scene)
    wrong = [*(f"no link {_pair(p)}" for p in pairs - found)]
    wrong += [f"link {_pair(p)} is not planned" for p in found - pairs]
    responders = {(place.address, place.port) for place in (lab.layout.server, lab.layout.zone)}
    holding = {
        name
        for pid, name in names.items()
        if any(connection.remote in responders for connection in tables.of(pid))
    }
    # Others are there for the moment of a registration; a leader is there always.
    wrong += [f"leader {name} has no link to its responder" for name in sorted(ends - holding)]
    return "; ".join(sorted(wrong)[:5])


def _pair(pair: frozenset[str]) -> str:
    return "-".join(sorted(pair))


async def line_formed(scene: Scene) -> str:
    """Wait for the planned line; returns how many links it has."""
    lab = scene.deployment
    await lab.until("the line is as planned", lambda: line_as_planned(scene))
    pairs, ends = planned(scene)
    return f"{len(pairs)} peer links, {len(ends)} leaders"


async def formed(scene: Scene) -> str:
    """Compare plan and kernel, and see that nobody but a leader stays at its responder."""
    lab = scene.deployment
    detail = await line_formed(scene)
    _, ends = planned(scene)
    names = {lab.pid(place): place.name for place in lab.clients}
    responders = {(place.address, place.port) for place in (lab.layout.server, lab.layout.zone)}

    # A connection that is in the tables at each of several looks stays; a visit does not.
    seen: dict[tuple[str, int], int] = {}
    looks = 8
    for _ in range(looks):
        tables = lab.tables()
        for pid, name in names.items():
            for connection in tables.of(pid):
                if connection.remote in responders and name not in ends:
                    key = (name, connection.local[1])
                    seen[key] = seen.get(key, 0) + 1
        await lab.clock.sleep(0.25)
    staying = sorted({name for (name, _), times in seen.items() if times == looks})
    expect(not staying, f"no leaders, and yet connected: {', '.join(staying)}")
    chains = len(lab.layout.chains())
    return f"{chains} chains: {detail}; nobody else stays connected to a responder"


async def middle_dies(scene: Scene) -> str:
    """Kill a member in the middle of a chain: its neighbours link up, and let it in again."""
    lab = scene.deployment
    before, middle, after = middle_of(scene)
    await lab.kill(middle)
    gap = frozenset((before.name, after.name))

    async def linked() -> str:
        names = {lab.pid(place): place.name for place in lab.clients}
        pairs = {frozenset(names[p] for p in pair) for pair in lab.tables().pairs(names)}
        return "" if gap in pairs else f"no link {_pair(gap)}"

    started = lab.clock.monotonic()
    await lab.until("its two neighbours are linked", linked)
    took = lab.clock.monotonic() - started
    await lab.start(middle)
    await lab.until("it is registered again", lambda: registered(scene))
    await line_formed(scene)
    return (
        f"{middle.name} killed: {_pair(gap)} linked after {took:.1f} s; "
        "started again, it stands in its old place"
    )


async def power_cut(scene: Scene) -> str:
    """Kill a responder right after it has issued: what it has signed is on its record."""
    lab = scene.deployment
    for responder, place in (
        (lab.layout.server, lab.layout.inside[0]),
        (lab.layout.zone, lab.layout.outside[0]),
    ):
        before = await _signed(scene, responder)
        await renew(scene, place)
        await lab.kill(responder)
        await lab.start(responder)

        async def recorded(responder: Place = responder, before: int = before) -> str:
            signed = await _signed(scene, responder) - before
            return "" if signed >= 1 else f"{signed} on record since"

        await lab.until(f"{responder.name} remembers what it has signed", recorded)
    await lab.until("everybody is registered", lambda: registered(scene))
    return (
        f"server and zone server killed after an answer, nothing lost; {await line_formed(scene)}"
    )


async def _signed(scene: Scene, responder: Place) -> int:
    """How many certificates of clients a responder has on record."""
    lab = scene.deployment
    if responder.role == "server":
        return int((await lab.operator.get("status"))["signatures"]["client_ca"])
    report = lab.status(responder)
    if lab.pid(responder) != report["pid"]:
        return 0  # of the process before
    return int(report["signed"])


def middle_of(scene: Scene) -> tuple[Place, Place, Place]:
    """Three neighbours that run, none of them the sleeper in the middle."""
    lab = scene.deployment
    for chain in lab.layout.chains():
        there = [place for place in chain if lab.runs(place)]
        for before, middle, after in zip(there, there[1:], there[2:], strict=False):
            if middle.name != scene.sleeper.name:
                return before, middle, after
    raise NotObservedError("no chain with three members")


POWER: Final = (Step("power-cut", "Is anything lost in a power cut?", power_cut),)
STEPS: Final = (
    Step("line", "Do the chains stand as they should, leaders at their ends?", formed),
    Step("broken", "What if somebody in the middle dies?", middle_dies),
)
