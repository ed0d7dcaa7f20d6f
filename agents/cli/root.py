"""`anchorline root`: list, create and revoke roots."""

import click

from agents.cli.api import ApiError, Client
from agents.cli.coverage import show_coverage, summary
from agents.cli.tables import Column, date
from agents.cli.terminal import Terminal, json_option, pass_terminal, plain
from agents.runtime.errors import AgentError

__all__ = ["root"]

ROOTS = (
    Column("NAME", "name"),
    Column("FINGERPRINT", "fingerprint"),
    Column("CREATED", "created", date),
    Column("STATE", "state"),
    Column("PRIVATE KEY", "private_key_held", lambda held: "held" if held else "erased"),
)
LOG = (
    Column("AT", "at", date),
    Column("ACTOR", "actor"),
    Column("ACTION", "action"),
    Column("SUBJECT", "subject"),
    Column("RESULT", "result"),
    Column("REASON", "reason"),
)


@click.group()
def root() -> None:
    """List, create and revoke roots."""


@root.command("list")
@json_option
@pass_terminal
def list_roots(terminal: Terminal) -> None:
    """List every root that there ever was."""
    rows = Client(terminal.socket).get("roots")
    if terminal.json:
        terminal.show_json(rows)
        return
    shown = [{**row, "state": _state(row)} for row in rows]
    terminal.table(shown, ROOTS, empty="no root")


@root.command("new")
@click.option("--yes", is_flag=True, help="Yes, even if the newest root is young.")
@json_option
@pass_terminal
def new(terminal: Terminal, yes: bool) -> None:
    """Create a further root; every component follows it."""
    client = Client(terminal.socket)
    try:
        made = client.post("roots", confirmed=yes)
    except ApiError as exc:
        if exc.code != "confirm":
            raise
        terminal.say(plain(exc.text))
        terminal.confirm("Create a root all the same?", yes=False)
        made = client.post("roots", confirmed=True)
    if terminal.json:
        terminal.show_json(made)
        return
    terminal.show(f"created {plain(made['root']['name'])}")
    terminal.show(f"fingerprint {made['root']['fingerprint']}")
    terminal.show(f"trace {made['trace']}")
    terminal.say(f"{summary(made['coverage'])}; see: anchorline rotation status --behind")


@root.command("revoke")
@click.argument("name")
@click.option("--key-in-doubt", is_flag=True, help="Others may have the key: do not wait 7 days.")
@click.option("--reason", required=True, help="Why; it stays in the activity log.")
@click.option("--yes", is_flag=True, help="Yes, whoever is behind.")
@json_option
@pass_terminal
def revoke(terminal: Terminal, name: str, key_in_doubt: bool, reason: str, yes: bool) -> None:
    """Revoke a root, all keys under it, and destroy its private key."""
    client = Client(terminal.socket)
    _check_revocable(client, name, key_in_doubt)
    coverage = client.get("rotation", query="behind=false")
    show_coverage(terminal, coverage, every=False, talk=True)
    terminal.say(summary(coverage))
    if coverage["behind"]:
        terminal.say(f"they lose every link under {plain(name)}, and come back re-keyed")
    terminal.confirm(f"Revoke {plain(name)}? This cannot be undone.", yes=yes)
    # For those who were seen and nobody else, unless it was said to be for whoever it is.
    shown = None if yes else [row["id"] for row in coverage["behind"]]
    done = client.post(
        *("roots", name, "revoke"),
        reason=reason,
        key_in_doubt=key_in_doubt,
        confirmed=True,
        shown=shown,
    )
    if terminal.json:
        terminal.show_json(done)
        return
    for one in done["revoked"]:
        terminal.show(f"revoked {plain(one)}")
    terminal.show(f"trace {done['trace']}")


@root.command("log")
@json_option
@pass_terminal
def log(terminal: Terminal) -> None:
    """Show who created and revoked which root, and when; newest first."""
    rows = Client(terminal.socket).get("roots", "log")
    if terminal.json:
        terminal.show_json(rows)
    else:
        terminal.table(rows, LOG, empty="nothing yet")


def _check_revocable(client: Client, name: str, key_in_doubt: bool) -> None:
    """Refuse before anybody is asked, where the answer is known; the server decides again."""
    for row in client.get("roots"):
        if row["name"] != name:
            continue
        in_doubt = row["revocable_in_doubt"]
        if not (in_doubt if key_in_doubt else row["revocable"]):
            hint = "if the key is in doubt, say --key-in-doubt" if in_doubt else ""
            raise AgentError(f"{plain(name)} cannot be revoked: {plain(row['why'])}", hint)
        return
    raise AgentError(f"no root {name!r:.200}", hint="see: anchorline root list")


def _state(row: dict[str, object]) -> str:
    if row["revoked"]:
        return "revoked"
    return "newest" if row["current"] else "active"
