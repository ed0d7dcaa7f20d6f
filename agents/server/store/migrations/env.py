"""Alembic's entrance: it runs the steps on the connection that the engine hands in.

The caller has begun the transaction and commits it, so that a crash in the middle of a
migration leaves the schema before it, with its data.
"""

from alembic import context
from sqlalchemy import Connection

from agents.server.store.schema import METADATA

connection = context.config.attributes.get("connection")
if not isinstance(connection, Connection):
    raise TypeError("migrations run on a connection that agents.server.store hands in")
context.configure(connection=connection, target_metadata=METADATA, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
