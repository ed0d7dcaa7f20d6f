"""`anchorline bundle`: what a new component is given so that it knows whom to believe."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agents.cli.api import Client
from agents.cli.files import refuse_existing, write_new
from agents.cli.tables import Column, date
from agents.cli.terminal import Terminal, json_option, pass_terminal, plain
from agents.member.bundle_settings import NAMES, PORT, SERVERS, parse_settings
from agents.member.fingerprints import same_deployment
from agents.runtime.config import DEFAULT_PORT
from agents.runtime.errors import AgentError, Exit, reason_of

if TYPE_CHECKING:
    from pki.bundle import Bundle

__all__ = ["bundle", "next_commands", "open_bundle_file", "slot_rows"]

INSTALLED = "/etc/anchorline/anchorline-init.dat"
ROOTS = (
    Column("ROOT", "name"),
    Column("FINGERPRINT", "fingerprint"),
    Column("CREATED", "created", date),
    Column("STATE", "state"),
)


class WrongDeploymentError(AgentError):
    """A bundle is of another deployment than was expected."""

    exit_code = Exit.REFUSED


@click.group()
def bundle() -> None:
    """Export and inspect init bundles."""


@bundle.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="A setting to carry.")
@json_option
@pass_terminal
def export(terminal: Terminal, file: Path, given: Sequence[str]) -> None:
    """Write an init bundle to FILE (- for standard output)."""
    settings = dict(_setting(text) for text in given)
    client = Client(terminal.socket)
    if str(file) != "-":
        refuse_existing(file)
    data, headers = client.download("bundle", settings=settings)
    fingerprint = headers.get("x-anchorline-fingerprint", "")
    if str(file) == "-":
        terminal.binary.write(data)
        terminal.say(f"deployment fingerprint {fingerprint}")
        return
    write_new(file, data, mode=0o600)
    servers, assumed = _servers(client, settings)
    commands = next_commands(fingerprint, servers)
    if terminal.json:
        terminal.show_json(
            {
                "file": str(file),
                "fingerprint": fingerprint,
                "count": int(headers.get("x-anchorline-count", "0")),
                "assumed": assumed,
                "next": commands,
            }
        )
        return
    terminal.say(f"wrote {file}, number {headers.get('x-anchorline-count')} that was handed out;")
    terminal.say("it holds no secret, but whoever has it can connect and learn of this deployment")
    terminal.show(f"deployment fingerprint {fingerprint}")
    _show_next(terminal, commands, assumed)


@bundle.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--expect-fingerprint", metavar="HEX", help="Refuse a bundle of another deployment.")
@json_option
@pass_terminal
def inspect(terminal: Terminal, file: Path, expect_fingerprint: str | None) -> None:
    """Verify a bundle and show what is in it; needs no server."""
    opened = open_bundle_file(file)
    if expect_fingerprint is not None and not same_deployment(
        expect_fingerprint, opened.fingerprint
    ):
        raise WrongDeploymentError(
            f"{file} is of deployment {opened.fingerprint}, expected {expect_fingerprint!r:.80}",
            hint="do not install it; compare with what `anchorline bundle export` printed",
        )
    slots = [slot_rows(chain) for chain in opened.chains]
    servers, assumed = _bundled_servers(opened)
    commands = next_commands(opened.fingerprint, servers)
    if terminal.json:
        terminal.show_json(
            {
                "fingerprint": opened.fingerprint,
                "deployment": opened.deployment.hex(),
                "signer": opened.signer.hex(),
                "slots": slots,
                "settings": dict(opened.settings),
                "assumed": assumed,
                "next": commands,
            }
        )
        return
    terminal.show(f"deployment fingerprint {opened.fingerprint}")
    terminal.show(f"deployment {opened.deployment.hex()}")
    for slot in slots:
        entries = "1 entry" if slot["n"] == 0 else f"{slot['n'] + 1} entries"
        terminal.show(f"slot {slot['slot']}, {entries}, the last of {date(slot['time'])}")
        terminal.table(slot["roots"], ROOTS, empty="no root")
    for name, value in opened.settings.items():
        terminal.show(f"setting {plain(name)} = {plain(value)}")
    for problem in opened.problems:
        terminal.say(f"this program is older than the bundle: {problem}")
    if not opened.settings:
        terminal.say("it carries no settings")
    _show_next(terminal, commands, assumed)


def open_bundle_file(file: Path) -> "Bundle":
    """Read and verify a bundle.

    Raises:
        AgentError: It cannot be read, or is no bundle.
    """
    from pki.bundle import MAX_BUNDLE, open_bundle
    from pki.errors import PKIError

    try:
        if str(file) == "-":
            data = sys.stdin.buffer.read(MAX_BUNDLE + 1)
        else:
            with file.open("rb") as stream:
                data = stream.read(MAX_BUNDLE + 1)
        return open_bundle(data)
    except OSError as exc:
        raise AgentError(f"cannot read {file}: {reason_of(exc)}") from exc
    except PKIError as exc:
        raise AgentError(
            f"{file} is refused: {exc}",
            hint="copy it again; if it stays so, export a new one on the server",
        ) from exc


def slot_rows(chain: Any) -> dict[str, Any]:  # noqa: ANN401 - pki.ledger.Chain, imported late
    """Return one server's roots and ledger, as JSON carries it."""
    from pki import certificates

    roots = []
    for root in chain.roots:
        revoked = root.key_id in chain.revoked
        newest = root.key_id == chain.current_root.key_id
        roots.append(
            {
                "name": root.name,
                "fingerprint": root.key_id.hex(),
                "created": certificates.created(root.der).isoformat(),
                "state": "revoked" if revoked else "newest" if newest else "active",
            }
        )
    last = chain.entries[-1].parse()
    return {
        "slot": chain.slot.hex(),
        "n": chain.last.n,
        "entry_id": chain.last.id.hex(),
        "time": datetime.fromtimestamp(last.time, UTC).isoformat(),
        "roots": roots,
    }


