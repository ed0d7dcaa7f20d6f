"""The program `anchorline`.

    anchorline [--socket PATH] [--json] COMMAND ...

Errors are `anchorline: error: ...`, then `anchorline: hint: ...` where there is something to do
about it. The exit code is one of `agents.runtime.errors.Exit`.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from agents.cli.lazy import Lazy, LazyGroup
from agents.cli.origin import check_origin
from agents.cli.terminal import DEFAULT_SOCKET, Terminal
from agents.runtime.errors import AgentError, Exit

__all__ = ["cli", "main"]

COMMANDS = {
    "server": Lazy("agents.cli.roles:server", "Run a server, or look after one."),
    "hub": Lazy("agents.cli.roles:hub", "Run a zone server hub, or look after one."),
    "zone-server": Lazy("agents.cli.roles:zone_server", "Run a zone server, or look after one."),
    "client": Lazy("agents.cli.roles:client", "Run a client, or look after one."),
    "status": Lazy("agents.cli.status:status", "Show a whole deployment on one screen."),
    "root": Lazy("agents.cli.root:root", "List, create and revoke roots."),
    "rotation": Lazy("agents.cli.rotation:rotation", "See who has followed to the newest root."),
    "approvals": Lazy("agents.cli.approvals:approvals", "Decide who may be a hub or zone server."),
    "clients": Lazy("agents.cli.clients:clients", "List clients."),
    "settings": Lazy("agents.cli.settings:settings", "Read and change settings."),
    "bundle": Lazy("agents.cli.bundle:bundle", "Export and inspect init bundles."),
    "pki": Lazy("agents.cli.pki:pki", "Show the keys of any component, running or not."),
    "cert": Lazy("agents.cli.cert:cert", "Inspect certificates in a file or at a port."),
    "logs": Lazy("agents.cli.logs:logs", "Read the logs of components, merged by time."),
    "lab": Lazy("agents.cli.lab_command:lab", "Run a whole deployment on this machine."),
    "lab-node": Lazy("agents.cli.lab_command:lab_node", "One component of a lab.", hidden=True),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--socket",
    type=click.Path(path_type=Path, readable=False),
    envvar="ANCHORLINE_SOCKET",
    default=DEFAULT_SOCKET,
    show_default=True,
    show_envvar=True,
    help="Where the server's administration API listens.",
)
@click.option("--json", is_flag=True, help="Write results for programs.")
@click.version_option(package_name="anchorline", message="%(package)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, socket: Path, json: bool) -> None:
    """Endpoint key infrastructure that rotates itself.

    Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong, 3 refused.
    """
    terminal = ctx.ensure_object(Terminal)
    terminal.socket = socket
    terminal.json = json


def main(argv: Sequence[str] | None = None, *, terminal: Terminal | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: The words after the program's name; those of the process by default.
        terminal: Its streams; those of the process by default.
    """
    terminal = terminal if terminal is not None else Terminal()
    try:
        check_origin()
        return _run(sys.argv[1:] if argv is None else list(argv), terminal)
    except (AgentError, ExceptionGroup) as exc:
        return _fail(exc, terminal)
    except click.Abort:
        terminal.say()
        return 130  # what a shell says of a program that was interrupted
    except click.ClickException as exc:
        return _misuse(exc, terminal)
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python flushes once more at exit: into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.ERROR  # as click says when it notices first
    except Exception as exc:
        return _fail(exc, terminal)


def _run(words: list[str], terminal: Terminal) -> int:
    result = cli.main(words, prog_name="anchorline", obj=terminal, standalone_mode=False)
    terminal.out.flush()
    # click returns a code for --help and friends, and what a command returns, which is nothing.
    return result if isinstance(result, int) else terminal.code


def _fail(error: Exception, terminal: Terminal) -> int:
    from agents.runtime.lifecycle import report  # an event loop, which only a daemon needs

    return report(error, err=terminal.err)


def _misuse(error: click.ClickException, terminal: Terminal) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        terminal.say(error.format_message())  # the help of a group that was named alone
        return Exit.USAGE
    text = error.format_message().rstrip(".")
    terminal.say(f"anchorline: error: {text[:1].lower()}{text[1:]}")
    ctx = getattr(error, "ctx", None)
    if ctx is not None:
        terminal.say(f"anchorline: hint: see {ctx.command_path} --help")
    return Exit.USAGE


if __name__ == "__main__":
    sys.exit(main())
