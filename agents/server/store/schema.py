"""The tables of a server's store, and how values lie in them.

1. Ids and hashes are bytes, dates are whole Unix seconds (`Instant`), structures are JSON
   text written by us. No column needs one database's own SQL.
2. A table is changed by a migration only (`migrations/versions`); a test compares what
   the migrations build with what stands here.
3. Histories (`activity`, `approval_event`, `bundle_export`) are appended to and never
   changed. Of requests that are forgotten before anybody has decided on them there is none.
"""

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator

__all__ = [
    "METADATA",
    "SERIAL_BYTES",
    "Instant",
    "SerialNumber",
    "ack",
    "activity",
    "approval",
    "approval_event",
    "bundle",
    "bundle_export",
    "client",
    "issued",
    "issuer_count",
    "setting",
]

SERIAL_BYTES: Final = 20
"""RFC 5280, 4.1.2.2: a serial number has at most 20 octets."""


class Instant(TypeDecorator[datetime]):
    """An aware date, kept as Unix seconds; what is below a second is cut off."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Refuse a naive date: it means another moment on another machine."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive date {value.isoformat()}")
        return int(value.timestamp())

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """In UTC, whatever zone it was written in."""
        return None if value is None else datetime.fromtimestamp(value, UTC)


class SerialNumber(TypeDecorator[int]):
    """A certificate's serial number: more than 64 bits, so kept as 20 bytes, big-endian."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> bytes | None:
        """Fixed length, so that equal numbers are equal bytes, in the order of numbers."""
        return None if value is None else value.to_bytes(SERIAL_BYTES, "big")

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> int | None:
        """The number again."""
        return None if value is None else int.from_bytes(value, "big")


_Sequence: Final = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts only a column declared INTEGER; its integers have 64 bits in any case."""

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

setting: Final = Table(
    "setting",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("setting_type", Text, nullable=False),
    Column("value_type", Text, nullable=False),
    Column("changed_by", Text, nullable=False),
    Column("changed_at", Instant, nullable=False),
    Column("revision", BigInteger, nullable=False),
)

activity: Final = Table(
    "activity",
    METADATA,
    Column("seq", _Sequence, primary_key=True, autoincrement=True),
    Column("at", Instant, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("details", Text, nullable=False),
    Column("salt", LargeBinary),
    Column("hash", LargeBinary),
    Index(None, "hash"),
    Index(None, "action"),
)

approval: Final = Table(
    "approval",
    METADATA,
    Column("identity", LargeBinary, primary_key=True),
    Column("role", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("first_seen", Instant, nullable=False),
    Column("last_seen", Instant, nullable=False),
    Column("state", Text, nullable=False),
    Column("decided_by", Text),
    Column("decided_at", Instant),
    Column("reason", Text, nullable=False),
)

approval_event: Final = Table(
    "approval_event",
    METADATA,
    Column("seq", _Sequence, primary_key=True, autoincrement=True),
    Column("identity", LargeBinary, ForeignKey("approval.identity"), nullable=False),
    Column("at", Instant, nullable=False),
    Column("actor", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Index(None, "identity"),
)

issued: Final = Table(
    "issued",
    METADATA,
    Column("issuer", LargeBinary, nullable=False),
    Column("serial", SerialNumber, nullable=False),
    Column("kind", Text, nullable=False),
    Column("holder", LargeBinary, nullable=False),
    Column("key_id", LargeBinary, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("not_before", Instant, nullable=False),
    Column("not_after", Instant, nullable=False),
    Column("at", Instant, nullable=False),
    PrimaryKeyConstraint("issuer", "serial"),
    Index(None, "not_after"),
)

issuer_count: Final = Table(
    "issuer_count",
    METADATA,
    Column("issuer", LargeBinary, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("signed", BigInteger, nullable=False),
)

client: Final = Table(
    "client",
    METADATA,
    Column("id", LargeBinary, primary_key=True),
    Column("host", Text, nullable=False),
    Column("claimed", Text, nullable=False),
    Column("seen", Text, nullable=False),
    Column("port", Integer, nullable=False),
    Column("protocol", Integer, nullable=False),
    Column("version", Text, nullable=False),
    Column("last_registration", Instant),
    Column("key_not_after", Instant),
    Column("root", LargeBinary),
    Column("responder", LargeBinary, nullable=False),
    Column("token_out", LargeBinary),
    Column("token_shown", LargeBinary),
    Column("lost_at", Instant),
    Column("first_seen", Instant, nullable=False),
)

ack: Final = Table(
    "ack",
    METADATA,
    Column("component", LargeBinary, nullable=False),
    Column("slot", LargeBinary, nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("entry_id", LargeBinary, nullable=False),
    Column("spki", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("role", Text, nullable=False),
    Column("credentials", Text, nullable=False),
    Column("at", Instant, nullable=False),
    PrimaryKeyConstraint("component", "slot"),
)

bundle: Final = Table(
    "bundle",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("content", LargeBinary, nullable=False),
)

bundle_export: Final = Table(
    "bundle_export",
    METADATA,
    Column("seq", _Sequence, primary_key=True, autoincrement=True),
    Column("digest", LargeBinary, ForeignKey("bundle.digest"), nullable=False),
    Column("at", Instant, nullable=False),
    Column("actor", Text, nullable=False),
    Index(None, "digest"),
)