def next_commands(fingerprint: str, servers: Sequence[str]) -> list[str]:
    """Return what to type on the next machine, once the bundle is there as `INSTALLED`."""
    config = "/etc/anchorline/client.toml"
    options = [
        f"--set={name}={value}"
        for name, value in (("servers", json.dumps(servers)), ("expect_fingerprint", fingerprint))
    ]
    return [
        shlex.join(["anchorline", "client", "config", "new", config, *options]),
        "systemctl enable --now anchorline-client",
    ]


def _show_next(terminal: Terminal, commands: Sequence[str], assumed: Sequence[str]) -> None:
    for text in assumed:
        terminal.say(plain(text))
    terminal.say(f"on the next machine, with the bundle as {INSTALLED}:")
    for command in commands:
        terminal.say(f"  {command}")


def _servers(client: Client, settings: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Where the next machine is to connect, as far as this server can say, and what is assumed."""
    if SERVERS in settings:
        return _named(settings)
    server = client.get("status")["server"]
    return _at(server["fqdn"], str(server["listen"] or "").rpartition(":")[2])


def _bundled_servers(opened: "Bundle") -> tuple[list[str], list[str]]:
    """Where the next machine is to connect, and what of that the bundle does not say."""
    if SERVERS in opened.settings:
        return _named(opened.settings)
    root = opened.chains[0].current_root.name
    servers, assumed = _at(root.rpartition(" Root ")[0], opened.settings.get(PORT, ""))
    return servers, [f"no server is named in the bundle: this one made {root}", *assumed]


def _named(settings: Mapping[str, str]) -> tuple[list[str], list[str]]:
    known = {name: settings[name] for name in NAMES if name in settings}
    try:
        servers = parse_settings(known).servers
        # Whose port is another one with another default has none of its own.
        others = parse_settings({PORT: "1", **known}).servers
    except ValueError as exc:
        raise AgentError(str(exc), hint="export another bundle") from exc
    bare = [one.host for one, other in zip(servers, others, strict=True) if one != other]
    return [str(server) for server in servers], _without_port(bare)


def _at(host: str, port: str) -> tuple[list[str], list[str]]:
    return [f"{host}:{port or DEFAULT_PORT}"], _without_port([] if port else [host])


def _without_port(hosts: Sequence[str]) -> list[str]:
    text = f"no port is named for {', '.join(hosts)}: the default applies, {DEFAULT_PORT}"
    return [text] if hosts else []


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r:.80} is not NAME=VALUE", param_hint="--set")
    return name, value
