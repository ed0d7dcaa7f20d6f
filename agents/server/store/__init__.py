"""Where a server keeps what must outlive it, keys and ledger excepted.

SQLAlchemy Core on one file (SQLite), written by one thread in groups, migrated at open.
`Store` runs functions of a connection; each noun has its own file of such functions.
"""

from agents.server.store.store import Store

__all__ = ["Store"]
