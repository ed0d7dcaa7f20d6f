"""From the schema that a database has to the one that this version needs.

1. An empty database gets every step, one of an older version those it lacks.
2. One of a newer version is refused: its steps are not known here, and cannot be undone.
3. Tables without a revision are somebody else's: refused, and not mixed with ours.
4. All steps run in the caller's transaction: a crash leaves the schema before them.
"""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from agents.runtime.errors import StateError

__all__ = ["configuration", "upgrade"]

MIGRATIONS: Final = Path(__file__).parent / "migrations"


def configuration() -> Config:
    """Alembic's configuration, without a file: the steps are a part of the package."""
    config = Config()
    # Alembic interpolates its options: a percent sign in the path is doubled.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(connection: Connection, where: str) -> None:
    """Bring the schema up to date, in the transaction that the caller has begun.

    Raises:
        StateError: a database of a newer version, or of another program.
    """
    config = configuration()
    script = ScriptDirectory.from_config(config)
    known = {step.revision for step in script.walk_revisions()}
    current = MigrationContext.configure(connection).get_current_heads()
    unknown = sorted(set(current) - known)
    if unknown:
        raise StateError(
            f"{where} has schema {', '.join(unknown)}, newer than {script.get_current_head()}",
            "start the version that wrote it, or restore the backup made before its upgrade",
        )
    if not current and inspect(connection).get_table_names():
        raise StateError(f"{where} holds the tables of another program", "name another file")
    if current != (script.get_current_head(),):
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
