"""`anchorline status`: a whole deployment on one screen."""

from typing import Any

import click

from agents.cli.api import Client
from agents.cli.tables import Column, date, mark, short
from agents.cli.terminal import Terminal, json_option, pass_terminal, plain

__all__ = ["KEYS", "LINKS", "status"]

ROOTS = (
    Column("ROOT", "name"),
    Column("FINGERPRINT", "fingerprint"),
    Column("CREATED", "created", date),
    Column("NEWEST", "current", mark),
)
KEYS = (
    Column("KEY", "kind"),
    Column("FINGERPRINT", "fingerprint", short),
    Column("UNDER ROOT", "root", short),
    Column("VALID UNTIL", "not_after", date),
    Column("NEXT RENEWAL", "next_renewal", date),
)
COMPONENTS = (
    Column("COMPONENT", "role"),
    Column("HOST", "host"),
    Column("FINGERPRINT", "fingerprint", short),
    Column("STATE", "state"),
    Column("CONNECTED", "connected", mark),
    Column("LAST SEEN", "last_seen", date),
)
LINKS = (
    Column("LINK", "link"),
    Column("CLASS", "class"),
    Column("PEER", "peer_role"),
    Column("ID", "peer", short),
    Column("REMOTE", "remote"),
)
MAX_LINKS = 10
"""Links that one screen shows; --json has all."""


@click.command()
@json_option
@pass_terminal
def status(terminal: Terminal) -> None:
    """Show a whole deployment on one screen."""
    found = Client(terminal.socket).get("status")
    if terminal.json:
        terminal.show_json(found)
    else:
        _screen(terminal, found)


def _screen(terminal: Terminal, found: dict[str, Any]) -> None:
    show = terminal.show
    server, ledger, clients = found["server"], found["ledger"], found["clients"]
    show(f"server      {plain(server['fqdn'])} at {plain(server['listen'])}, id {found['id']}")
    show(f"deployment  {found['deployment']}, fingerprint {found['fingerprint']}")
    show(f"time        {date(found['time'])}")
    show(f"ledger      entry {ledger['n']}, last head {_date(ledger['head_time'])}")
    show(f"signatures  {', '.join(f'{n} by {who}' for who, n in found['signatures'].items())}")
    show()
    terminal.table(found["roots"], ROOTS, empty="no root")
    age = found["root_age"]
    warning = f": {plain(age['warning'])}" if age["warning"] else ""
    show(f"the newest root is {age['days']} days old{warning}")
    if not found["can_sign"]:
        show("this server CANNOT SIGN: its newest root's key is not here")
    show()
    terminal.table(found["keys"], KEYS, empty="no key")
    show()
    if found["components"]:
        terminal.table(found["components"], COMPONENTS, empty="")
        show()
    links = found["links"]
    if links:
        terminal.table(links[:MAX_LINKS], LINKS, empty="")
        if len(links) > MAX_LINKS:
            show(f"... and {len(links) - MAX_LINKS} more links")
        show()
    show(
        f"clients     {clients['total']}, {clients['present']} present,"
        f" {clients['behind']} behind the newest root"
    )
    behind = [plain(name) for name in found["behind"]]
    more = f" and {len(behind) - 10} more" if len(behind) > 10 else ""
    show(f"behind      {', '.join(behind[:10]) or 'nobody'}{more}")


def _date(value: object) -> str:
    return "none" if value is None else date(value)
