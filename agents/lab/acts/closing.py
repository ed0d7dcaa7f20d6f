"""The last act: what must be true of the whole story."""

import base64
from collections.abc import Sequence
from typing import Final

from agents.lab.observer import read_log
from agents.lab.scene import Scene, Step, expect
from agents.lab.thief import Loot
from agents.runtime.statefiles import STATUS
from pki.keys import private_bytes

__all__ = ["STEPS"]


async def nothing_lost(scene: Scene) -> str:
    """Every ping that a client has sent since it was started is answered (B9)."""
    lab = scene.deployment
    counts: dict[str, tuple[int, int]] = {}

    async def settled() -> str:
        for place in lab.clients:
            pings = lab.status(place).get("pings", {})
            if pings and pings["open"] == 0 and pings["sent"] == pings["answered"] > 0:
                counts[place.name] = (pings["sent"], pings["answered"])
        missing = [place.name for place in lab.clients if place.name not in counts]
        return f"open: {', '.join(missing[:6])}" if missing else ""

    await lab.until("sent = answered", settled)
    sent = sum(pair[0] for pair in counts.values())
    answered = sum(pair[1] for pair in counts.values())
    received = sum(lab.status(place)["pings"]["received"] for place in lab.clients)
    expect(received > 0, "no client has answered a neighbour")
    return f"{sent} sent, {answered} answered; {received} of them by neighbours"


async def signatures(scene: Scene) -> str:
    """Roots have signed for components only, and few of those; client CAs for clients (A6)."""
    lab = scene.deployment
    counts = (await lab.operator.get("status"))["signatures"]
    clients = counts["client_ca"] + counts["zone_client_ca"]
    roots = len(scene.bundles[-1].chains[0].roots)
    most = roots * PER_ROOT
    expect(counts["root"] <= most, f"{counts['root']} certificates by {roots} roots")
    expect(clients > 2 * len(lab.layout.clients), f"only {clients} certificates of clients")
    return f"{roots} roots signed {counts['root']} certificates, client CAs {clients}"


async def secrets_stay(scene: Scene) -> str:
    """Look for the stolen private keys in everything that was handed out, shown or logged (A4)."""
    lab = scene.deployment
    assert scene.thief is not None  # he came with the first new root
    needles = _written(scene.thief.loot)
    places = [*lab.layout.logs.iterdir(), *lab.layout.root.glob("*.dat")]
    places += [place.state / STATUS for place in lab.layout.places]
    for path in places:
        text = path.read_bytes()
        expect(not any(needle in text for needle in needles), f"a private key in {path}")
    for words in (("status",), ("root", "list"), ("root", "log"), ("approvals", "list")):
        told = (await lab.operator.run(*words, "--json")).out.encode()
        expect(not any(needle in told for needle in needles), f"a private key in {words}")
    return f"{len(needles) // 4} private keys are in none of {len(places)} files, nor in any answer"


def _written(loot: Sequence[Loot]) -> list[bytes]:
    """How private keys that are known to us could be written: raw, hex, base64 and PKCS#8."""
    keyrings = [keyring for one in loot for keyring in (one.server, one.zone)]
    held = [keyring.identity for keyring in keyrings]
    held += [c.key for keyring in keyrings for c in keyring.credentials]
    held += [key for one in loot for key in map(one.server.root, one.server.root_ids) if key]
    found: list[bytes] = []
    for key in held:
        scalar = key.private_numbers().private_value.to_bytes(32, "big")
        pkcs8 = private_bytes(key)
        found += [scalar, scalar.hex().encode(), base64.b64encode(scalar)[:-2], pkcs8]
    return found


async def no_faults(scene: Scene) -> str:
    """No log holds a fault of ours, and nobody has ended who should run."""
    lab = scene.deployment
    logs = {path.stem: read_log(path) for path in sorted(lab.layout.logs.iterdir())}
    faults = [
        f"{name}: {line['event']}"
        for name, lines in logs.items()
        for line in lines
        if line["event"] in FAULTS or "traceback" in line
    ]
    expect(not faults, f"{len(faults)} faults: {', '.join(faults[:5])}")
    return f"{sum(map(len, logs.values()))} lines of {len(logs)} logs, no fault of ours"


FAULTS: Final = frozenset({"handler.failed", "task.failed", "callback.failed", "daemon.failed"})

PER_ROOT: Final = 12
"""Three keys of the server, one of the hub, two of the zone server; and as many once more."""

STEPS: Final = (
    Step("pings", "Was any message lost in all this?", nothing_lost),
    Step("signatures", "Who has signed what?", signatures),
    Step("secrets", "Is a private key anywhere but in its place?", secrets_stay),
    Step("faults", "Do the logs hold a fault of ours?", no_faults),
)
