"""The last act: what must be true of the whole story."""

from typing import Final

from agents.lab.observer import read_log
from agents.lab.scene import Scene, Step, expect

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
    """A root has signed for components only: three times three kinds and two (A6)."""
    lab = scene.deployment
    counts = (await lab.operator.get("status"))["signatures"]
    clients = counts["client_ca"] + counts["zone_client_ca"]
    expect(clients > 2 * len(lab.layout.clients), f"only {clients} certificates of clients")
    return f"roots signed {counts['root']} certificates, client CAs {clients}"


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


FAULTS: Final = frozenset({"handler.failed", "task.failed", "daemon.failed"})

STEPS: Final = (
    Step("pings", "Was any message lost in all this?", nothing_lost),
    Step("signatures", "Who has signed what?", signatures),
    Step("faults", "Do the logs hold a fault of ours?", no_faults),
)
