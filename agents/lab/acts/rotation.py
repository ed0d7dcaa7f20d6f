"""Act four: a new root, and the week after it."""

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from agents.lab import observer
from agents.lab.acts.dmz import renew
from agents.lab.acts.founding import registered
from agents.lab.acts.line import line_formed
from agents.lab.layout import Place
from agents.lab.observer import read_log
from agents.lab.scene import Scene, Step, expect
from agents.lab.thief import Thief
from pki.certificates import Kind
from pki.rotation import CLIENT_WINDOW, SETTINGS, kind_of

__all__ = ["STEPS", "all_under", "behind", "moved_but", "ports_under"]

CLIENT_VALIDITY: Final = "pki_client_tls_key_duration_days"
LATE: Final = timedelta(minutes=30)
"""How much of its life a certificate may have used when we look: the lab's time goes on."""
WEEK: Final = timedelta(days=7, hours=1)


async def set_all(scene: Scene, values: Mapping[str, int]) -> None:
    """Change settings on the running deployment."""
    for name, value in values.items():
        await scene.deployment.operator.json("settings", "set", name, str(value))


def life(row: Mapping[str, Any], now: datetime) -> timedelta:
    """How long a certificate of a report is still good."""
    return observer.read_date(row["not_after"]) - now


async def client_settings(scene: Scene) -> str:
    """Change validity and window of client keys; look at the next certificates; set them back."""
    lab = scene.deployment
    changed = {CLIENT_VALIDITY: 9, CLIENT_WINDOW: 6}
    places = (lab.layout.inside[0], lab.layout.outside[0])
    details = []
    for values in (changed, {name: SETTINGS[name] for name in changed}):
        await set_all(scene, values)
        days, hours = values[CLIENT_VALIDITY], values[CLIENT_WINDOW]
        await asyncio.gather(*(_renews_with(scene, place, days, hours) for place in places))
        details.append(f"{values[CLIENT_VALIDITY]} d / {values[CLIENT_WINDOW]} h")
    return (
        f"the next certificates of {places[0].name} and {places[1].name}: {', then '.join(details)}"
    )


async def _renews_with(scene: Scene, place: Place, days: int, hours: int) -> None:
    lab = scene.deployment
    validity = timedelta(days=days)

    async def as_set() -> str:
        leaf = await renew(scene, place)
        left = leaf.not_after - lab.now
        if not validity - LATE < left <= validity:
            return f"{place.name}: good for {left}"
        serial = format(leaf.serial, "x")

        async def reported() -> str:
            row = lab.key(place, "client-tls")
            return "" if row["serial"] == serial else "an older one"

        await lab.until("it reports that certificate", reported)
        window = lab.key(place, "client-tls")["window"]
        return "" if window == hours * 3600 else f"{place.name}: window {window} s"

    # The zone server hears of a setting through its hub, a moment later.
    await lab.until("the next certificate is as set", as_set)


async def sleeper_off(scene: Scene) -> str:
    """Switch one client off, as somebody does before a holiday; its state stays."""
    lab = scene.deployment
    scene.absent.add(scene.sleeper.name)
    await lab.stop(scene.sleeper)
    row = lab.key(scene.sleeper, "client-tls")
    detail = await line_formed(scene)
    until = observer.read_date(row["not_after"])
    return f"{scene.sleeper.name} stopped, its key is good until {until:%m-%d %H:%M}; {detail}"


async def new_root(scene: Scene) -> str:
    """Create a root. The command asks first, since the last one is young."""
    lab = scene.deployment
    await set_all(scene, _others())
    thief = scene.thief = Thief(lab.layout, lab.layout.root / "thief")
    thief.steal(scene.bundles[-1].chains[0])
    asked = await lab.operator.run("root", "new")
    expect(asked.code != 0, "a second root within 182 days was made without a question")
    expect("--yes" in asked.err, f"the refusal does not name --yes: {asked.problem}")
    made = await lab.operator.json("root", "new", "--yes")
    scene.bundles.append(await lab.bundle())
    expect(made["root"]["name"] == "server.lab Root 1", f"it is named {made['root']['name']}")
    roots = await lab.operator.json("root", "list")
    active = [row["name"] for row in roots if not row["revoked"]]
    expect(len(active) == 2, f"active roots: {active}")
    return f"{made['root']['name']}, beside Root 0; without --yes it was refused: {asked.problem}"


