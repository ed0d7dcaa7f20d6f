"""`anchorline clients`: what the server knows of each client."""

import click

from agents.cli.api import Client
from agents.cli.tables import Column, date, mark, short
from agents.cli.terminal import Terminal, json_option, pass_terminal

__all__ = ["clients"]

ROWS = (
    Column("HOST", "host"),
    Column("ID", "id", short),
    Column("ADDRESS", "address"),
    Column("SEEN FROM", "seen"),
    Column("PORT", "port"),
    Column("STATUS", "status"),
    Column("REPORTS TO", "responder_role"),
    Column("CHAIN", "chain"),
    Column("PLACE", "place"),
    Column("VALID KEY", "valid_key", mark),
    Column("KEY UNTIL", "key_not_after", date),
    Column("LAST REGISTRATION", "last_registration", date),
)


@click.group()
def clients() -> None:
    """List clients."""


@clients.command("list")
@json_option
@pass_terminal
def list_clients(terminal: Terminal) -> None:
    """List every client of the server and of its zone servers.

    VALID KEY and KEY UNTIL are about the key that a client has proven at its LAST REGISTRATION; one
    that it got since shows after the next.
    """
    rows = Client(terminal.socket).get("clients")
    if terminal.json:
        terminal.show_json(rows)
        return
    shown = [{**row, "place": _place(row)} for row in rows]
    terminal.table(shown, ROWS, empty="no client has registered yet")


def _place(row: dict[str, object]) -> str:
    if row["index"] is None:
        return ""
    return f"{row['index']} leader" if row["leader"] else str(row["index"])
