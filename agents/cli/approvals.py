"""`anchorline approvals`: which hubs and zone servers are part of the deployment."""

import click

from agents.cli.api import Client
from agents.cli.tables import Column, date, short
from agents.cli.terminal import Terminal, json_option, pass_terminal, plain

__all__ = ["approvals"]

ROWS = (
    Column("FINGERPRINT", "fingerprint"),
    Column("ROLE", "role"),
    Column("HOST", "host"),
    Column("ADDRESS", "address"),
    Column("STATE", "state"),
    Column("LAST SEEN", "last_seen", date),
    Column("DECIDED BY", "decided_by"),
)
LOG = (
    Column("AT", "at", date),
    Column("ACTOR", "actor"),
    Column("STATE", "state"),
    Column("FINGERPRINT", "fingerprint", short),
    Column("HOST", "host"),
    Column("ADDRESS", "address"),
    Column("REASON", "reason"),
)


@click.group()
def approvals() -> None:
    """Decide who may be a hub or zone server."""


@approvals.command("list")
@json_option
@pass_terminal
def list_approvals(terminal: Terminal) -> None:
    """List the hubs and zone servers that asked."""
    rows = Client(terminal.socket).get("approvals")
    if terminal.json:
        terminal.show_json(rows)
        return
    terminal.table(rows, ROWS, empty="nobody has asked yet")
    if any(row["state"] == "pending" for row in rows):
        terminal.say(
            "compare the fingerprint with `anchorline pki show` on that host, then approve"
        )


@approvals.command("approve")
@click.argument("fingerprint")
@click.option("--reason", default="", help="Why; it stays in the log.")
@json_option
@pass_terminal
def approve(terminal: Terminal, fingerprint: str, reason: str) -> None:
    """Approve a hub or zone server; compare its fingerprint first."""
    _decide(terminal, fingerprint, "approve", reason)


@approvals.command("deny")
@click.argument("fingerprint")
@click.option("--reason", default="", help="Why; it stays in the log.")
@json_option
@pass_terminal
def deny(terminal: Terminal, fingerprint: str, reason: str) -> None:
    """Deny a hub or zone server that asked."""
    _decide(terminal, fingerprint, "deny", reason)


@approvals.command("revoke")
@click.argument("fingerprint")
@click.option("--reason", default="", help="Why; it stays in the log.")
@click.option("--yes", is_flag=True, help="Yes, whoever depends on it.")
@json_option
@pass_terminal
def revoke(terminal: Terminal, fingerprint: str, reason: str, yes: bool) -> None:
    """Take an approval back: its keys are denied everywhere."""
    rows = Client(terminal.socket).get("approvals")
    named = [row for row in rows if row["fingerprint"].startswith(fingerprint.lower())]
    terminal.table(named, ROWS, empty="no request has this fingerprint", talk=True)
    terminal.confirm("Revoke this approval? It is cut off at once.", yes=yes)
    _decide(terminal, fingerprint, "revoke", reason)


@approvals.command("log")
@json_option
@pass_terminal
def log(terminal: Terminal) -> None:
    """Show every request and decision, newest first."""
    rows = Client(terminal.socket).get("approvals", "log")
    if terminal.json:
        terminal.show_json(rows)
    else:
        terminal.table(rows, LOG, empty="nothing yet")


def _decide(terminal: Terminal, fingerprint: str, verb: str, reason: str) -> None:
    row = Client(terminal.socket).post("approvals", fingerprint, verb, reason=reason)
    if terminal.json:
        terminal.show_json(row)
    else:
        who = f"{plain(row['role'])} {plain(row['host'])}"
        terminal.show(f"{plain(row['state'])}: {who}, fingerprint {row['fingerprint']}")