def _others() -> dict[str, int]:
    """Ten settings changed: one day less, one hour more, for every kind but client keys."""
    return {
        name: default + (1 if "window" in name.lower() else -1)
        for name, default in SETTINGS.items()
        if kind_of(name) is not Kind.CLIENT_TLS
    }


async def behind(scene: Scene) -> list[dict[str, Any]]:
    """Who has not moved to the newest root, as the command line shows it."""
    found = await scene.deployment.operator.json("rotation", "status", "--behind")
    rows: list[dict[str, Any]] = found["rows"]
    return rows


async def moved_but(scene: Scene, *names: str) -> dict[str, Any]:
    """Wait until all but these have acknowledged the newest root; returns the coverage."""
    lab = scene.deployment
    last: dict[str, Any] = {}

    async def moved() -> str:
        last.update(await lab.operator.get("rotation"))
        missing = {
            row["host"] if row["role"] == "client" else row["role"] for row in last["behind"]
        }
        late = sorted(missing - set(names))
        return f"not moved: {', '.join(late[:6])}" if late else ""

    await lab.until("everybody has moved", moved)
    return last


async def covered(scene: Scene) -> str:
    """Wait for everybody's acknowledgement; look who is named as missing, and why."""
    lab = scene.deployment
    await moved_but(scene, scene.sleeper.name)
    rows = await behind(scene)
    expect(len(rows) == 1, f"behind: {[row['host'] for row in rows]}")
    row = rows[0]
    expect(row["host"] == scene.sleeper.name, f"behind is {row['host']}")
    expect(row["state"] == "offline", f"{row['host']} is {row['state']}")
    expect("will follow" in row["why"], f"why: {row['why']}")
    counts = (await lab.operator.get("rotation"))["counts"]
    moved = sum(count.get("moved", 0) for count in counts.values())
    return f"{moved} have moved; {row['host']}: {row['why']}"


async def ports_under(scene: Scene, index: int) -> str:
    """Look at every port with this root alone trusted, and at the line."""
    lab = scene.deployment
    listening = [place for place in lab.running if place.role != "hub"]

    async def shown() -> str:
        for place in listening:
            await lab.shown(place, [scene.root(index)])
        return ""

    await lab.until("every port shows a certificate under it", shown)
    await line_formed(scene)
    return f"{len(listening)} ports show certificates under {scene.root_name(index)}"


async def all_under(scene: Scene, index: int) -> str:
    """The same, and the other end of every link: as it must be once the others are revoked."""
    lab = scene.deployment
    root = scene.root_id(index)
    detail = await ports_under(scene, index)

    async def linked() -> str:
        old = [
            f"{place.name} to {link['peer_role']}"
            for place in lab.running
            for link in lab.status(place)["links"]
            if link["root"] not in (None, root)
        ]
        return f"links under another root: {', '.join(old[:5])}" if old else ""

    await lab.until("every link was made again", linked)
    await line_formed(scene)
    return f"{detail}, and every link is"


async def rotated(scene: Scene) -> str:
    """Handshakes under the new root; and the other ten settings on the keys that it brought."""
    lab = scene.deployment
    detail = await ports_under(scene, 1)
    wanted = _others()
    seen: set[str] = set()

    async def as_set() -> str:
        for place in (lab.layout.server, lab.layout.hub, lab.layout.zone):
            for row in lab.status(place)["keys"]:
                days, hours = _wanted(wanted, row["kind"])
                left = life(row, lab.now)
                if not timedelta(days=days) - LATE < left <= timedelta(days=days):
                    return f"{place.name}: {row['kind']} is good for {left}, {days} days are set"
                if row["window"] != hours * 3600:
                    return f"{place.name}: {row['kind']} has window {row['window']} s"
                seen.add(f"{place.name} {row['kind']}")
        return ""

    # Reports are a second old.
    await lab.until("each key has what was set", as_set)
    shown = await lab.shown(lab.layout.server, [scene.root(1)])
    expect(shown.leaf.not_after - lab.now <= timedelta(days=59), "the server's port shows 60 days")
    await set_all(scene, {name: SETTINGS[name] for name in wanted})
    return f"{detail}; {len(seen)} keys of 5 kinds have the validity and window that were set"


def _wanted(values: Mapping[str, int], kind: str) -> tuple[int, int]:
    """Days and hours that are set for a kind."""
    both = {name: value for name, value in values.items() if kind_of(name).value == kind}
    days = next(value for name, value in both.items() if "window" not in name.lower())
    hours = next(value for name, value in both.items() if "window" in name.lower())
    return days, hours


