"""`anchorline pki`: the keys of any component on this host, whether it runs or not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from agents.cli.bundle import ROOTS, slot_rows
from agents.cli.state import read_report
from agents.cli.status import KEYS, LINKS
from agents.cli.tables import date
from agents.cli.terminal import Terminal, json_option, pass_terminal, plain
from agents.runtime.errors import AgentError
from agents.runtime.statefiles import LEDGER, LOCK

__all__ = ["component", "pki"]

STATES = Path("/var/lib/anchorline")
MAX_LINKS = 10


@click.group()
def pki() -> None:
    """Show the keys of any component, running or not."""


@pki.command()
@click.option(
    "--state",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, readable=False),
    help=f"Its state directory; by default all in {STATES}.",
)
@json_option
@pass_terminal
def show(terminal: Terminal, folders: Sequence[Path]) -> None:
    """Show roots, keys, expiries and the ledger's head."""
    found = [component(folder) for folder in folders or _installed()]
    if terminal.json:
        terminal.show_json(found)
        return
    for place, one in enumerate(found):
        if place:
            terminal.show()
        _show(terminal, one)


def component(folder: Path) -> dict[str, Any]:
    """Return what a state directory says: the last report, and the ledger as it is on disk.

    Raises:
        AgentError: There is neither, or it may not be read.
    """
    report = read_report(folder)
    slots = _ledger(folder)
    if report.written is None and slots is None:
        raise AgentError(
            f"no component has its state in {folder}",
            hint="name its state directory with --state; the configuration has it as `state`",
        )
    return {
        "state": str(folder),
        "running": report.pid,
        "report": report.written,
        "ledger": slots or [],
    }


def _installed() -> list[Path]:
    try:
        folders = sorted(path for path in STATES.iterdir() if (path / LOCK).exists())
    except OSError:
        folders = []
    if not folders:
        raise AgentError(
            f"no component has its state in {STATES}, or this user may not look",
            hint="run this as root, or name the state directory with --state",
        )
    return folders


def _ledger(folder: Path) -> list[dict[str, Any]] | None:
    from agents.runtime.errors import MissingError
    from agents.runtime.files import TwoGenerations
    from pki.errors import PKIError
    from pki.state import decode_state

    file = TwoGenerations(folder / LEDGER)
    try:
        data, _ = file.read()
        state = decode_state(data)
    except MissingError:
        return None
    except PKIError as exc:
        raise AgentError(f"the ledger in {folder} is damaged: {exc}") from exc
    rows = []
    for slot in state.slots:
        rows.append(
            {
                **slot_rows(slot.chain),
                "head_time": None if slot.head is None else slot.head.head.time,
                "denied": sorted(key_id.hex() for key_id in slot.denied),
            }
        )
    return rows


def _show(terminal: Terminal, found: dict[str, Any]) -> None:
    show = terminal.show
    written = found["report"]
    running = f"process {found['running']}" if found["running"] else "not running"
    if written is None:
        show(f"{found['state']}: {running}, has not reported yet")
    else:
        show(f"{plain(written['role'])} {plain(written['id'])}, {running}")
        show(f"state       {found['state']}, reported at {date(written['time'])}")
        if "identity" in written:
            show(f"fingerprint {plain(written['identity'])}")
        show(f"deployment  {plain(written['deployment'])}")
    for slot in found["ledger"]:
        head = "none counted" if slot["head_time"] is None else date(slot["head_time"])
        show(f"ledger      {slot['slot']}")
        show(f"            entry {slot['n']}, id {slot['entry_id']}, head {head}")
        terminal.table(slot["roots"], ROOTS, empty="no root")
        for denied in slot["denied"]:
            show(f"denied key  {denied}")
    if written is None:
        return
    show()
    if written["keys"]:
        terminal.table(written["keys"], KEYS, empty="")
    else:
        show("no certificate yet")
    links = written.get("links", [])
    if links and found["running"]:
        show()
        terminal.table(links[:MAX_LINKS], LINKS, empty="")
        if len(links) > MAX_LINKS:
            show(f"... and {len(links) - MAX_LINKS} more links")
