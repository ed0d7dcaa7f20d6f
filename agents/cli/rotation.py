"""`anchorline rotation`: who has followed to the newest root, and what is in force."""

import click

from agents.cli.api import Client
from agents.cli.coverage import show_coverage, summary
from agents.cli.tables import Column, span
from agents.cli.terminal import Terminal, json_option, pass_terminal

__all__ = ["rotation"]

POLICIES = (
    Column("KEY", "kind"),
    Column("VALID", "validity", span),
    Column("RENEWED BEFORE ITS END", "window", span),
    Column("RAISED", "raised", "; ".join),
)


@click.group()
def rotation() -> None:
    """See who has followed to the newest root."""


@rotation.command("status")
@click.option("--behind", is_flag=True, help="Only those that have not.")
@json_option
@pass_terminal
def status(terminal: Terminal, behind: bool) -> None:
    """Show who has followed to the newest root, by name."""
    found = Client(terminal.socket).get("rotation", query=f"behind={str(behind).lower()}")
    if terminal.json:
        terminal.show_json(found)
        return
    show_coverage(terminal, found, every=not behind)
    if not behind:
        terminal.show()
        terminal.table(found["settings"], POLICIES, empty="")
    terminal.say(summary(found))