async def week(scene: Scene) -> str:
    """Pass a week with all its renewals; the sleeper's certificate expires in it."""
    lab = scene.deployment
    before = {place.name: lab.key(place, "client-tls")["serial"] for place in lab.clients}
    start = lab.now
    if scene.show:
        await _walk_through_window(scene)
    await lab.conductor.advance_to(start + WEEK)
    await lab.conductor.settled()

    async def renewed() -> str:
        late = []
        for place in lab.clients:
            shown = await lab.shown(place, [scene.root(1)])
            same = format(shown.leaf.serial, "x") == before[place.name]
            if same or shown.leaf.not_after <= lab.now:
                late.append(place.name)
        return f"not renewed: {', '.join(late[:6])}" if late else ""

    await lab.until("every client shows a later certificate", renewed)
    await lab.until("every client is present", lambda: registered(scene))
    await line_formed(scene)
    expired = observer.read_date(lab.key(scene.sleeper, "client-tls")["not_after"])
    expect(expired < lab.now, f"{scene.sleeper.name}'s certificate is good until {expired}")
    passed = lab.now - start
    return (
        f"{passed.days} days passed, {len(before)} clients renewed by themselves; "
        f"{scene.sleeper.name}'s certificate expired {expired:%m-%d %H:%M}"
    )


async def _walk_through_window(scene: Scene) -> None:
    """For an audience: leap to where the first renewals are due, and walk from there."""
    lab = scene.deployment
    rows = [lab.key(place, "client-tls") for place in lab.clients]
    window = timedelta(hours=SETTINGS[CLIENT_WINDOW])
    ends = sorted(observer.read_date(row["not_after"]) for row in rows)
    await lab.conductor.advance_to(ends[0] - window)
    await lab.conductor.advance_to(ends[-1] - window / 2, show=True)


async def traced(scene: Scene) -> str:
    """Follow the new root by its trace, through the log of everybody who heard of it (K3)."""
    lab = scene.deployment
    created = read_log(lab.layout.server.log, "root.created")
    expect(len(created) == 1, f"{len(created)} roots were made, as the server's log says")
    trace = created[0]["trace"]
    found = await lab.operator.run("logs", "--trace", trace, "--json", str(lab.layout.logs))
    expect(found.code == 0, found.problem)
    lines = [json.loads(line) for line in found.out.splitlines()]
    ids = {line["id"] for line in lines}
    told = [place for place in lab.running if lab.status(place)["id"] in ids]
    named = {place.name for place in told}
    expect({"server", "hub", "zone-server"} < named, f"the trace leads to {', '.join(named)} only")
    # Who was registering at that moment met the new root before anybody told it, and asked:
    # that matter has a trace of its own.
    asked = [place for place in lab.running if place not in told]
    silent = [place.name for place in asked if not _followed(place, scene.root_id(1))]
    expect(not silent, f"no line of {', '.join(silent[:6])} says how it heard of the root")
    itself = f"; {', '.join(place.name for place in asked)} asked by themselves" if asked else ""
    return f"trace {trace}: {len(lines)} lines of {len(told)} components, in one command{itself}"


def _followed(place: Place, root: str) -> bool:
    """Whether a component's log says that it followed to a root."""
    lines = read_log(place.log, "ledger.followed")
    return any(line["newest_root"] == root for line in lines)


async def cut_off(scene: Scene) -> str:
    """Ask who has not moved; nobody but the sleeper is named."""
    rows = await behind(scene)
    expect(
        [row["host"] for row in rows] == [scene.sleeper.name],
        f"behind: {[row['host'] for row in rows]}",
    )
    return f"only {rows[0]['host']}, {rows[0]['why']}"


STEPS: Final = (
    Step("settings", "Does a changed setting reach the next client key?", client_settings),
    Step("asleep", "What if a client is switched off?", sleeper_off),
    Step("new-root", "Can I make a new root?", new_root, vital=True),
    Step("coverage", "Who has moved to it?", covered),
    Step("trace", "Can I follow it through the logs?", traced),
    Step("rotated", "Is everything under it, as it is set?", rotated),
    Step("week", "Does a week pass by itself?", week),
    Step("cut-off", "Who would be cut off if I revoked the old root now?", cut_off),
)
