"""Commands that are imported when they are used.

A client's daemon is started by the same program as a server's. Each command is named here by
where it is, and imported when it is called, so that a client never loads what only a server
needs (500 clients on one machine notice 23 MiB each).
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

import click

__all__ = ["Lazy", "LazyGroup"]


@dataclass(frozen=True, slots=True)
class Lazy:
    """Where a command is, and what help says of it."""

    where: str
    """ "package.module:name"."""
    help: str
    hidden: bool = False


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called.

    Args:
        lazy: Commands by name, in the order in which help lists them.
    """

    def __init__(self, *, lazy: Mapping[str, Lazy], **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]  # click's own, passed through
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of help."""
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        lazy = self._lazy.get(cmd_name)
        if lazy is None:
            return None
        module, _, name = lazy.where.partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing one."""
        rows = [(name, lazy.help) for name, lazy in self._lazy.items() if not lazy.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
