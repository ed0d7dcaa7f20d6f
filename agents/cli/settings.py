"""`anchorline settings`: the deployment's settings."""

from typing import Any

import click

from agents.cli.api import Client
from agents.cli.tables import Column, date
from agents.cli.terminal import Terminal, json_option, pass_terminal, plain

__all__ = ["settings"]

ROWS = (
    Column("NAME", "name"),
    Column("VALUE", "value", str),
    Column("DEFAULT", "default", str),
    Column("IN FORCE", "effective", str),
    Column("CHANGED BY", "changed_by"),
    Column("CHANGED", "changed_at", date),
    Column("NOTE", "note"),
)


@click.group()
def settings() -> None:
    """Read and change settings."""


@settings.command("list")
@json_option
@pass_terminal
def list_settings(terminal: Terminal) -> None:
    """List every setting."""
    _show(terminal, Client(terminal.socket).get("settings"))


@settings.command("get")
@click.argument("name")
@json_option
@pass_terminal
def get(terminal: Terminal, name: str) -> None:
    """Show one setting."""
    row = Client(terminal.socket).get("settings", name)
    if terminal.json:
        terminal.show_json(row)
    else:
        terminal.show(plain(row["value"]))
        if row["note"]:
            terminal.say(f"in force: {plain(row['effective'])} ({plain(row['note'])})")


@settings.command("set")
@click.argument("name")
@click.argument("value")
@json_option
@pass_terminal
def set_setting(terminal: Terminal, name: str, value: str) -> None:
    """Change a setting; nothing restarts."""
    done = Client(terminal.socket).put("settings", name, value=value)
    if terminal.json:
        terminal.show_json(done)
        return
    terminal.show(f"{plain(done['name'])} = {plain(done['value'])}")
    for text in done["raises"]:
        terminal.say(f"raised: {plain(text)}")


def _show(terminal: Terminal, rows: list[dict[str, Any]]) -> None:
    if terminal.json:
        terminal.show_json(rows)
    else:
        terminal.table(rows, ROWS, empty="no setting")
