"""What every daemon has: `run`, `config new`, `config check`, `healthcheck`; and a client `renew`.

A daemon's own modules are imported when its command is called, never by another's.
"""

import gc
import importlib
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from agents.cli.files import write_new
from agents.cli.terminal import Terminal, json_option, pass_terminal
from agents.runtime import logs
from agents.runtime.clock import SystemClock
from agents.runtime.config import load, render_sample
from agents.runtime.errors import ConfigError

__all__ = ["ROLES", "client", "config_class", "hub", "load_config", "server", "zone_server"]


@dataclass(frozen=True, slots=True)
class RoleWords:
    """How a role is called."""

    role: str
    package: str
    title: str


ROLES = {
    words.role: words
    for words in (
        RoleWords("server", "agents.server", "server"),
        RoleWords("hub", "agents.hub", "zone server hub"),
        RoleWords("zone-server", "agents.zone_server", "zone server"),
        RoleWords("client", "agents.client", "client"),
    )
}


def config_class(role: str) -> type[Any]:
    """Return the dataclass of a role's configuration."""
    found = importlib.import_module(f"{ROLES[role].package}.config").Config
    assert isinstance(found, type)
    return found


def load_config(role: str, path: Path) -> Any:  # noqa: ANN401 - a dataclass for each role
    """Read the configuration of a role.

    Raises:
        ConfigError: All that is wrong with it.
    """
    return load(path, config_class(role))


def default_config(role: str) -> Path:
    """Where a role's configuration is unless said otherwise."""
    return Path(f"/etc/anchorline/{role}.toml")


def _config_option(role: str) -> Callable[[Any], Any]:
    return click.option(
        "--config",
        "path",
        type=click.Path(path_type=Path, readable=False),
        default=default_config(role),
        show_default=True,
        help="The configuration.",
    )


def _group(role: str) -> click.Group:
    """Make the commands of one role."""
    title = ROLES[role].title

    @click.group(role, help=f"Run a {title}, or look after one.")
    def group() -> None:
        pass

    @group.command("run", help=f"Run the {title} until it is told to stop.")
    @_config_option(role)
    @pass_terminal
    def run(terminal: Terminal, path: Path) -> None:
        terminal.code = run_daemon(role, path)

    @group.group("config", help="Write or check a configuration.")
    def config() -> None:
        pass

    @config.command("new", help="Write a commented configuration that works as it is.")
    @click.argument("file", type=click.Path(path_type=Path, readable=False), required=False)
    @click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="An option to set.")
    @pass_terminal
    def new(terminal: Terminal, file: Path | None, given: Sequence[str]) -> None:
        write_sample(terminal, role, file, given)

    @config.command("check", help="Check a configuration, and change nothing.")
    @_config_option(role)
    @pass_terminal
    def check(terminal: Terminal, path: Path) -> None:
        log = load_config(role, path).log
        if log is not None and not log.parent.is_dir():
            raise ConfigError([f"log: there is no folder {log.parent}"], str(path))
        terminal.show(f"{path}: ok")

    @group.command(
        "healthcheck",
        help="Say in one word how it is: ok 0, down 1, starting 4, behind 5, expired 6.",
    )
    @_config_option(role)
    @click.option(
        "--state", type=click.Path(path_type=Path, readable=False), help="Its state directory."
    )
    @json_option
    @pass_terminal
    def healthcheck(terminal: Terminal, path: Path, state: Path | None) -> None:
        from agents.cli.health import Health, examine

        folder = state if state is not None else load_config(role, path).state
        health, why = examine(folder, role, terminal.clock.now())
        if terminal.json:
            terminal.show_json({"health": health.value, "why": why})
        else:
            terminal.show(health.value)
            if health is not Health.OK:
                terminal.say(why)
        terminal.code = health.code

    return group


def run_daemon(role: str, path: Path) -> int:
    """Run the daemon of a role to its end; returns the exit code of the process."""
    config = load_config(role, path)
    clock = SystemClock()
    # Before the log is somewhere else: an error until here is told to whoever started it.
    app = importlib.import_module(f"{ROLES[role].package}.app")
    logs.configure(role, clock=clock, path=config.log, level=config.log_level or "info")
    from agents.runtime import lifecycle

    # What has been imported lives as long as the process: the collector need not walk it again.
    gc.collect()
    gc.freeze()

    async def live(stop: lifecycle.Stop) -> None:
        # What a rotation of log files asks for; a configuration is read at a start only.
        stop.on_reload(logs.reopen)
        await app.run(config, clock=clock, stop=stop)

    return lifecycle.run(live, clock=clock)


def write_sample(
    terminal: Terminal, role: str, file: Path | None, given: Sequence[str] = ()
) -> None:
    """Write the sample configuration of a role; never over an existing file.

    Args:
        terminal: Where the text goes if no file is named.
        role: Which role.
        file: The file to make.
        given: Options to set, "name=value", the value as in TOML or a plain text.

    Raises:
        ConfigError: The options that were given are wrong.
        AgentError: The file exists, or cannot be written.
    """
    cls = config_class(role)
    try:
        text = render_sample(cls, dict(map(_given, given)))
    except (ValueError, TypeError) as exc:
        raise ConfigError([str(exc)], "--set") from exc
    load(text, cls)  # it works as it is
    if file is None or str(file) == "-":
        terminal.out.write(text)
        return
    write_new(file, text.encode(), mode=0o666)
    terminal.say(f"wrote {file}; next: anchorline {role} config check --config {file}")


def _given(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"got {text!r:.80}, expected NAME=VALUE")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


server, hub, zone_server, client = map(_group, ROLES)


@client.command("renew", help="Ask the running client for a new certificate now.")
@click.option("--now", is_flag=True, required=True, help="Yes, now: it is not due yet.")
@_config_option("client")
@click.option(
    "--state", type=click.Path(path_type=Path, readable=False), help="Its state directory."
)
@json_option
@pass_terminal
def renew(terminal: Terminal, now: bool, path: Path, state: Path | None) -> None:
    """Ask the running client for a new certificate now."""
    from agents.cli.control import ask

    folder = state if state is not None else load_config("client", path).state
    answer = ask(folder, b"renew")
    if terminal.json:
        terminal.show_json({"renewed": True, "answer": answer})
    else:
        terminal.show(answer)
